package rdpp_test

import (
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/testmain"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

const checkpointFile = "checkpoint"

func TestSameSeedSameModel(t *testing.T) {
	t.Parallel()
	want := outcomeOf(t, trained(t, tiny()))
	otherSeed := tiny()
	otherSeed.Seed = 2
	for _, c := range []struct {
		name    string
		config  rdpp.Config
		workers int // two cores give the first training two
		same    bool
	}{
		{"five workers, no cache", tiny(), 5, true},
		{"another seed", otherSeed, 2, false},
	} {
		out := t.TempDir()
		train(t, c.config, rdpp.TrainOptions{Out: out, Workers: c.workers, CacheBytes: -1})
		if got := outcomeOf(t, out); (got.model == want.model) != c.same || (got.history == want.history) != c.same {
			t.Errorf("%s: got %v, want the same as %v: %v", c.name, got, want, c.same)
		}
	}
}

func TestSameSeedSameModelOnTwoThreads(t *testing.T) {
	defer torch.SetThreads(1)
	if err := torch.SetThreads(2); err != nil {
		t.Fatal(err)
	}
	c := tiny()
	c.ImageSize = 64
	first, second := t.TempDir(), t.TempDir()
	train(t, c, rdpp.TrainOptions{Out: first})
	train(t, c, rdpp.TrainOptions{Out: second})
	checkOutcome(t, second, first)
}

// Mixed precision learns what float32 learns: products of bfloat16, which has 8 bits, move the losses of the first epoch
// by little. L_Recon, whose cosines are close to 1 here, has lost the most of its bits.
func TestMixedPrecision(t *testing.T) {
	t.Parallel()
	c := tiny()
	c.ImageSize = 64
	epochs := map[string]rdpp.Losses{}
	for _, c.Precision = range []string{"fp32", "bf16"} {
		train(t, c, rdpp.TrainOptions{Out: t.TempDir(), OnEpoch: func(r rdpp.EpochReport) {
			if r.Epoch == 1 {
				epochs[c.Precision] = r.Losses
			}
		}})
	}
	got, want := epochs["bf16"], epochs["fp32"]
	if slices.Equal(got, want) {
		t.Errorf("got the very losses of float32, %+v", got)
	}
	for _, l := range []struct {
		name                 string
		got, want, tolerance float64 // relative
	}{{"total", got.Get("total"), want.Get("total"), 0.01}, {"kd", got.Get("kd"), want.Get("kd"), 0.01}, {"recon", got.Get("recon"), want.Get("recon"), 0.1}} {
		if math.Abs(l.got-l.want) > l.tolerance*l.want {
			t.Errorf("%s: got %v, want %v", l.name, l.got, l.want)
		}
	}
}

// stop is a moment in a training: after a step, both counted from 1, or after an epoch where step is 0.
type stop struct{ epoch, step int }

// evaluating is the step of a stop some milliseconds after an epoch's last step.
const evaluating = -1

// in has a training by opt call cancel at the moment of s.
func (s stop) in(opt rdpp.TrainOptions, cancel func()) rdpp.TrainOptions {
	opt.OnStep = func(r rdpp.StepReport) {
		switch {
		case r.Epoch == s.epoch && r.Step == s.step:
			cancel()
		case r.Epoch == s.epoch && s.step == evaluating && r.Step == r.Steps:
			time.AfterFunc(10*time.Millisecond, cancel)
		}
	}
	opt.OnEpoch = func(r rdpp.EpochReport) {
		if r.Epoch == s.epoch && s.step == 0 {
			cancel()
		}
	}
	return opt
}

// interrupt resumes a training in out until the moment of s.
func interrupt(t *testing.T, c rdpp.Config, out string, s stop) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := rdpp.Train(ctx, c, openSet(t, dataDir), s.in(rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom, Resume: true}, cancel))
	if !errors.Is(err, rdpp.ErrInterrupted) {
		t.Fatalf("stopped at %v: got error %v, want ErrInterrupted", s, err)
	}
	if trained := s.epoch == c.Epochs && s.step == 0; !trained && !strings.Contains(err.Error(), "after a checkpoint; resume") {
		t.Errorf("stopped at %v: got error %q, want a checkpoint and the way to go on", s, err)
	}
}

// Gradients of an epoch's odd last step wait for the next epoch's first: six steps make three updates.
func TestUpdatesAcrossEpochs(t *testing.T) {
	_, sources := contents(t, filepath.Join(trained(t, tiny()), checkpointFile))
	for _, prefix := range []string{"proj.", "bn.", "decoder."} {
		i := slices.IndexFunc(sources, func(s weights.Source) bool { return s.Name == "adam."+prefix+"steps" })
		if i < 0 {
			t.Errorf("%s: got no counts", prefix)
			continue
		}
		data, err := sources[i].Bytes()
		if err != nil || len(data) == 0 {
			t.Fatalf("%s: got %d bytes, %v", prefix, len(data), err)
		}
		for i, got := range (weights.Tensor{DType: sources[i].DType, Shape: sources[i].Shape, Data: data}).Float64() {
			// The bottleneck has layers, conv4 and bn4, that nothing uses.
			if got != 3 && !(got == 0 && prefix == "bn.") {
				t.Errorf("%s parameter %d: got %v updates, want 3", prefix, i, got)
			}
		}
	}
}

func TestResumeIsExact(t *testing.T) {
	t.Parallel()
	rd, perPosition, bf16, averaged := tiny(), tiny(), tiny(), tiny()
	bf16.Precision = "bf16"
	averaged.Average, averaged.Clip = 0.5, 0.1
	rd.Method, rd.Epochs = rdpp.MethodRD, 1
	perPosition.KDPerPosition, perPosition.NoiseReleased, perPosition.Defects = true, true, 0
	for _, c := range []struct {
		name   string
		config rdpp.Config
		stops  []stop
		slow   bool
	}{
		{"best-on-test", tinyBest(), []stop{{1, 1}, {1, 2}, {1, evaluating}, {1, 0}, {2, 1}, {2, 0}}, false},
		{"rd++", tiny(), []stop{{1, 3}, {2, 3}}, false},
		{"averaged and clipped", averaged, []stop{{1, 2}, {2, 1}}, false},
		{"rd", rd, []stop{{1, 1}}, false},
		{"bf16", bf16, []stop{{1, 3}}, false},
		{"other readings", perPosition, []stop{{1, 0}, {2, 1}}, true},
	} {
		if c.slow && !*testmain.Slow {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			out := t.TempDir()
			for _, s := range c.stops {
				interrupt(t, c.config, out, s)
			}
			train(t, c.config, rdpp.TrainOptions{Out: out, Resume: true})
			checkOutcome(t, out, trained(t, c.config))
		})
	}
}

// A finished run can be resumed, which changes nothing, and goes on where Epochs is raised; at constant rates as if it
// had never stopped.
func TestMoreEpochs(t *testing.T) {
	t.Parallel()
	configs := []rdpp.Config{tinyBest()}
	if *testmain.Slow {
		configs = append(configs, tiny())
	}
	for _, c := range configs {
		c.Schedule = rdpp.ScheduleConstant
		t.Run(c.Select, func(t *testing.T) {
			out := t.TempDir()
			once := c
			once.Epochs = 1
			train(t, once, rdpp.TrainOptions{Out: out})
			before := outcomeOf(t, out)
			train(t, once, rdpp.TrainOptions{Out: out, Resume: true})
			if got := outcomeOf(t, out); got != before {
				t.Errorf("finished run, resumed: got %v, want %v", got, before)
			}
			train(t, c, rdpp.TrainOptions{Out: out, Resume: true})
			checkOutcome(t, out, trained(t, c))
		})
	}
}

func TestResumeRefuses(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	interrupt(t, tiny(), out, stop{2, 1})
	checkpoint := filepath.Join(out, checkpointFile)
	before := digest(t, checkpoint)

	replaced := copyData(t)
	if err := os.Rename(filepath.Join(replaced, "train/good/000.png"), filepath.Join(replaced, "train/good/006.png")); err != nil {
		t.Fatal(err)
	}
	resume := rdpp.TrainOptions{Resume: true}
	for _, c := range []struct {
		name   string
		change func(*rdpp.Config)
		data   string
		opt    rdpp.TrainOptions
		want   error
		texts  []string
	}{
		{"neither resume nor overwrite", func(*rdpp.Config) {}, dataDir, rdpp.TrainOptions{}, rdpp.ErrConfig,
			[]string{out, "1 of 2 epochs", "resume", "overwrite"}},
		{"method", func(c *rdpp.Config) { c.Method = rdpp.MethodRD }, dataDir, resume, rdpp.ErrConfig, []string{`method is "rd"`, `has "rd++"`, "overwrite"}},
		{"arch", func(c *rdpp.Config) { c.Arch = "resnet34" }, dataDir, resume, rdpp.ErrConfig, []string{`arch is "resnet34"`, `has "resnet18"`}},
		{"image size", func(c *rdpp.Config) { c.ImageSize = 64 }, dataDir, resume, rdpp.ErrConfig, []string{"image_size is 64", "has 32"}},
		{"seed", func(c *rdpp.Config) { c.Seed = 9 }, dataDir, resume, rdpp.ErrConfig, []string{"seed is 9", "has 1"}},
		{"batch", func(c *rdpp.Config) { c.Batch = 3 }, dataDir, resume, rdpp.ErrConfig, []string{"batch is 3", "has 2"}},
		{"rate", func(c *rdpp.Config) { c.RateDistill = 0.1 }, dataDir, resume, rdpp.ErrConfig, []string{"rate_distill is 0.1", "has 0.004"}},
		{"selection", func(c *rdpp.Config) { c.Select = rdpp.SelectBestOnTest }, dataDir, resume, rdpp.ErrConfig, []string{`select is "best-on-test"`, `has "last"`}},
		{"fewer epochs", func(c *rdpp.Config) { c.Epochs = 1 }, dataDir, resume, rdpp.ErrConfig, []string{"epochs is 1", "begun epoch 2", "use 2, and 1900 for updates"}},
		{"other images", func(*rdpp.Config) {}, replaced, resume, nil, []string{"training images", "overwrite"}},
	} {
		config := tiny()
		c.change(&config)
		c.opt.Out, c.opt.Teacher = out, rdpp.TeacherRandom
		_, err := rdpp.Train(context.Background(), config, openSet(t, c.data), c.opt)
		checkError(t, c.name, err, c.want, c.texts...)
	}
	if got := digest(t, checkpoint); got != before {
		t.Errorf("checkpoint after all that: got SHA-256 %s, want %s", got, before)
	}
	train(t, tiny(), rdpp.TrainOptions{Out: out, Overwrite: true})
	checkOutcome(t, out, trained(t, tiny()))
}

func TestDamagedCheckpoint(t *testing.T) {
	out := t.TempDir()
	c := tiny()
	c.Method = rdpp.MethodRD
	interrupt(t, c, out, stop{1, 1})
	path := filepath.Join(out, checkpointFile)
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	document := file.Metadata["rdpp_checkpoint"]
	file.Close()
	check := func(what string, texts ...string) {
		t.Helper()
		_, err := rdpp.Train(context.Background(), c, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom,
			Resume: true})
		checkError(t, what, err, nil, append(texts, path)...)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{info.Size() - 1, info.Size() / 2, 100_000, 5000, 100, 9, 8, 7, 1, 0} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		check("truncated", "overwrite")
	}

	// edited writes a checkpoint with one value of its state changed and no tensors.
	edited := func(key string, value any) {
		t.Helper()
		var tree map[string]any
		if err := json.Unmarshal([]byte(document), &tree); err != nil {
			t.Fatal(err)
		}
		tree["state"].(map[string]any)[key] = value
		text, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		if err := weights.WriteFile(path, map[string]string{"rdpp_checkpoint": string(text)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, lie := range []struct {
		key   string
		value any
		text  string
	}{
		{"epoch", 2, "contradict"},
		{"epoch", -1, "contradict"},
		{"step", -1, "contradict"},
		{"images", 0, "contradict"},
		{"history", []rdpp.EpochReport{{}}, "contradict"},
		{"step", "one", "damaged"},
		{"step", 1, "missing: encoder.conv1.weight"},
	} {
		edited(lie.key, lie.value)
		check(lie.key, lie.text)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(trainedModel(t), path); err != nil {
		t.Fatal(err)
	}
	check("a model file", "no file that rdpp wrote", "overwrite")
}

func readSummary(t *testing.T, out string) (s rdpp.Summary) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(out, rdpp.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// travelled are settings as files have them, which lack those of other methods.
func travelled(t *testing.T, c rdpp.Config) (back rdpp.Config) {
	t.Helper()
	text, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestSummary(t *testing.T) {
	out := trained(t, tinyBest())
	s := readSummary(t, out)
	config := tinyBest()
	config.BitDepth = 16 // found
	config = travelled(t, config)
	if s.Category != "part" || s.TrainImages != 6 || s.Good != 2 || s.Defective != 4 || s.Config != config || s.Teacher.Origin != "random" {
		t.Errorf("got %+v, want what was trained", s)
	}
	if s.ImageAUROC == nil || s.PixelAUROC == nil || s.AUPRO == nil {
		t.Errorf("got metrics %+v, want all three", s.Metrics)
	}
	if got, want := s.Taken.String(), "train 6 good | test 2 good, 4 defective (dent 1, missing_hole 1, scratch 1, stain 1) | masks 4 in ground_truth | "+
		"nothing left out"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	m, err := rdpp.LoadModel(filepath.Join(out, rdpp.ModelFile), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Info.Epoch != s.Epoch || m.Info.Calibration.Threshold != s.Threshold || len(m.Info.Calibration.Scores) != 6 {
		t.Errorf("model file: got epoch %d and %+v, want epoch %d and threshold %v", m.Info.Epoch, m.Info.Calibration, s.Epoch, s.Threshold)
	}
	want := []string{checkpointFile, rdpp.HistoryFile, rdpp.MetricsFile, rdpp.ModelFile, rdpp.ReportFile, rdpp.ScoresFile}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("files: got %q, want %q", got, want)
	}
}

// What the data cannot give is absent, and does not end a training or an evaluation.
func TestAbsentMetrics(t *testing.T) {
	noMasks, noTests, smallMasks, emptyMasks, largeMasks := copyData(t), copyData(t), copyData(t), copyData(t), copyData(t)
	for _, dir := range []string{filepath.Join(noMasks, "ground_truth"), filepath.Join(noTests, "test"), filepath.Join(noTests, "ground_truth")} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	dot := image.NewGray(image.Rect(0, 0, 640, 640)) // of which nothing is left at the model's size
	dot.Pix[9] = 255
	for _, item := range openSet(t, smallMasks).Test {
		if item.Defective {
			writePNG(t, item.Mask, dot)
		}
	}
	var empty string
	for _, item := range openSet(t, emptyMasks).Test {
		if item.Defective {
			empty = item.Mask
			writePNG(t, item.Mask, image.NewGray(image.Rect(0, 0, 64, 64)))
		}
	}
	// Masks of another size than their images are resized.
	for _, item := range openSet(t, largeMasks).Test {
		if item.Defective {
			mask := image.NewGray(image.Rect(0, 0, 200, 200))
			for i := range mask.Pix[:len(mask.Pix)/2] {
				mask.Pix[i] = 255
			}
			writePNG(t, item.Mask, mask)
		}
	}
	d := openDetector(t, nil)
	for _, set := range []struct {
		name, dir     string
		image, pixels bool
	}{
		{"all there", dataDir, true, true},
		{"no masks", noMasks, true, false},
		{"no tests", noTests, false, false},
		{"small masks", smallMasks, true, false},
		{"masks of another size", largeMasks, true, true},
	} {
		m, err := d.Evaluate(context.Background(), openSet(t, set.dir))
		if err != nil {
			t.Errorf("%s: %v", set.name, err)
			continue
		}
		if got, want := m.LostMasks, map[string]int{"all there": 1, "small masks": 4}[set.name]; got != want {
			t.Errorf("%s: got %d lost masks, want %d", set.name, got, want)
		}
		if got := m.ImageAUROC != nil; got != set.image {
			t.Errorf("%s: image AUROC: got %v, want %v", set.name, got, set.image)
		}
		if got := m.PixelAUROC != nil && m.AUPRO != nil; got != set.pixels {
			t.Errorf("%s: pixel metrics: got %v, want %v", set.name, got, set.pixels)
		}
	}

	if _, err := d.Evaluate(context.Background(), openSet(t, emptyMasks)); !errors.Is(err, dataset.ErrMaskEmpty) {
		t.Errorf("empty masks: got error %v, want %v", err, dataset.ErrMaskEmpty)
	}
	_, err := rdpp.Train(context.Background(), tiny(), openSet(t, emptyMasks), rdpp.TrainOptions{Out: t.TempDir(), Teacher: rdpp.TeacherRandom,
		OnStep: func(rdpp.StepReport) { t.Error("empty masks: got a step, want an error before it") }})
	checkError(t, "empty masks", err, dataset.ErrMaskEmpty, filepath.Dir(filepath.Dir(empty)))

	c := tiny()
	c.Epochs = 1
	out := t.TempDir()
	s, err := rdpp.Train(context.Background(), c, openSet(t, noTests), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
	if err != nil {
		t.Fatal(err)
	}
	if s.Metrics != (rdpp.Metrics{}) {
		t.Errorf("training without tests: got metrics %+v, want none", s.Metrics)
	}
	if page := string(readFile(t, filepath.Join(out, rdpp.ReportFile))); !strings.Contains(page, "These are the good images that the threshold comes from.") ||
		!strings.Contains(page, "Images with the highest scores") || strings.Contains(page, "Metrics</h2>") {
		t.Error("training without tests: got a report that does not show the images of the calibration")
	}
	_, err = rdpp.Train(context.Background(), tinyBest(), openSet(t, noTests), rdpp.TrainOptions{Out: t.TempDir(), Teacher: rdpp.TeacherRandom,
		OnStep: func(rdpp.StepReport) { t.Error("best-on-test without tests: got a step, want an error before it") }})
	checkError(t, "best-on-test without tests", err, rdpp.ErrConfig, `select is "best-on-test"`, "use last")
}

func writePNG(t *testing.T, path string, picture image.Image) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, picture); err != nil {
		t.Fatal(err)
	}
}

func TestTrainFailsEarly(t *testing.T) {
	damaged := copyData(t)
	bad := filepath.Join(damaged, "train/good/003.png")
	if err := os.Truncate(bad, 200); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	alone, untrainable := tiny(), tiny()
	alone.Batch, untrainable.Epochs = 5, 0
	for _, c := range []struct {
		name   string
		config rdpp.Config
		data   string
		out    string
		want   error
		texts  []string
	}{
		{"damaged image", tiny(), damaged, t.TempDir(), nil, []string{bad}},
		{"folder below a file", tiny(), dataDir, filepath.Join(file, "out"), nil, []string{file, "out"}},
		{"one image left alone", alone, dataDir, t.TempDir(), rdpp.ErrConfig, []string{"batch is", "64 for image_size"}},
		{"no epochs", untrainable, dataDir, t.TempDir(), rdpp.ErrConfig, []string{"epochs is 0"}},
	} {
		_, err := rdpp.Train(context.Background(), c.config, openSet(t, c.data), rdpp.TrainOptions{Out: c.out, Teacher: rdpp.TeacherRandom,
			OnStep: func(rdpp.StepReport) { t.Errorf("%s: got a step, want an error before it", c.name) }})
		checkError(t, c.name, err, c.want, c.texts...)
	}
	c := tiny()
	c.Epochs, c.Method, c.Batch = 1, rdpp.MethodRD, 3
	s, err := rdpp.Train(context.Background(), c, openSet(t, damaged), rdpp.TrainOptions{Out: t.TempDir(), Teacher: rdpp.TeacherRandom, SkipBad: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Skipped) != 1 || s.Skipped[0].Path != bad || s.TrainImages != 5 {
		t.Errorf("damaged image, SkipBad: got %d images without %v, want 5 without %s", s.TrainImages, s.Skipped, bad)
	}
}

// What a killed process leaves half-written is cleared away; other hidden files are not.
func TestTemporaryFilesAreRemoved(t *testing.T) {
	out := t.TempDir()
	for _, name := range []string{rdpp.ModelFile, rdpp.MetricsFile, rdpp.HistoryFile, checkpointFile} {
		halfWritten(t, filepath.Join(out, name))
	}
	if err := os.WriteFile(filepath.Join(out, ".other"), []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := rdpp.Train(context.Background(), tiny(), &dataset.Set{}, rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
	checkError(t, "no images", err, nil, "no good image")
	if got := temporary(t, out); len(got) != 0 {
		t.Errorf("left over: got %q, want none", got)
	}
	if _, err := os.Stat(filepath.Join(out, ".other")); err != nil {
		t.Errorf("another's file: got %v, want it left", err)
	}
}

func TestResumeWithAnotherTeacher(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	interrupt(t, tiny(), out, stop{1, 1})
	other := filepath.Join(t.TempDir(), "teacher.pth")
	namesake := filepath.Join(filepath.Dir(other), "random")
	for _, path := range []string{other, namesake} {
		if err := os.WriteFile(path, []byte("another"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		teacher string
		want    error
		texts   []string
	}{
		{other, rdpp.ErrConfig, []string{"random", "teacher.pth", "overwrite"}},
		{other + ".none", os.ErrNotExist, []string{"teacher.pth.none"}},
		{namesake, rdpp.ErrConfig, []string{"random", "overwrite"}}, // a file of that name
	} {
		_, err := rdpp.Train(t.Context(), tiny(), openSet(t, dataDir), rdpp.TrainOptions{Out: out, Resume: true, Teacher: c.teacher})
		checkError(t, c.teacher, err, c.want, c.texts...)
	}
	if _, err := rdpp.Train(t.Context(), tiny(), openSet(t, dataDir), rdpp.TrainOptions{Out: out, Resume: true}); err != nil {
		t.Errorf("without Teacher: got error %v", err)
	}
}

// Were an older run's checkpoint left in place, a killed new run would be resumed as the older one.
func TestNewRunDropsOldCheckpoint(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	train(t, tiny(), rdpp.TrainOptions{Out: out})
	checkpoint := filepath.Join(out, checkpointFile)
	if _, err := os.Stat(checkpoint); err != nil {
		t.Fatal(err)
	}
	model := digest(t, filepath.Join(out, rdpp.ModelFile))
	c := tiny()
	c.Seed = 77
	_, err := rdpp.Train(context.Background(), c, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
	checkError(t, "a finished run", err, rdpp.ErrConfig, out, "overwrite", "resume")
	if _, err := os.Stat(checkpoint); err != nil || digest(t, filepath.Join(out, rdpp.ModelFile)) != model {
		t.Error("a refused run has changed what was there")
	}
	train(t, c, rdpp.TrainOptions{Out: out, Overwrite: true, OnStep: func(r rdpp.StepReport) {
		if r.Epoch > 1 || r.Step > 1 {
			return
		}
		if _, err := os.Stat(checkpoint); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("checkpoint of the older run in the new one: got %v, want none", err)
		}
		if got := digest(t, filepath.Join(out, rdpp.ModelFile)); got != model {
			t.Error("the older run's model is gone before the new one is complete")
		}
	}})
	if digest(t, filepath.Join(out, rdpp.ModelFile)) == model {
		t.Error("the new run left the older one's model")
	}
}

func TestOneTrainingPerFolder(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	train(t, tiny(), rdpp.TrainOptions{Out: out, OnStep: func(r rdpp.StepReport) {
		if r.Epoch > 1 || r.Step > 1 {
			return
		}
		_, err := rdpp.Train(t.Context(), tiny(), openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
		checkError(t, "a second training", err, nil, "another training", out, "out")
	}})
}

func TestInterruptedWithoutCheckpoint(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := rdpp.Train(ctx, tiny(), openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom,
		OnStep: func(rdpp.StepReport) {
			if err := os.RemoveAll(out); err != nil {
				t.Error(err)
			}
			cancel()
		}})
	checkError(t, "no folder to write to", err, nil, "no checkpoint", "lost")
	if errors.Is(err, rdpp.ErrInterrupted) {
		t.Errorf("got %q, which claims a checkpoint", err)
	}
}

func TestInterruptedBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := rdpp.Train(ctx, tiny(), openSet(t, dataDir), rdpp.TrainOptions{Out: t.TempDir(), Teacher: rdpp.TeacherRandom})
	if want := "engine: interrupted; resume continues"; !errors.Is(err, rdpp.ErrInterrupted) || err.Error() != want {
		t.Errorf("got error %v, want %q", err, want)
	}
}

// Epochs follow from updates, up to the end of a pass, and are bounded by those that are given.
func TestUpdates(t *testing.T) {
	for _, c := range []struct{ updates, epochs, want int }{{5, 100, 4}, {3, 100, 2}, {4, 3, 3}} { // 3 steps and 2 of them an update
		config := tiny()
		config.Method, config.Updates, config.Epochs = rdpp.MethodRD, c.updates, c.epochs
		out := t.TempDir()
		summary := train(t, config, rdpp.TrainOptions{Out: out})
		if summary.Config.Epochs != c.want || summary.Epoch != c.want || summary.Config.Updates != c.updates {
			t.Errorf("%+v: got %d epochs, the model of %d, %d updates", c, summary.Config.Epochs, summary.Epoch, summary.Config.Updates)
		}
	}
}

// PrecisionAuto is resolved before the first step, and what a run has taken stays when it is resumed.
func TestPrecisionAuto(t *testing.T) {
	config := tiny()
	config.Precision, config.Epochs = rdpp.PrecisionAuto, 1
	out := t.TempDir()
	taken := train(t, config, rdpp.TrainOptions{Out: out}).Config.Precision
	able, err := torch.HasBFloat16(torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	if taken != "fp32" && !(taken == "bf16" && able) {
		t.Fatalf("took %q, bf16 is there: %v", taken, able)
	}
	// The other one, in the checkpoint's place: resuming must not choose anew.
	for _, precision := range []string{"fp32", "bf16"} {
		config.Precision, config.Epochs = precision, 1
		out := t.TempDir()
		train(t, config, rdpp.TrainOptions{Out: out})
		config.Precision, config.Epochs = rdpp.PrecisionAuto, 2
		if got := train(t, config, rdpp.TrainOptions{Out: out, Resume: true}).Config.Precision; got != precision {
			t.Errorf("a run in %s was resumed in %s", precision, got)
		}
	}
}

// What a run that is resumed for more updates writes says so everywhere.
func TestResumeForMoreUpdates(t *testing.T) {
	config := tiny()
	config.Method, config.Updates, config.Epochs = rdpp.MethodRD, 2, 100
	out := t.TempDir()
	train(t, config, rdpp.TrainOptions{Out: out})
	config.Updates, config.Epochs = 5, 100
	summary := train(t, config, rdpp.TrainOptions{Out: out, Resume: true})
	m, err := rdpp.LoadModel(summary.ModelFile, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Info.Config != summary.Config || m.Info.Config.Updates != 5 || m.Info.Epoch != 4 {
		t.Errorf("the model says %+v of epoch %d, the summary %+v", m.Info.Config, m.Info.Epoch, summary.Config)
	}
	config.Updates, config.Epochs = 1, 100
	_, err = rdpp.Train(context.Background(), config, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Resume: true, Teacher: rdpp.TeacherRandom})
	checkError(t, "fewer updates", err, rdpp.ErrConfig, "epochs is", "4, and 5 for updates")
}
