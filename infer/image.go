package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/ahead"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/explain"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/report"
)

const imageHelp = `Usage: infer image --model FILE [flags] IMAGE|DIR|- ...

Prints a line per image: verdict, score (from 0, like good parts), threshold,
p-value (how rare such a score is among good parts; <= where it may be rarer),
number of regions, name. A DIR stands for its images; - is standard input.
Exit codes: 0 none anomalous, 3 some anomalous, 1 some failed, 2 wrong usage.

`

// record is what --json prints of an image that could be scored.
type record struct {
	rdpp.Prediction
	Heatmap       string `json:"heatmap,omitempty"`        // file that --heatmap has made
	HeatmapBase64 string `json:"heatmap_base64,omitempty"` // as image_base64
}

// failedRecord is what --json prints of one that could not.
type failedRecord struct {
	Image       string `json:"image"` // or folder
	ImageBase64 string `json:"image_base64,omitempty"`
	Error       string `json:"error"`
}

// source is an image to score.
type source struct {
	path    string // "-" for standard input; a folder, where err says what is wrong with it
	heatmap string // file to draw, "" for none
	piped   bool   // path is a pipe, named on the command line
	err     error  // why it cannot be
}

// verdict is the outcome for one source: a prediction, an error, or both where only the heatmap failed.
type verdict struct {
	source     source
	prediction *rdpp.Prediction
	look       dataset.Look
	pages      int    // of the file, the first of which was scored
	sha256     string // of the file, hexadecimal, where the judge makes digests; "": it could not be read
	mask       []byte // PNG file of its own mask of what is not scored, where the judge keeps masks; nil: none
	entry      *explain.Entry
	err        error
}

func runImage(ctx context.Context, args []string, t *command.Terminal) (code int, err error) {
	flags := pflag.NewFlagSet("image", pflag.ContinueOnError)
	var m modelFlags
	m.register(flags)
	m.registerBatch(flags)
	rare := m.registerRegions(flags)
	asJSON := flags.Bool("json", false, "one JSON object per image and line instead, with\n\"error\" where it failed")
	quiet := flags.BoolP("quiet", "q", false, "print no line per image and no notice")
	var k keeper
	rare = append(rare, k.register(flags)...)
	ignore := flags.String("ignore", "", "`FILE` of a mask of what is not scored; or DIR of\nmasks, named like the images")
	maxMemory := flags.Int64("max-memory", allowance.MemoryDefault(1<<30)>>20, "`N` MiB to read and decode images in")
	heatmaps := flags.String("heatmap", "", "write NAME_heatmap.png per image to `DIR`: map,\noutlines, and the scale of the colours below")
	reportFile := flags.String("report", "", "write a page about the images to `FILE`")
	good := flags.String("good", "", "with --report: show the nearest of `DIR`'s good images")
	if err := t.Parse(flags, args, command.Help{Text: imageHelp, Rare: append(rare, "ignore", "good", "batch", "max-pixels", "max-memory")}); err != nil {
		return 0, err
	}
	if *maxMemory < 1 || *maxMemory > 1<<30 {
		return 0, command.Usagef("--max-memory %d; use 1 to %d", *maxMemory, 1<<30)
	}
	if *good != "" && *reportFile == "" {
		return 0, command.Usagef("--good is for --report; name a file with that")
	}
	if err := k.check(); err != nil {
		return 0, err
	}
	sources, left, err := listSources(flags.Args())
	if err != nil {
		return 0, err
	}
	masks, err := readIgnored(*ignore, m.maxPixels)
	if err != nil {
		return 0, err
	}
	paths := make([]string, len(sources))
	for i, s := range sources {
		paths[i] = s.path
	}
	if err := masks.check(paths); err != nil {
		return 0, err
	}
	for _, note := range left {
		command.Say(t.Stderr, "infer: %s", note)
	}
	defer limitMemory(*maxMemory << 20)()
	d, err := m.open()
	if err != nil {
		return 0, err
	}
	defer d.Close()
	var page *explain.Page
	if *reportFile != "" {
		if page, err = openPage(ctx, d, *reportFile, *good); err != nil {
			return 0, err
		}
	}
	if *heatmaps != "" {
		if err := os.MkdirAll(*heatmaps, 0o777); err != nil {
			return 0, fmt.Errorf("cannot make the folder for heatmaps: %w; choose another with --heatmap", err)
		}
		nameHeatmaps(sources, *heatmaps)
	}
	if !*asJSON && !*quiet { // objects say the same
		sayThreshold(t, d)
	}
	log := logTo(t)
	defer func() {
		within := patient
		if err != nil {
			within = hasty
		}
		err = errors.Join(err, k.close(within, log))
	}()
	if err := k.open(ctx, d, log); err != nil {
		return 0, err
	}
	lines := lines{w: t.Stdout, terminal: onTerminal(t.Stdout) && !*asJSON && !*quiet}
	if err := lines.begin(); err != nil {
		return 0, err
	}
	objects := json.NewEncoder(t.Stdout)
	objects.SetEscapeHTML(false)

	batcher := d.Batcher(0)
	defer batcher.Close()
	j := &judge{batcher: batcher, stdin: t.Stdin, ignore: masks, images: d.ImageOptions(), room: newRoom(*maxMemory << 20), digests: k.wanted(), masks: k.historyFile != "", page: page}
	err = j.all(ctx, sources, func(v verdict) error {
		if v.err != nil {
			t.Complain(v.err)
			code = command.Failed
		}
		lines.count(v.prediction)
		if err := k.keep(ctx, v); err != nil {
			return err
		}
		if v.pages > 1 {
			command.Say(t.Stderr, "infer: %s: the first of %d pages is scored", v.source.path, v.pages)
		}
		if v.prediction == nil && *asJSON && !*quiet {
			return objects.Encode(failedRecord{v.source.path, printable.Base64(v.source.path), t.Tell(v.err)})
		}
		if v.prediction == nil {
			return nil
		}
		if v.entry != nil {
			page.Add(v.entry)
		}
		if v.prediction.Anomalous && code == command.Done {
			code = command.Anomalous
		}
		if *quiet {
			return nil
		}
		if *asJSON {
			r := record{Prediction: *v.prediction}
			if v.err == nil {
				r.Heatmap, r.HeatmapBase64 = v.source.heatmap, printable.Base64(v.source.heatmap)
			}
			return objects.Encode(r)
		}
		for _, warning := range v.prediction.Warnings {
			t.Complain(fmt.Errorf("%s: %s", v.source.path, warning))
		}
		return printLine(t.Stdout, v.prediction)
	})
	if err == nil {
		err = lines.end()
	}
	if err == nil && page != nil {
		err = page.Write(*reportFile)
	}
	return code, err
}

// sayThreshold says where the threshold is none that keeps a rate exactly.
func sayThreshold(t *command.Terminal, d *rdpp.Detector) {
	switch c := d.Calibration(); {
	case c.Provisional:
		command.Say(t.Stderr, "infer: the threshold is provisional (%s); --threshold X sets your own", c.Rule)
	case c.FalseAlarm > 0 && !c.Exact:
		command.Say(t.Stderr, "infer: the threshold is estimated: %s", c.Rule)
	}
}

// openPage begins the page of --report, by the good images directly in a folder, "" for none. What would keep it from being
// written is found before images are judged.
func openPage(ctx context.Context, d *rdpp.Detector, file, good string) (*explain.Page, error) {
	if !replaceable(file) {
		return nil, fmt.Errorf("%s: is no regular file; choose another file with --report", file)
	}
	if err := checkScoresFile(file); err != nil {
		return nil, fmt.Errorf("%w; choose another file with --report", err)
	}
	opt := explain.Options{Images: new(d.ImageOptions())}
	if good != "" {
		sources, _ := listFolder(good)
		for _, s := range sources {
			if s.err != nil {
				return nil, fmt.Errorf("--good: %w", s.err)
			}
			opt.Good = append(opt.Good, s.path)
		}
	}
	return explain.New(ctx, d, &opt)
}

// listSources resolves the arguments. What cannot be read becomes a source with an error, so that the others are
// still scored. Heat maps that this program has drawn are left out, which the notes say.
func listSources(args []string) (sources []source, left []string, err error) {
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
			inside, heatmaps := listFolder(arg)
			sources = append(sources, inside...)
			if heatmaps > 0 {
				left = append(left, fmt.Sprintf("left out: %d of the images in %q, heat maps of infer image", heatmaps, arg))
			}
		case info.Mode().IsRegular() && imagefile.IsHeatmap(arg):
			left = append(left, fmt.Sprintf("left out: %q is a heat map of infer image", arg))
		default:
			sources = append(sources, source{path: arg, piped: info.Mode()&fs.ModeNamedPipe != 0})
		}
	}
	switch {
	case len(args) == 0:
		return nil, nil, command.Usagef("no image named; give image files, folders, or - for standard input")
	case stdin > 1:
		return nil, nil, command.Usagef("- is given %d times; standard input holds one image", stdin)
	}
	if len(sources) == 0 {
		return nil, nil, fmt.Errorf("%s; name photographs", left[0])
	}
	return sources, left, nil
}

// listFolder returns the images directly in a folder, and the number of heat maps among them that it leaves out.
func listFolder(dir string) (sources []source, heatmaps int) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return []source{{path: dir, err: fmt.Errorf("%w; check the folder", err)}}, 0
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && imagefile.IsImage(e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	drawn := imagefile.Heatmaps(dir, names)
	for _, name := range names {
		if !drawn[name] {
			sources = append(sources, source{path: filepath.Join(dir, name)})
		}
	}
	if len(sources) == 0 {
		return []source{{path: dir, err: fmt.Errorf("%s: no images directly in this folder; name one that holds some", dir)}}, len(drawn)
	}
	return sources, len(drawn)
}

// nameHeatmaps gives each source its own file in dir, which is no source itself: NAME_heatmap.png, and where several images
// have that name, NAME_heatmap_2.png and so on.
func nameHeatmaps(sources []source, dir string) {
	taken := map[string]bool{}
	for _, s := range sources {
		taken[absolute(s.path)] = true
	}
	for i := range sources {
		name := filepath.Base(sources[i].path)
		if name == "-" {
			name = "stdin"
		}
		name = strings.TrimSuffix(name, filepath.Ext(name))
		end := "_heatmap.png"
		for n := 2; ; n++ {
			path := filepath.Join(dir, fileName(name, end))
			if !taken[absolute(path)] {
				sources[i].heatmap, taken[absolute(path)] = path, true
				break
			}
			end = fmt.Sprintf("_heatmap_%d.png", n)
		}
	}
}

// absolute is the path from the root, or the path where the working directory is gone.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

// longestName is how many bytes a file's name may have on Linux.
const longestName = 255

// fileName is name + end. Of a name that is too long for a file, whole characters are cut off, and a digest of it is put in
// their place, so that names with the same beginning stay apart.
func fileName(name, end string) string {
	if len(name)+len(end) <= longestName {
		return name + end
	}
	end = fmt.Sprintf("_%.4x", sha256.Sum256([]byte(name))) + end
	cut := longestName - len(end)
	for cut > longestName/2 && !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + end
}

// judge is what judging images takes.
type judge struct {
	batcher *rdpp.Batcher
	stdin   io.Reader
	ignore  *ignored
	images  imagefile.Options
	room    *room
	digests bool          // a verdict has that of its image's file
	masks   bool          // and the mask that was used
	page    *explain.Page // nil: none is wanted
}

// all judges several sources at once and hands their verdicts to each in the order of sources, until each fails or ctx
// ends.
func (j *judge) all(ctx context.Context, sources []source, each func(verdict) error) error {
	for v, err := range ahead.Staged(ctx, len(sources), j.batcher.InFlight()-1, func(ctx context.Context, i int) func() verdict {
		// Read in their order: who writes to several pipes may do so one after the other.
		s := sources[i]
		data, mask, release, err := j.read(ctx, s)
		if err != nil {
			return func() verdict { return verdict{source: s, err: err} }
		}
		return func() verdict {
			defer release()
			return j.one(ctx, s, data, mask)
		}
	}) {
		if err == nil {
			err = each(v)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// read returns the content of a source, and of its own mask, once there is room to decode them. Then release has to be
// called.
func (j *judge) read(ctx context.Context, s source) (data, mask []byte, release func(), err error) {
	if s.err != nil {
		return nil, nil, nil, s.err
	}
	mask, more, err := j.ignore.read(ctx, s.path)
	if err != nil {
		return nil, nil, nil, naming(s.name(), err)
	}
	most := min(j.images.MaxBytes(), j.room.limit/4)
	size := 2 * most // a buffer that grows is copied
	read := func() ([]byte, error) {
		return command.Await(ctx, func() ([]byte, error) { return imagefile.ReadFile(s.path, &j.images) })
	}
	switch info, err := os.Stat(s.path); {
	case s.path == "-":
		read = func() ([]byte, error) {
			return readAll(ctx, func() (io.ReadCloser, error) { return io.NopCloser(j.stdin), nil }, most)
		}
	case s.piped:
		read = func() ([]byte, error) {
			return readAll(ctx, func() (io.ReadCloser, error) { return os.Open(s.path) }, most)
		}
	case err == nil && info.Mode().IsRegular():
		size = min(info.Size(), j.images.MaxBytes()) // more than that is refused unread
	}
	perPixel := int64(0)
	if s.heatmap != "" {
		perPixel = heldHeatmap
	}
	if data, release, err = j.room.take(ctx, size, read, &j.images, perPixel, more); err != nil {
		return nil, nil, nil, naming(s.name(), err)
	}
	return data, mask, release, nil
}

// one judges a source of which data is the content, and mask that of its own mask, if any.
func (j *judge) one(ctx context.Context, s source, data, mask []byte) (v verdict) {
	v.source = s
	if j.digests {
		v.sha256 = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	var ignore *imagefile.Mask
	result, img, err := j.batcher.DetectIgnoring(ctx, func() (*imagefile.Image, *imagefile.Mask, error) {
		img, err := imagefile.Decode(data, &j.images)
		switch {
		case err != nil:
			return nil, nil, err
		case img.Heatmap: // renamed, or it would have been left out
			return nil, nil, fmt.Errorf("%w; name photographs", dataset.ErrHeatmap)
		}
		ignore, err = j.ignore.of(mask, &j.images)
		return img, ignore, err
	})
	if err == nil && j.masks {
		v.mask, err = j.ignore.kept(ignore)
	}
	if err != nil {
		v.err = naming(s.name(), err)
		return v
	}
	v.prediction, v.pages, v.look = new(result.Prediction(s.path)), img.Pages, result.Look
	if j.page != nil {
		v.entry = j.page.Look(s.name(), img, result)
	}
	if s.heatmap != "" {
		if v.err = ctx.Err(); v.err == nil {
			v.err = writeHeatmap(s.heatmap, img, result)
		}
	}
	return v
}

// name is what errors call a source.
func (s source) name() string {
	if s.path == "-" {
		return "standard input"
	}
	return s.path
}

// naming adds the name of an image to an error that does not have it.
func naming(name string, err error) error {
	if strings.Contains(err.Error(), name) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// readAll reads one encoded image of at most limit bytes, or until ctx ends.
func readAll(ctx context.Context, open func() (io.ReadCloser, error), limit int64) ([]byte, error) {
	return command.Await(ctx, func() ([]byte, error) {
		from, err := open()
		if err != nil {
			return nil, err
		}
		defer from.Close()
		data, err := io.ReadAll(io.LimitReader(from, limit+1))
		if int64(len(data)) > limit {
			return nil, fmt.Errorf("more than %d bytes; give a smaller image, or raise --max-pixels or --max-memory", limit)
		}
		return data, err
	})
}

// writeHeatmap draws the anomaly map over the image, with the scale of its colours below.
func writeHeatmap(path string, img *imagefile.Image, r *rdpp.Result) error {
	over := r.Over()
	overlay, err := report.Heatmap(img, over.Map, over.H, over.W, report.Outlined(r.PixelThreshold, over.Map, over.Levels))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	err = atomicfile.Write(path, func(w io.Writer) error { return imagefile.EncodeHeatmap(w, overlay) })
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
	if p.PValueBound {
		rare = "<=" + rare
	}
	_, err := fmt.Fprintf(w, "%-9s  %9.6f  %9.6f  %8s  %3d  %s\n", word, p.Score, p.Threshold, rare, len(p.Regions), printable.Text(p.Image))
	return err
}
