package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/history"
	"rdpp/rdpp/testmain"
)

// fading is a line of pictures that arrived in their order, whose light fades by so much per picture from the middle on.
func fading(t *testing.T, images int, by float64) (dir string) {
	t.Helper()
	contents := map[string]string{}
	for i := range images {
		brightness := 0.5 + 0.01*float64(i*7919%13-6) - by*float64(max(i-images/2, 0))
		contents[fmt.Sprintf("%04d.png", i)] = fmt.Sprint(brightness)
	}
	dir = newLine(t, contents)
	began := time.Now().Add(-time.Hour)
	for i := range images {
		at := began.Add(time.Duration(i) * time.Second)
		if err := os.Chtimes(filepath.Join(dir, "in", fmt.Sprintf("%04d.png", i)), at, at); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// looked is the look of a picture of fading.
func looked(path string) (l dataset.Look) {
	text, _ := os.ReadFile(path) // which may be gone
	l.Brightness, _ = strconv.ParseFloat(string(text), 64)
	l.W, l.H = 80, 60
	return l
}

// watchFading watches a line of such pictures once. Before it judges the picture that is named it kills itself.
func watchFading(dir, killedAt string, complain func(error)) error {
	return watchLine(context.Background(), dir, func(o *Options) {
		o.Once, o.Drift, o.InFlight, o.Complain = true, 0.1, 1, complain
		o.Metrics = filepath.Join(dir, "line.prom")
		judge := o.Judge
		o.Judge = func(ctx context.Context, path string) func() Outcome {
			if filepath.Base(path) == killedAt {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			look, finish := looked(path), judge(ctx, path)
			return func() Outcome {
				o := finish()
				o.Look, o.Prediction.Width, o.Prediction.Height = look, look.W, look.H
				return o
			}
		}
	})
}

// TestDrift: a line whose light fades is told of, one that stays is not. Either is in the metrics.
func TestDrift(t *testing.T) {
	for _, by := range []float64{0, 0.002} {
		dir := fading(t, 150, by)
		var said []string
		if err := watchFading(dir, "", func(err error) { said = append(said, err.Error()) }); err != nil {
			t.Fatal(err)
		}
		if warned := len(said) > 0; warned != (by > 0) || warned && !strings.HasPrefix(said[0], "drift: the mean brightness of good images fell: 0.4") {
			t.Errorf("fading by %v per image: got %q", by, said)
		}
		text, err := os.ReadFile(filepath.Join(dir, "line.prom"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			fmt.Sprintf(`rdpp_watch_images_total{folder=%q,verdict="good"} 150`, filepath.Join(dir, "in")),
			fmt.Sprintf(`rdpp_drift_warnings_total{folder=%q,model="",stream="brightness"} %d`, filepath.Join(dir, "in"), len(said)),
			fmt.Sprintf(`rdpp_drift_now{folder=%q,model="",stream="width"} 80`, filepath.Join(dir, "in")),
		} {
			if !strings.Contains(string(text), want+"\n") {
				t.Errorf("fading by %v per image: want %s in\n%s", by, want, text)
			}
		}
	}
}

// TestDriftKilled: a watch that is killed and goes on stands, to the bit, where one stands that was not; also one that judged nothing
// more.
func TestDriftKilled(t *testing.T) {
	whole, killed := fading(t, 120, 0.001), fading(t, 120, 0.001)
	if err := watchFading(whole, "", func(error) {}); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"0040.png", "0090.png"} {
		cmd, stderr := testmain.Start(t, "fading", nil, killed, at)
		if code := testmain.ExitCode(t, cmd); code != -1 {
			t.Fatalf("got code %d, %s, want it killed", code, stderr)
		}
	}
	for range 2 {
		if err := watchFading(killed, "", func(error) {}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := kept(t, killed), kept(t, whole); got != want || !strings.Contains(want, `"count":120`) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// kept is what the history keeps of a line's drift and counts.
func kept(t *testing.T, dir string) string {
	t.Helper()
	h, err := history.Open(filepath.Join(dir, "line.db"), &history.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	text := ""
	for _, name := range []string{"drift:", "images:"} {
		record, state, err := h.State(t.Context(), name+"watch:"+filepath.Join(dir, "in"))
		if err != nil || state == nil {
			t.Fatalf("%s: got %s, %v", name, state, err)
		}
		text += fmt.Sprintln(record, string(state))
	}
	return text
}

// TestDriftModels: another model's images, and the same one's at another threshold, are watched by themselves; who comes back finds
// the records. Images of other sources and such as are not good do not count.
func TestDriftModels(t *testing.T) {
	h, err := history.Open(filepath.Join(t.TempDir(), "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, c := range []struct {
		model     string
		threshold float64
		rate      float64
		want      int
	}{{"a", 1, 0.1, 10}, {"a", 1, 0.1, 20}, {"b", 1, 0.1, 10}, {"a", 2, 0.1, 10}, {"a", 1, 0.1, 30}, {"a", 1, 0.2, 40}} {
		d := drifts{source: "watch", history: h}
		d.opt.Rate = c.rate
		if err := d.resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			for _, r := range []history.Record{
				{Source: "watch", ModelSHA256: c.model, Threshold: c.threshold, Verdict: history.Good, Score: 1},
				{Source: "watch", ModelSHA256: c.model, Threshold: c.threshold, Verdict: history.Anomalous, Score: 9},
				{Source: "other", ModelSHA256: c.model, Threshold: c.threshold, Verdict: history.Good, Score: 9},
			} {
				if err := h.Add(t.Context(), &r); err != nil {
					t.Fatal(err)
				}
				if r.Source != "watch" {
					continue
				}
				if _, err := d.see(t.Context(), &r); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := d.save(t.Context()); err != nil {
			t.Fatal(err)
		}
		state, err := d.lookout.State()
		if err != nil {
			t.Fatal(err)
		}
		var streams map[string]struct{ Count, Warnings int }
		if err := json.Unmarshal(state, &streams); err != nil {
			t.Fatal(err)
		}
		if streams["score"].Count != c.want || streams["score"].Warnings != 0 || streams["brightness"].Count != 0 {
			t.Errorf("%+v: got %+v", c, streams)
		}
	}
}
