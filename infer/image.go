package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/report"
	"rdpp/rdpp/weights"
)

const imageHelp = `Usage: infer image --model FILE [flags] IMAGE|DIR|- ...

Prints a line per image: verdict, score, threshold, p-value (how rare such a
score is among good parts), number of regions, name. Scores are 0 (like good
parts) to 6. A DIR stands for the images directly in it; - is standard input.
Exit codes: 0 none anomalous, 3 some anomalous, 1 some failed, 2 wrong usage.
`

// inFlight is how many images are read, scored and drawn at once: enough to keep the device busy, few enough for
// large images to fit in memory.
const inFlight = 4

// record is what --json prints of an image that could be scored.
type record struct {
	rdpp.Prediction
	Heatmap string `json:"heatmap,omitempty"` // file that --heatmap has made
}

// failedRecord is what --json prints of one that could not.
type failedRecord struct {
	Image string `json:"image"` // or folder
	Error string `json:"error"`
}

// source is an image to score.
type source struct {
	path    string // "-" for standard input; a folder, where err says what is wrong with it
	heatmap string // file to draw, "" for none
	err     error  // why it cannot be
}

// verdict is the outcome for one source: a prediction, an error, or both where only the heatmap failed.
type verdict struct {
	source     source
	prediction *rdpp.Prediction
	err        error
}

func runImage(ctx context.Context, args []string, t *terminal) (int, error) {
	flags := pflag.NewFlagSet("image", pflag.ContinueOnError)
	var m modelFlags
	m.register(flags)
	asJSON := flags.Bool("json", false, "one JSON object per image and line instead, with\n\"error\" where it failed")
	maxMemory := flags.Int64("max-memory", 1024, "`N` MiB to read and decode images in")
	heatmaps := flags.String("heatmap", "", "write NAME_heatmap.png per image to `DIR`: colours\nfrom 0 to 1.5 x threshold, a line at the threshold")
	if err := t.parse(flags, args, imageHelp); err != nil {
		return 0, err
	}
	if *maxMemory < 1 || *maxMemory > 1<<30 {
		return 0, usagef("--max-memory %d; use 1 to %d", *maxMemory, 1<<30)
	}
	sources, err := listSources(flags.Args())
	if err != nil {
		return 0, err
	}
	defer limitMemory(*maxMemory << 20)()
	d, err := m.open()
	if err != nil {
		return 0, err
	}
	defer d.Close()
	if *heatmaps != "" {
		if err := os.MkdirAll(*heatmaps, 0o777); err != nil {
			return 0, fmt.Errorf("cannot make the folder for heatmaps: %w; choose another with --heatmap", err)
		}
		nameHeatmaps(sources, *heatmaps)
	}
	switch c := d.Calibration(); {
	case *asJSON: // says the same in each object
	case c.Provisional:
		fmt.Fprintf(t.stderr, "infer: the threshold is provisional (%s); --threshold X sets your own\n", c.Rule)
	case c.FalseAlarm > 0 && !c.Exact:
		fmt.Fprintf(t.stderr, "infer: the threshold is estimated: %s\n", c.Rule)
	}
	objects := json.NewEncoder(t.stdout)
	objects.SetEscapeHTML(false)

	code := exitDone
	j := &judge{d, t.stdin, imagefile.Options{MaxPixels: m.maxPixels}, newRoom(*maxMemory << 20)}
	err = j.all(ctx, sources, func(v verdict) error {
		if v.err != nil {
			t.complain(v.err)
			code = exitFailed
		}
		if v.prediction == nil && *asJSON {
			return objects.Encode(failedRecord{v.source.path, v.err.Error()})
		}
		if v.prediction == nil {
			return nil
		}
		if v.prediction.Anomalous && code == exitDone {
			code = exitAnomalous
		}
		if *asJSON {
			r := record{Prediction: *v.prediction}
			if v.err == nil {
				r.Heatmap = v.source.heatmap
			}
			return objects.Encode(r)
		}
		return printLine(t.stdout, v.prediction)
	})
	return code, err
}

// listSources resolves the arguments. What cannot be read becomes a source with an error, so that the others are
// still scored.
func listSources(args []string) (sources []source, err error) {
	stdin := 0
	for _, arg := range args {
		if arg == "-" {
			stdin++
			sources = append(sources, source{path: arg})
			continue
		}
		info, err := os.Stat(arg)
		switch {
		case err != nil:
			sources = append(sources, source{path: arg, err: fmt.Errorf("%w; check the path", err)})
		case info.IsDir():
			sources = append(sources, listFolder(arg)...)
		default:
			sources = append(sources, source{path: arg})
		}
	}
	switch {
	case len(args) == 0:
		return nil, usagef("no image named; give image files, folders, or - for standard input")
	case stdin > 1:
		return nil, usagef("- is given %d times; standard input holds one image", stdin)
	}
	return sources, nil
}

func listFolder(dir string) (sources []source) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return []source{{path: dir, err: fmt.Errorf("%w; check the folder", err)}}
	}
	for _, e := range entries {
		if !e.IsDir() && imagefile.IsImage(e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			sources = append(sources, source{path: filepath.Join(dir, e.Name())})
		}
	}
	if len(sources) == 0 {
		return []source{{path: dir, err: fmt.Errorf("%s: no images directly in this folder; name one that holds some", dir)}}
	}
	return sources
}

// nameHeatmaps gives each source its own file in dir: NAME_heatmap.png, and where several images have that name,
// NAME_heatmap_2.png and so on.
func nameHeatmaps(sources []source, dir string) {
	taken := map[string]int{}
	for i := range sources {
		name := filepath.Base(sources[i].path)
		if name == "-" {
			name = "stdin"
		}
		name = strings.TrimSuffix(name, filepath.Ext(name)) + "_heatmap"
		if taken[name]++; taken[name] > 1 {
			name += "_" + strconv.Itoa(taken[name])
		}
		sources[i].heatmap = filepath.Join(dir, name+".png")
	}
}

// judge is what judging images takes.
type judge struct {
	detector *rdpp.Detector
	stdin    io.Reader
	images   imagefile.Options
	room     *room
}

// all judges several sources at once and hands their verdicts to each in the order of sources, until each fails or ctx
// ends.
func (j *judge) all(ctx context.Context, sources []source, each func(verdict) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	// The one whose answer is awaited is no longer in the queue.
	queue := make(chan chan verdict, inFlight-1)
	working.Go(func() {
		defer close(queue)
		for _, s := range sources {
			answer := make(chan verdict, 1)
			select {
			case queue <- answer:
				working.Go(func() { answer <- j.one(ctx, s) })
			case <-ctx.Done():
				return
			}
		}
	})
	for answer := range queue {
		v := <-answer
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := each(v); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (j *judge) one(ctx context.Context, s source) (v verdict) {
	v.source = s
	if v.err = s.err; v.err != nil {
		return v
	}
	name, most := s.path, min(j.images.MaxBytes(), j.room.limit/4)
	size := 2 * most // a buffer that grows is copied
	read := func() ([]byte, error) { return imagefile.ReadFile(s.path, &j.images) }
	if s.path == "-" {
		name = "standard input"
		read = func() ([]byte, error) { return readAll(ctx, j.stdin, most) }
	} else if info, err := os.Stat(s.path); err == nil && info.Mode().IsRegular() {
		size = min(info.Size(), j.images.MaxBytes()) // more than that is refused unread
	}
	data, release, err := j.room.take(ctx, size, read, &j.images, s.heatmap != "")
	if err != nil {
		v.err = naming(name, err)
		return v
	}
	defer release()
	result, img, err := j.detector.DetectBytes(data)
	if err != nil {
		v.err = naming(name, err)
		return v
	}
	v.prediction = new(result.Prediction(s.path))
	if s.heatmap != "" && ctx.Err() == nil {
		v.err = writeHeatmap(s.heatmap, img, result)
	}
	return v
}

// naming adds the name of an image to an error that does not have it.
func naming(name string, err error) error {
	if strings.Contains(err.Error(), name) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// readAll reads one encoded image of at most limit bytes, or until ctx ends.
func readAll(ctx context.Context, from io.Reader, limit int64) ([]byte, error) {
	type content struct {
		data []byte
		err  error
	}
	done := make(chan content, 1) // a reader that nobody awaits any more must not block
	go func() {
		data, err := io.ReadAll(io.LimitReader(from, limit+1))
		done <- content{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case c := <-done:
		if int64(len(c.data)) > limit {
			return nil, fmt.Errorf("more than %d bytes; give a smaller image, or raise --max-pixels or --max-memory", limit)
		}
		return c.data, c.err
	}
}

// writeHeatmap draws the anomaly map over the image, so that the pictures of a call compare with each other.
func writeHeatmap(path string, img *imagefile.Image, r *rdpp.Result) error {
	overlay, err := report.Heatmap(img, r.Map, r.Size, r.Size, report.AtThreshold(r.PixelThreshold))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	err = weights.WriteFileAtomic(path, func(w io.Writer) error {
		encoder := png.Encoder{CompressionLevel: png.BestSpeed}
		return encoder.Encode(w, overlay)
	})
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; choose another folder with --heatmap", err)
	}
	return err
}

// printLine writes the line for people.
func printLine(w io.Writer, p *rdpp.Prediction) error {
	word, rare := "good", "-"
	if p.Anomalous {
		word = "ANOMALOUS"
	}
	if p.PValue != nil {
		rare = fmt.Sprintf("%.4f", *p.PValue)
	}
	name := p.Image
	if strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) {
		name = strconv.Quote(name) // a line break in a name must not look like another image
	}
	_, err := fmt.Fprintf(w, "%-9s  %9.6f  %9.6f  %6s  %3d  %s\n", word, p.Score, p.Threshold, rare, len(p.Regions), name)
	return err
}
