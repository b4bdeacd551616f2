package main

import (
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/command"
	"rdpp/rdpp/pattern"
	"rdpp/rdpp/printable"
	"rdpp/torch"
)

const teacherUsage = `train teacher --out FILE [flags]     make a teacher from drawn pictures
It learns to tell programs that draw apart, which needs no photographs and no
other weights. FILE is for train --teacher FILE; FILE.checkpoint lies beside it
until the end. Exit codes are those of train.
train teacher --onnx FILE --out FILE [--preprocess FILE] [--store NAME]
[--arch NAME] makes one of a trained ResNet in an ONNX file, up to its layer3.
`

// convertFlags are those that --onnx goes with.
var convertFlags = []string{"onnx", "preprocess", "out", "arch", "store", "overwrite", "json"}

func runTeacher(ctx context.Context, args []string, t *command.Terminal) (err error) {
	c := rdpp.DefaultPretrainConfig()
	opt := rdpp.PretrainOptions{}
	flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
	flags.StringVar(&opt.Out, "out", "", "`FILE` for the teacher, .safetensors")
	onnx := flags.String("onnx", "", "convert the ResNet in an ONNX `FILE`, and learn nothing")
	preprocess := flags.String("preprocess", "", "ONNX `FILE` that turns BGR of 0 to 255 into its\ninput; default: torchvision's")
	flags.StringVar(&c.Arch, "arch", c.Arch, "backbone, torchvision `NAME`")
	flags.StringVar(&c.Objective, "objective", c.Objective, "`NAME`: class, pair (contrastive) or dense")
	flags.IntVar(&c.Classes, "classes", c.Classes, "`N` classes of pictures; 200 is the default of dense")
	flags.StringSliceVar(&c.Kinds, "kinds", nil, "`NAMES` of "+strings.Join(pattern.Kinds(), ",")+"; default all")
	flags.IntVar(&c.Steps, "steps", c.Steps, "`N` updates of the weights")
	flags.IntVar(&c.Batch, "batch", c.Batch, "`N` pictures per step")
	flags.IntVar(&c.ImageSize, "size", c.ImageSize, "`N` x N pixels, a multiple of 32")
	flags.Float64Var(&c.Rate, "rate", c.Rate, "`X`, peak of the one-cycle learning rate")
	scales := flags.String("scales", "0.3,0.5,1", "`X,X,X`: weights of the losses per layer; 0 leaves one out")
	flags.BoolVar(&c.IgnoreLevel, "ignore-level", c.IgnoreLevel, "keep conv1 blind to a change of all pixels alike")
	flags.BoolVar(&c.Equalise, "equalise", c.Equalise, "at the end, make all channels of a layer vary alike")
	flags.StringVar(&c.Precision, "precision", c.Precision, "`NAME`: fp32, tf32, bf16 (mixed)")
	flags.StringVar(&opt.Store, "store", rdpp.StoreFP16, "`NAME` of numbers in FILE: fp16, fp32")
	flags.Uint64Var(&c.Seed, "seed", c.Seed, "`N`, of weights and pictures")
	device := flags.String("device", "auto", "`NAME`: auto, cpu, cuda or cuda:N")
	threads := flags.Int("threads", allowance.CPUs(), "`N` CPU threads; results depend on it")
	flags.IntVar(&opt.Workers, "workers", allowance.CPUs(), "`N` goroutines that draw")
	flags.BoolVar(&opt.Resume, "resume", false, "continue from FILE.checkpoint")
	flags.BoolVar(&opt.Overwrite, "overwrite", false, "replace FILE, drop an unfinished run")
	flags.DurationVar(&opt.CheckpointEvery, "checkpoint-every", 5*time.Minute, "`TIME` between checkpoints")
	asJSON := flags.Bool("json", false, "one JSON object per line")
	sheet := flags.String("sheet", "", "write a contact sheet of the pictures to `FILE`.png, and learn nothing")
	if err := parse(t, flags, args, command.Help{Text: teacherUsage, Rare: []string{"ignore-level", "workers", "equalise", "json"}}); err != nil {
		return err
	}
	if err := alone("making a teacher"); err != nil {
		return err
	}
	switch {
	case flags.Changed("onnx"):
		opt := rdpp.ConvertOptions{ONNX: *onnx, Preprocess: *preprocess, Out: opt.Out, Store: opt.Store, Overwrite: opt.Overwrite}
		if flags.Changed("arch") {
			opt.Arch = c.Arch
		}
		return convertTeacher(ctx, flags, opt, t.Stdout, *asJSON)
	case *preprocess != "":
		return command.Usagef("--preprocess says something of --onnx, which is missing")
	case *sheet != "":
		_, err := command.Await(ctx, func() (struct{}, error) {
			return struct{}{}, writeSheet(*sheet, &pattern.Options{Size: c.ImageSize, Seed: c.Seed, Kinds: c.Kinds})
		})
		return err
	case opt.Out == "":
		return command.Usagef("--out is needed")
	case opt.Workers < 1 || opt.Workers > 1024:
		return command.Usagef("--workers %d; use 1 to 1024", opt.Workers)
	case opt.CheckpointEvery <= 0:
		return command.Usagef("--checkpoint-every must be positive, such as 5m")
	case opt.Resume && opt.Overwrite:
		return command.Usagef("--resume and --overwrite exclude each other")
	}
	// Every position has a row of logits, and many positions have few pixels.
	if c.Objective == rdpp.ObjectiveDense && !flags.Changed("classes") {
		c.Classes = 200
	}
	if c.Scales, err = parseScales(*scales); err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	if opt.Device, err = setDevice(*device, *threads); err != nil {
		return err
	}
	show := &teacherProgress{progress: openProgress("teacher", t.Stdout, t.Stderr, *asJSON, false)}
	opt.OnStep = show.step
	opt.Log = slog.New(command.LogTo(show.log(), "train"))
	show.start(&c, opt.Device, *threads)
	summary, err := rdpp.Pretrain(ctx, c, opt)
	show.stop()
	if err != nil {
		return err
	}
	show.done(summary)
	return nil
}

// convertTeacher makes a teacher of an ONNX file, and says what it has made of what.
func convertTeacher(ctx context.Context, flags *pflag.FlagSet, opt rdpp.ConvertOptions, stdout io.Writer, asJSON bool) error {
	var wrong error
	flags.Visit(func(f *pflag.Flag) {
		if !slices.Contains(convertFlags, f.Name) {
			wrong = command.Usagef("--%s is for learning; with --onnx nothing learns", f.Name)
		}
	})
	if wrong != nil {
		return wrong
	}
	s, err := command.Await(ctx, func() (*rdpp.ConvertSummary, error) { return rdpp.ConvertTeacher(opt) })
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(stdout).Encode(map[string]any{"schema": eventSchema, "event": "done", "category": "teacher", "summary": s})
	}
	by := ""
	if s.Producer != "" {
		by = fmt.Sprintf(", which %q made", s.Producer)
	}
	input := "torchvision's input"
	if opt.Preprocess != "" {
		input = "the preprocessing of " + opt.Preprocess + " for BGR, which is part of it now"
	}
	say(stdout, "teacher: %s up to layer3, %d numbers, of %s%s; with %s", s.Arch, s.Numbers, opt.ONNX, by, input)
	for _, text := range s.LeftOut {
		say(stdout, "teacher: left out: %s", text)
	}
	for _, text := range s.Notes {
		say(stdout, "teacher: note: %s", text)
	}
	say(stdout, "teacher: %s (%s); train --arch %s --teacher %s uses it", s.File, s.Store, s.Arch, s.File)
	return nil
}

// writeSheet writes a contact sheet.
func writeSheet(path string, opt *pattern.Options) error {
	sheet, err := pattern.Sheet(opt)
	if err != nil {
		return command.Usagef("%w", err)
	}
	return atomicfile.Write(path, func(w io.Writer) error { return png.Encode(w, sheet) })
}

// parseScales reads three numbers with commas between.
func parseScales(text string) (scales [3]float64, err error) {
	parts := strings.Split(text, ",")
	if len(parts) != len(scales) {
		return scales, command.Usagef("--scales %q; give three numbers with commas between", text)
	}
	for k, part := range parts {
		if scales[k], err = strconv.ParseFloat(strings.TrimSpace(part), 64); err != nil {
			return scales, command.Usagef("--scales %q: %q is no number", text, part)
		}
	}
	return scales, nil
}

// teacherProgress shows a pre-training.
type teacherProgress struct {
	*progress
	first rdpp.PretrainReport // of the first step seen
}

func (p *teacherProgress) start(c *rdpp.PretrainConfig, device torch.Device, threads int) {
	if p.json != nil {
		return
	}
	say(p.stdout, "teacher: %s, %s, %d x %d pixels, %d steps of %d pictures, %s on %s with %s", c.Arch, c.Objective,
		c.ImageSize, c.ImageSize, c.Steps, c.Batch, c.Precision, device, printable.Count(threads, "thread"))
}

func (p *teacherProgress) step(r rdpp.PretrainReport) {
	if p.first.Step == 0 {
		// The clock starts at the end of the first step, which also warms up.
		p.first = r
		if p.bars != nil {
			p.addBar(p.category, r.Steps)
		}
	}
	text := " loss " + lossText(r.Loss)
	var rate, waited float64
	var left time.Duration
	if seconds := (r.Elapsed - p.first.Elapsed).Seconds(); r.Step > p.first.Step {
		rate = float64(r.Pictures-p.first.Pictures) / seconds
		waited = (r.Waited - p.first.Waited).Seconds() / seconds
		perStep := (r.Elapsed - p.first.Elapsed) / time.Duration(r.Step-p.first.Step)
		left = (perStep * time.Duration(r.Steps-r.Step)).Round(time.Second)
		text += fmt.Sprintf("  %s pictures/s  %s left", rateText(rate), durationText(left))
	}
	last := r.Step == r.Steps
	switch {
	case p.bar != nil:
		p.status.Store(&text)
		p.bar.SetCurrent(int64(r.Step))
	case p.json != nil && (time.Since(p.shown) >= time.Second || last):
		p.shown = time.Now()
		p.event("step", map[string]any{"step": r.Step, "steps": r.Steps, "pictures": r.Pictures, "loss": r.Loss, "scales": r.Scales,
			"pictures_per_second": rate, "waited_share": waited, "seconds_left": left.Seconds()})
	case p.json == nil && p.bars == nil && (time.Since(p.shown) >= lineEvery || last):
		p.shown = time.Now()
		say(p.stdout, "teacher: %d %%%s", 100*r.Step/r.Steps, text)
	}
}

func (p *teacherProgress) done(s *rdpp.PretrainSummary) {
	if p.json != nil {
		p.event("done", map[string]any{"summary": s})
		return
	}
	say(p.stdout, "teacher: %d pictures seen, loss %.4f%s", s.Pictures, s.Loss, scalesText(s.Scales))
	say(p.stdout, "teacher: %.1f s, of which the device waited %.0f %% for pictures", s.Seconds, 100*s.WaitedShare)
	if s.DeviceBytes > 0 {
		say(p.stdout, "teacher: %d MiB of device memory in use at most", s.DeviceBytes>>20)
	}
	say(p.stdout, "teacher: %s (%s); train --teacher %s uses it", s.File, s.Store, s.File)
}

func scalesText(scales []rdpp.ScaleReport) string {
	text := ""
	for _, s := range scales {
		text += fmt.Sprintf("  %s %.3f (%.1f %%)", s.Layer, s.Loss, 100*s.Accuracy)
	}
	return text
}
