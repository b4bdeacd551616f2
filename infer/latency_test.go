package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/testmain"
)

var (
	latency      = flag.Int("latency", 0, "let TestLatency measure so many images")
	latencyModel = flag.String("latency-model", "", "with the model in `FILE`; default: one that tests use")
	latencyData  = flag.String("latency-data", "", "of the images in `DIR`; default: those that tests use")
	latencyEvery = flag.Duration("latency-every", 500*time.Millisecond, "one after each `TIME`")
)

// overhead is what a verdict may take beside reading the file and judging the image.
const overhead = 50 * time.Millisecond

// TestLatency measures the time from an image's file being closed until the line with its verdict is there, which comes when the record is
// on the disk, and, before that, what reading and judging alone takes. The machine should have no other work.
//
//	go test ./infer -run TestLatency -v -args -latency 400
func TestLatency(t *testing.T) {
	if *latency <= 0 {
		t.Skip("no -latency")
	}
	model, paths := cmp.Or(*latencyModel, modelFile), latencyImages(t)
	alone := judgedAlone(t, model, paths)

	l := newLine(t)
	cmd := testmain.Child(asProgram, "watch", l.in, "--model", model, "--threads", "2", "--history", l.history, "--json")
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	lines := bufio.NewReader(stdout)
	var whole []time.Duration
	const first = 20 // that are not counted
	for i := range first + *latency {
		data, err := os.ReadFile(paths[i%len(paths)])
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(l.in, fmt.Sprintf("%06d%s", i, filepath.Ext(paths[i%len(paths)])))
		if err := arrive(path, data, i%2 == 0); err != nil {
			t.Fatal(err)
		}
		closed := time.Now()
		line, err := lines.ReadBytes('\n')
		took := time.Since(closed)
		var got watched
		if err == nil {
			err = json.Unmarshal(line, &got)
		}
		if err != nil || got.Image != path {
			t.Fatalf("got %s, %v, want a verdict on %s", line, err, path)
		}
		if i >= first {
			whole = append(whole, took)
		}
		time.Sleep(*latencyEvery)
	}
	median, high := quantiles(whole)
	medianAlone, highAlone := quantiles(alone)
	t.Logf("from closed to verdict: median %.1f ms, p99 %.1f ms; reading and judging alone: median %.1f ms, p99 %.1f ms; %d images",
		ms(median), ms(high), ms(medianAlone), ms(highAlone), len(whole))
	if median-medianAlone > overhead || high-highAlone > overhead {
		t.Errorf("got %.1f ms more in the median, %.1f ms in p99, want at most %v", ms(median-medianAlone), ms(high-highAlone), overhead)
	}
}

func latencyImages(t *testing.T) (paths []string) {
	if *latencyData == "" {
		good, anomalous := testImages()
		return append(good, anomalous...)
	}
	sources, _ := listFolder(*latencyData)
	for _, s := range sources {
		if s.err != nil {
			t.Fatal(s.err)
		}
		paths = append(paths, s.path)
	}
	return paths
}

// judgedAlone are the times in which a detector reads and judges images, one at a time.
func judgedAlone(t *testing.T, model string, paths []string) (times []time.Duration) {
	d, err := rdpp.OpenDetector(model, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const first = 20
	for i := range first + min(*latency, 200) {
		began := time.Now()
		r, _, err := d.DetectFile(paths[i%len(paths)])
		if err != nil {
			t.Fatal(err)
		}
		r.Prediction(paths[i%len(paths)]) // with its outlines
		if i >= first {
			times = append(times, time.Since(began))
		}
		time.Sleep(*latencyEvery / 5)
	}
	return times
}

// quantiles are the median and the value below which 99 of 100 are.
func quantiles(times []time.Duration) (median, high time.Duration) {
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*99/100]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
