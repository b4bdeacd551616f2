// Command train learns what good parts look like from photographs of good parts alone, and writes a model file.
//
//	train --data DIR --out RUN [flags]
//	train sample --out DIR [flags]
//	train teacher --out FILE [flags]
//	train reproduce --data ROOT --out RUN [flags]
//	train worker --nats URL [flags]
//	train version [--licenses]
//	train completion bash|zsh|fish
//	train man
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (after a checkpoint).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/ranks"
	"rdpp/rdpp/reproduce"
	"rdpp/rdpp/share"
	"rdpp/rdpp/tensorboard"
	"rdpp/torch"
)

var version = command.Version("train", func() (string, error) {
	libtorch, err := torch.Version()
	return command.Versions(rdpp.Version, libtorch, rdpp.Commit()), err
}, rdpp.Notice)

// short are flags that are not called like their settings, by the settings' names.
var short = map[string]string{"noise_lambda": "noise", "image_size": "size", "roi_mask": "roi", "ignore_mask": "ignore",
	"augment_shift": "augment", "augment_rotate": "augment", "augment_scale": "augment", "tile_stride": "tile"}

var app = command.Program{
	Name:    "train",
	Summary: "learn what good parts look like from photographs of good parts alone",
	Commands: []command.Command{
		{Name: "sample", Summary: "make sample data", Args: command.None, Run: simple(runSample), Patient: true},
		{Name: "teacher", Summary: "make a teacher of drawn pictures or of an ONNX file", Args: command.None, Run: simple(runTeacher), Patient: true},
		{Name: "reproduce", Summary: "train for the paper's tables", Args: command.None, Run: simple(runReproduce), Patient: true},
		{Name: "worker", Summary: "do trainings that train --nats hands out", Args: command.None, Run: simple(runWorker), Patient: true},
		version,
	},
	Default:     &command.Command{Args: command.None, Run: simple(runTrain), Patient: true},
	Version:     version,
	Interrupted: []error{rdpp.ErrInterrupted, reproduce.ErrInterrupted},
	Short:       short,
}

// simple is the run of a command that has no exit codes of its own.
func simple(run func(context.Context, []string, *command.Terminal) error) func(context.Context, []string, *command.Terminal) (int, error) {
	return func(ctx context.Context, args []string, t *command.Terminal) (int, error) {
		return command.Done, run(ctx, args, t)
	}
}

func main() {
	allowance.LimitGo()
	ctx, _ := command.Context() // whose end asks for a checkpoint
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out a command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return app.Run(ctx, args, os.Stdin, stdout, stderr)
}

// asFlag is the flag of a setting that train has.
func asFlag(field string) string { return "--" + strings.ReplaceAll(field, "_", "-") }

// parse is Parse for a command that has flags alone.
func parse(t *command.Terminal, flags *pflag.FlagSet, args []string, help command.Help) error {
	if err := t.Parse(flags, args, help); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return command.Usagef("%q is no flag and no command", flags.Arg(0))
	}
	return nil
}

const trainUsage = `train --data DIR --out RUN    learn from photographs of good parts
train sample|teacher|reproduce|worker|version|completion|man --help: sample
data, teachers, the paper's tables, workers, versions, completions, manual page
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (checkpoint kept)
`

// rareFlags are those without which --help fits on a screen.
var rareFlags = []string{
	"threads", "ranks", "smallest-defect", "config", "keep-checkpoint", "tensorboard", "patience", "deterministic", "ssot", "skip-bad", "test-every", "workers", "schedule", "accumulate", "test-good", "masks",
	"recursive", "layout", "bit-depth", "average", "clip", "weight-ssot", "weight-recon", "weight-contrast", "rate-projection",
	"rate-distill", "project", "noise", "noise-released", "defects", "denoise", "light", "augment", "align", "easy-cut", "easy-below", "equalise",
	"score", "score-top", "coreset", "coreset-dimensions", "coreset-starts", "patch-dimensions", "patch-score", "neighbours", "distance-mib",
	"flow-steps", "flow-hidden", "flow-kernels", "flow-clamp", "flow-affine", "flow-rate", "flow-decay", "flow-clip", "flow-map", "flow-top",
	"cross-blocks", "cross-hidden", "cross-clamp", "cross-rate", "cross-decay", "cross-clip", "cross-map", "cross-score",
	"sphere-near", "sphere-far", "sphere-radius", "sphere-learn", "sphere-margin", "sphere-nu", "sphere-rows", "sphere-width", "sphere-rate", "sphere-decay", "sphere-score",
	"kd-per-position", "checkpoint-every", "cache", "max-pixels",
}

func runTrain(ctx context.Context, args []string, t *command.Terminal) error {
	tr, err := readTraining(ctx, args, t)
	switch {
	case err != nil:
		return err
	case tr.crew.world != nil:
		return tr.trainTogether(ctx)
	case tr.apart.URL != "":
		return tr.handOut(ctx)
	case len(tr.sources) == 1 && tr.share.N == 1:
		_, err := tr.train(ctx, tr.sources[0])
		return err
	}
	return tr.trainAll(ctx)
}

// training is what a command line asks for.
type training struct {
	t       *command.Terminal
	stdout  io.Writer // for people
	asJSON  bool
	sources []dataset.Source // of the categories
	all     bool             // all in a folder
	data    string           // --data
	out     string           // with a folder for each category
	resume  bool
	teacher string

	open     dataset.OpenOptions
	configOf func(category string) rdpp.Config
	// learn trains on a category.
	learn func(set *dataset.Set) (*rdpp.Summary, error)

	crew   company      // processes that train one model
	peers  *ranks.Peers // once they have met
	device torch.Device

	apart apart
	share share.Share
	args  []string // those that say what a model becomes, for workers
}

// openSet opens a category.
func (tr *training) openSet(ctx context.Context, source dataset.Source) (*dataset.Set, error) {
	set, err := command.Await(ctx, func() (*dataset.Set, error) { return source.Open(&tr.open) }) // a list may be a pipe
	if errors.Is(err, dataset.ErrCategories) {
		return nil, fmt.Errorf("%w, with --category, or all", err)
	}
	return set, err
}

// train trains on a category.
func (tr *training) train(ctx context.Context, source dataset.Source) (*rdpp.Summary, error) {
	set, err := tr.openSet(ctx, source)
	if err != nil {
		return nil, err
	}
	return tr.learn(set)
}

// readTraining reads a command line.
func readTraining(ctx context.Context, args []string, t *command.Terminal) (*training, error) {
	tr := &training{t: t}
	c := rdpp.DefaultConfig()
	opt, open := rdpp.TrainOptions{}, &tr.open
	flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
	var source dataset.Source
	flags.StringVar(&source.Data, "data", "", "`DIR` with train/good, good or images; or of such")
	flags.StringArrayVar(&source.Good, "good", nil, "or `DIR` of good images, of any name; repeatable")
	flags.StringArrayVar(&source.Bad, "bad", nil, "and `DIR` of defective ones; repeatable")
	flags.StringVar(&source.List, "list", "", "or `FILE`, CSV or JSON lines: path,split,label,mask")
	flags.StringVar(&opt.Out, "out", "", "`DIR` for results")
	categories := flags.StringSlice("category", nil, "`NAMES` of folders in --data; or all")
	flags.StringVar(&c.Arch, "arch", c.Arch, "backbone `NAME`; see --help-all for the default")
	flags.Lookup("arch").DefValue = ""
	flags.StringVar(&opt.Teacher, "teacher", rdpp.TeacherAuto, "`FILE`, builtin, imagenet, drawn, random")
	flags.StringVar(&c.Method, "method", c.Method, "`NAME`: "+strings.Join(rdpp.Methods(), ", "))
	flags.IntVar(&c.Updates, "updates", c.Updates, "`N` updates of the weights, of --batch images"+others(func(c *rdpp.Config) int { return c.Updates }))
	flags.IntVar(&c.Epochs, "epochs", c.Epochs, "or `N` passes over images"+others(func(c *rdpp.Config) int { return c.Epochs }))
	flags.IntVar(&c.Patience, "patience", c.Patience, "stop early after `N` looks of 20 without a gain at\nmade-up defects on held-out images; 0: never")
	flags.IntVar(&c.Batch, "batch", c.Batch, "`N` images per step"+others(func(c *rdpp.Config) int { return c.Batch }))
	flags.IntVar(&c.ImageSize, "image-size", c.ImageSize, "`N` x N pixels; 192 for drawn")
	flags.StringVar((*string)(&c.Fit), "fit", string(framing.Squash), "`NAME`, into a square: "+strings.Join(framing.Fits(), ", "))
	roi := flags.String("roi", "", "look at `X,Y,W,H` alone, or what a mask FILE draws")
	ignore := flags.String("ignore", "", "do not score what a mask `FILE` draws; or DIR, one per image")
	flags.Var(align{&c.Align, new("")}, "align", "find the part in each image first, by `LIMITS`, such as\nshift=0.1,rotate=10, which are the default")
	flags.Lookup("align").NoOptDefVal = alignDefault
	flags.Var(tile{&c.Tile, &c.TileStride}, "tile", "cut images into tiles of `N` pixels; N,N, auto")
	flags.IntVar(&c.SmallestDefect, "smallest-defect", 0, "`N` pixels, for --tile auto; says if it is missed")
	device := flags.String("device", "auto", "`NAME`: auto, cpu, cuda or cuda:N")
	flags.StringVar(&c.Precision, "precision", c.Precision, "`NAME`: auto, fp32, tf32, bf16")
	flags.Uint64Var(&c.Seed, "seed", c.Seed, "`N`, of weights, order and noise")
	threads := flags.Int("threads", allowance.CPUs(), "`N` CPU threads; results depend on it")
	together := flags.Int("ranks", 0, "`N` processes on this machine train one model")
	flags.IntVar(&opt.Workers, "workers", allowance.CPUs(), "`N` goroutines that make batches")
	flags.StringVar(&opt.From, "from", "", "go on from the weights and settings of a model `FILE`")
	flags.BoolVar(&opt.Resume, "resume", false, "continue from RUN/CATEGORY/checkpoint")
	flags.BoolVar(&opt.Overwrite, "overwrite", false, "replace the run in RUN/CATEGORY")
	flags.BoolVar(&opt.Deterministic, "deterministic", false, "the same bits every time on a GPU too")
	flags.StringVar(&c.Select, "select", c.Select, "`NAME` of epoch: last, best-on-test")
	flags.StringVar(&c.Schedule, "schedule", c.Schedule, "`NAME` of learning rates: cosine, constant")
	flags.StringVar(&c.SSOT, "ssot", c.SSOT, "L_SSOT, `NAME`: pairwise, batch, off")
	flags.Float64Var(&c.Calibration, "calibration", c.Calibration, "`SHARE` of good images for the threshold")
	flags.Float64Var(&c.FalseAlarm, "false-alarm", c.FalseAlarm, "`SHARE` of good images to reject")
	preset := flags.String("preset", "", "`NAME` of settings: paper, the released ones")
	flags.IntVar(&opt.TestEvery, "test-every", 0, "measure on the test set every `N` epochs; 0: at the end")
	flags.BoolVar(&opt.SkipBad, "skip-bad", false, "leave out and list what cannot be read")
	asJSON := flags.Bool("json", false, "one JSON object per line")
	curves := flags.Bool("tensorboard", false, "write curves for TensorBoard to RUN/CATEGORY")
	quiet := flags.BoolP("quiet", "q", false, "no progress, warnings and errors alone")
	configFile := flags.String("config", "", "settings of a metrics.json or a model, `FILE`")
	keep := flags.Bool("keep-checkpoint", false, "keep it when the run is finished, to add epochs")
	flags.IntVar(&c.Accumulate, "accumulate", c.Accumulate, "`N` steps per update of the weights")
	flags.StringArrayVar(&source.TestGood, "test-good", nil, "`DIR` of good images to test on; else some of --good")
	flags.StringArrayVar(&source.Masks, "masks", nil, "`DIR` of the masks of --bad")
	flags.BoolVar(&open.Recursive, "recursive", false, "take images in sub-folders, too")
	flags.StringVar(&open.Layout, "layout", "auto", "of --data, `NAME`: "+strings.Join(dataset.Layouts(), ", "))
	flags.Var(bitDepth{&c.BitDepth}, "bit-depth", "`N` bits of 16 in use: auto, 8, 10, 12, 14, 16")
	flags.Float64Var(&c.Average, "average", c.Average, "model averages the last `SHARE` of updates")
	flags.Float64Var(&c.Clip, "clip", c.Clip, "`X`, length to shorten gradients to; 0: none")
	flags.Float64Var(&c.WeightSSOT, "weight-ssot", c.WeightSSOT, "`X` times L_SSOT in the loss")
	flags.Float64Var(&c.WeightRecon, "weight-recon", c.WeightRecon, "`X` times L_Recon")
	flags.Float64Var(&c.WeightContrast, "weight-contrast", c.WeightContrast, "`X` times L_Con")
	flags.Float64Var(&c.RateProjection, "rate-projection", c.RateProjection, "`X`, Adam's rate for the projection")
	flags.Float64Var(&c.RateDistill, "rate-distill", c.RateDistill, "`X`, and for bottleneck and student")
	flags.Float64Var(&c.NoiseLambda, "noise", c.NoiseLambda, "pseudo-anomalies of `X`, RGB being 0..1")
	flags.BoolVar(&c.NoiseReleased, "noise-released", false, "one noise field per run, not per image")
	flags.BoolVar(&c.KDPerPosition, "kd-per-position", false, "L_KD by the letter of Eq. 1")
	flags.StringVar(&c.Project, "project", c.Project, "`NAME` of what is projected: coarsest, all (paper)")
	flags.IntVar(&c.Defects, "defects", c.Defects, "up to `N` made-up defects per image; 0: a box of noise")
	flags.Float64Var(&c.Denoise, "denoise", c.Denoise, "`SHARE` of images whose defects are unlearned")
	flags.Float64Var(&c.Light, "light", c.Light, "vary the light by `SHARE`, brighter and darker")
	flags.Var(augment{&c, new("")}, "augment", "vary place and light by up to `NAME=X,...`, such as\nshift=0.03,rotate=4,scale=0.05,light=0.2")
	flags.Float64Var(&c.EasyCut, "easy-cut", c.EasyCut, "`SHARE` of gradient lost where all is learned")
	flags.Float64Var(&c.EasyBelow, "easy-below", c.EasyBelow, "learned: below mean plus `N` deviations")
	flags.BoolVar(&c.Equalise, "equalise", c.Equalise, "give the teacher's channels one deviation")
	flags.StringVar(&c.Score, "score", c.Score, "`NAME` of the map: balanced, released")
	flags.Float64Var(&c.ScoreTop, "score-top", c.ScoreTop, "score: mean of the map's top `SHARE`; 0: maximum")
	flags.Float64Var(&c.Coreset, "coreset", c.Coreset, "`SHARE` of patches to keep")
	flags.IntVar(&c.CoresetDimensions, "coreset-dimensions", c.CoresetDimensions, "`N`, to choose them by; 0: all of a patch")
	flags.IntVar(&c.CoresetStarts, "coreset-starts", c.CoresetStarts, "`N` random patches to start from")
	flags.IntVar(&c.PatchDimensions, "patch-dimensions", c.PatchDimensions, "`N` of a patch, as released; 0: by channel")
	flags.StringVar(&c.PatchScore, "patch-score", c.PatchScore, "`NAME` of the score: map, patch (paper)")
	flags.IntVar(&c.Neighbours, "neighbours", c.Neighbours, "`N` that weight it; 1: none; paper: 9")
	flags.IntVar(&c.DistanceMiB, "distance-mib", c.DistanceMiB, "`N` MiB of distances at a time")
	flags.IntVar(&c.FlowSteps, "flow-steps", c.FlowSteps, "`N` steps of a flow")
	flags.Float64Var(&c.FlowHidden, "flow-hidden", c.FlowHidden, "`X` times the channels inside sub-networks")
	flags.StringVar(&c.FlowKernels, "flow-kernels", c.FlowKernels, "`NAME`: auto, 3x3, alternate (with 1x1)")
	flags.Float64Var(&c.FlowClamp, "flow-clamp", c.FlowClamp, "`X`, largest logarithm of a scale")
	flags.BoolVar(&c.FlowAffine, "flow-affine", c.FlowAffine, "layer norms learn weights and biases")
	flags.Float64Var(&c.FlowRate, "flow-rate", c.FlowRate, "`X`, Adam's rate for the flows")
	flags.Float64Var(&c.FlowDecay, "flow-decay", c.FlowDecay, "`X` times a weight is in its gradient")
	flags.Float64Var(&c.FlowClip, "flow-clip", c.FlowClip, "`X`, length to shorten gradients to; 0: none")
	flags.StringVar(&c.FlowMap, "flow-map", c.FlowMap, "`NAME` of the map: probability, likelihood")
	flags.Float64Var(&c.FlowTop, "flow-top", c.FlowTop, "score: mean of the map's top `SHARE`; 0: maximum")
	flags.IntVar(&c.CrossBlocks, "cross-blocks", c.CrossBlocks, "`N` coupling blocks")
	flags.IntVar(&c.CrossHidden, "cross-hidden", c.CrossHidden, "`N` channels of its sub-networks; paper: 1024")
	flags.Float64Var(&c.CrossClamp, "cross-clamp", c.CrossClamp, "`X`, largest logarithm of a scale")
	flags.Float64Var(&c.CrossRate, "cross-rate", c.CrossRate, "`X`, Adam's rate")
	flags.Float64Var(&c.CrossDecay, "cross-decay", c.CrossDecay, "`X`, weight decay")
	flags.Float64Var(&c.CrossClip, "cross-clip", c.CrossClip, "`X`, length to shorten gradients to; 0: none")
	flags.StringVar(&c.CrossMap, "cross-map", c.CrossMap, "`NAME` of scales in the map: finest (paper), product")
	flags.StringVar(&c.CrossScore, "cross-score", c.CrossScore, "`NAME` of the score: latent (paper), map")
	flags.IntVar(&c.SphereNear, "sphere-near", c.SphereNear, "`N` nearest rows of the bank, which attract")
	flags.IntVar(&c.SphereFar, "sphere-far", c.SphereFar, "`N` rows next to those, which repel; 0: none")
	flags.Float64Var(&c.SphereRadius, "sphere-radius", c.SphereRadius, "`X`, radius to begin with")
	flags.BoolVar(&c.SphereLearn, "sphere-learn", c.SphereLearn, "the radius learns; paper: it stays")
	flags.Float64Var(&c.SphereMargin, "sphere-margin", c.SphereMargin, "`X`, margin of what repels")
	flags.Float64Var(&c.SphereNu, "sphere-nu", c.SphereNu, "`X` that divides the losses")
	flags.IntVar(&c.SphereRows, "sphere-rows", c.SphereRows, "a row of the bank for `N` positions")
	flags.IntVar(&c.SphereWidth, "sphere-width", c.SphereWidth, "a dimension for `N` channels")
	flags.Float64Var(&c.SphereRate, "sphere-rate", c.SphereRate, "`X`, AdamW's rate")
	flags.Float64Var(&c.SphereDecay, "sphere-decay", c.SphereDecay, "`X`, AdamW's decay")
	flags.StringVar(&c.SphereScore, "sphere-score", c.SphereScore, "`NAME` of the score: softmin (paper), nearest")
	flags.DurationVar(&opt.CheckpointEvery, "checkpoint-every", 5*time.Minute, "`TIME` between checkpoints")
	cacheMiB := flags.Int64("cache", allowance.MemoryDefault(dataset.DefaultCacheBytes)>>20, "`N` MiB of memory for decoded images")
	flags.Int64Var(&opt.MaxPixels, "max-pixels", imagefile.DefaultMaxPixels, "largest image accepted: `N` pixels")
	command.Words(flags, "arch", torch.Backbones()...)
	command.Words(flags, "method", rdpp.Methods()...)
	command.Words(flags, "preset", rdpp.Presets()...)
	command.Words(flags, "fit", framing.Fits()...)
	command.Words(flags, "layout", dataset.Layouts()...)
	command.Words(flags, "device", "auto", "cpu", "cuda")
	command.Words(flags, "precision", "auto", "fp32", "tf32", "bf16")
	command.Words(flags, "select", rdpp.SelectLast, rdpp.SelectBestOnTest)
	command.Words(flags, "bit-depth", "auto", "8", "10", "12", "14", "16")
	tr.apart.register(flags)
	nameOwners(flags)
	help := command.Help{Text: trainUsage, Rare: slices.Concat(rareFlags, apartFlags), More: fmt.Sprintf("Without --arch: %s where its weights are in $RDPP_CACHE or\n~/.cache/rdpp, "+
		"else %s, whose teacher is inside the program\n"+
		"With several categories, RUN/%s is the page of them all\n"+
		"Files in RUN/CATEGORY: %s, %s, %s,\n%s, %s; until the end: checkpoint\n", c.Arch, rdpp.DefaultArch(rdpp.TeacherBuiltin), rdpp.IndexFile, rdpp.ModelFile, rdpp.ReportFile, rdpp.MetricsFile,
		rdpp.HistoryFile, rdpp.ScoresFile)}
	if err := parse(t, flags, args, help); err != nil {
		return nil, err
	}

	switch {
	case opt.Out == "":
		return nil, command.Usagef("--data and --out are needed")
	case opt.Workers < 1 || opt.Workers > 1024:
		return nil, command.Usagef("--workers %d; use 1 to 1024", opt.Workers)
	case opt.CheckpointEvery <= 0:
		return nil, command.Usagef("--checkpoint-every must be positive, such as 5m")
	case *cacheMiB < 0 || *cacheMiB > 1<<30 || opt.MaxPixels < 1:
		return nil, command.Usagef("--cache must be 0 to %d MiB, --max-pixels at least 1", 1<<30)
	case opt.TestEvery < 0:
		return nil, command.Usagef("--test-every %d; use 0 or more", opt.TestEvery)
	case flags.Changed("light") && strings.Contains(flags.Lookup("augment").Value.String(), "light="):
		return nil, command.Usagef("--light and --augment light= exclude each other")
	case opt.From != "" && (*preset != "" || *configFile != ""):
		return nil, command.Usagef("--from excludes --preset and --config: the settings are the model's")
	case opt.From != "" && flags.Changed("teacher"):
		return nil, command.Usagef("--from and --teacher exclude each other: the model has a teacher, by which it has learned")
	case opt.Resume && opt.Overwrite:
		return nil, command.Usagef("--resume and --overwrite exclude each other")
	}
	if err := source.Check(false); err != nil {
		return nil, command.Usagef("%w", err)
	}
	if err := tr.apart.checkCategories(&source, *categories, opt.Overwrite); err != nil {
		return nil, err
	}
	var view framing.View
	var err error
	if tr.share, err = tr.apart.check(); err != nil {
		return nil, err
	}
	if opt.From != "" {
		if tr.configOf, view, err = continued(flags, &c, opt.From); err != nil {
			return nil, err
		}
	} else {
		base, err := baseOf(flags, *preset, *configFile, c.Method, &opt.Teacher)
		if err != nil {
			return nil, err
		}
		if tr.configOf, err = configured(flags, &c, base, opt.Teacher); err != nil {
			return nil, err
		}
		if *configFile != "" {
			view = c.View
		}
	}
	if err := readView(*roi, *ignore, open, &view); err != nil {
		return nil, err
	}
	if tr.crew, err = find(*together); err != nil {
		return nil, err
	}
	if err := tr.crew.shareMachine(flags, device, threads); err != nil {
		return nil, err
	}
	if opt.Device, err = setDevice(*device, *threads); err != nil {
		return nil, err
	}
	if opt.CacheBytes = *cacheMiB << 20; opt.CacheBytes == 0 {
		opt.CacheBytes = -1
	}
	if tr.sources, err = dataSources(source, *categories); err != nil {
		return nil, err
	}
	if opt.From != "" && len(tr.sources) > 1 {
		return nil, command.Usagef("--from names one model, and there are %d categories; train one at a time", len(tr.sources))
	}
	if tr.args, err = argsOf(flags); err != nil {
		return nil, err
	}
	if opt.From == "" { // each machine would choose by the weights that are there
		arch := tr.configOf("").Arch
		if !flags.Changed("arch") {
			tr.args = append(tr.args, "--arch="+arch)
		}
		if opt.Teacher == rdpp.TeacherAuto {
			tr.args = append(slices.DeleteFunc(tr.args, func(arg string) bool { return arg == "--teacher="+rdpp.TeacherAuto }),
				"--teacher="+rdpp.SettledTeacher(opt.Teacher, arch))
		}
	}
	tr.all = slices.Equal(*categories, []string{"all"})
	tr.data, tr.out, tr.resume, tr.teacher, tr.asJSON = source.Data, opt.Out, opt.Resume, opt.Teacher, *asJSON
	open.SkipBad = opt.SkipBad
	opt.DropCheckpoint = !*keep
	if opt.Provenance, err = provenance(args, &source, opt.Device, *threads); err != nil {
		return nil, err
	}
	tr.stdout = t.Stdout
	if *quiet && !*asJSON {
		tr.stdout = io.Discard
	}
	tr.device = opt.Device
	if tr.crew.world != nil && tr.crew.world.Rank > 0 { // what there is to say rank 0 says
		tr.stdout, *asJSON = io.Discard, false
	}
	if usual := rdpp.DefaultConfig().Arch; !flags.Changed("arch") && *preset == "" && *configFile == "" && opt.Teacher == rdpp.TeacherAuto &&
		c.Arch != usual && !*asJSON {
		say(tr.stdout, "%s, whose teacher is inside the program, as no weights of %s are on this machine; --arch overrules", c.Arch, usual)
	}
	settings := tr.configOf
	tr.configOf = func(category string) rdpp.Config {
		c := settings(category)
		c.View.ROI, c.View.ROIMask, c.View.Ignore = view.ROI, view.ROIMask, view.Ignore
		return c
	}
	tr.learn = func(set *dataset.Set) (*rdpp.Summary, error) {
		c := tr.configOf(set.Category)
		opt := opt
		opt.Out, opt.Peers = filepath.Join(tr.out, set.Category), tr.peers
		stderr := t.Stderr
		if !tr.peers.First() {
			stderr = io.Discard
		}
		show := newProgress(set, tr.stdout, stderr, *asJSON, *quiet)
		opt.OnDownload, opt.OnStart, opt.OnStep, opt.OnEpoch = show.download, show.teacher, show.step, show.epoch
		logTo := command.LogTo
		if *quiet {
			logTo = command.WarnTo
		}
		opt.Log = slog.New(logTo(show.log(), "train"))
		var drawn *board
		if *curves && opt.Peers.First() {
			drawn = &board{folder: opt.Out, log: opt.Log}
			opt.OnStep = func(r rdpp.StepReport) { show.step(r); drawn.step(r) }
			opt.OnEpoch = func(r rdpp.EpochReport) { show.epoch(r); drawn.epoch(r) }
			defer drawn.close()
		} else if opt.Overwrite && opt.Peers.First() { // the run that is replaced may have had curves
			clear := sync.OnceFunc(func() {
				if err := tensorboard.Remove(opt.Out); err != nil {
					opt.Log.Warn("the replaced run's curves for TensorBoard are still there", "error", err)
				}
			})
			opt.OnStep = func(r rdpp.StepReport) { show.step(r); clear() }
		}
		show.start(&c, opt.Device, *threads)
		if opt.Peers != nil && !*asJSON {
			say(tr.stdout, "%s: in %d processes, to which batches of %d are dealt out", set.Category, opt.Peers.Size(), c.Batch)
		}
		summary, err := rdpp.Train(ctx, c, set, opt)
		show.stop()
		if err == nil && opt.Peers.First() {
			show.done(summary)
			if drawn != nil {
				drawn.done(summary)
			}
		}
		return summary, err
	}
	return tr, nil
}

// say prints a line for people. That its reader has gone away is no reason to stop training.
func say(w io.Writer, format string, args ...any) { _ = command.Say(w, format, args...) }

// configured returns what a category's training is set to: by the flags that are given, else by base. The image size of the
// defaults depends on the teacher. c is what the flags write to.
func configured(flags *pflag.FlagSet, c *rdpp.Config, base func(category string) rdpp.Config, teacher string) (of func(category string) rdpp.Config,
	err error) {
	return over(flags, c, func(category string) rdpp.Config {
		c := base(category)
		if !flags.Changed("preset") && !flags.Changed("config") {
			c.ImageSize = rdpp.DefaultImageSize(teacher)
		}
		return c
	})
}

// continued returns what a training is set to that goes on from a model: by the flags that are given, else as the model's was; and
// what of images the model looks at.
func continued(flags *pflag.FlagSet, c *rdpp.Config, from string) (of func(category string) rdpp.Config, view framing.View, err error) {
	older, err := rdpp.FromModel(from)
	if err != nil {
		return nil, view, err
	}
	of, err = over(flags, c, func(string) rdpp.Config { return older })
	return of, older.View, err
}

// over returns a category's settings: by the flags that are given, else base's.
func over(flags *pflag.FlagSet, c *rdpp.Config, base func(category string) rdpp.Config) (of func(category string) rdpp.Config, err error) {
	given := map[*pflag.Flag]string{}
	flags.Visit(func(f *pflag.Flag) {
		if _, list := f.Value.(pflag.SliceValue); !list {
			given[f] = f.Value.String()
		}
	})
	of = func(category string) rdpp.Config {
		*c = base(category)
		for f, value := range given {
			err = errors.Join(err, f.Value.Set(value))
		}
		for _, fixed := range c.Fixed() {
			f := flags.Lookup(strings.TrimPrefix(asFlag(fixed.Setting), "--"))
			if _, chosen := given[f]; !chosen && !slices.Contains(fixed.Values, f.Value.String()) {
				err = errors.Join(err, f.Value.Set(fixed.Values[0]))
			}
		}
		switch updates, epochs := flags.Changed("updates"), flags.Changed("epochs"); {
		case epochs && !updates:
			c.Updates = 0
		case updates && !epochs && c.Updates > 0:
			c.Epochs = math.MaxInt32 // however few the images
		}
		return *c
	}
	some := of("")
	if err == nil && slices.Contains(rdpp.Methods(), some.Method) { // first, as values of what is not read do not matter
		err = unread(flags, given, &some)
	}
	if err == nil {
		err = some.Validate()
	}
	return of, err
}

// others lists, for a flag's help, the methods whose default of a setting is not the first one's.
func others(value func(c *rdpp.Config) int) (text string) {
	first := rdpp.DefaultConfig()
	for _, method := range rdpp.Methods() {
		if own := rdpp.PresetOf("", "", method); value(&own) != value(&first) {
			text += fmt.Sprintf("; %s: %d", method, value(&own))
		}
	}
	return text
}

// nameOwners begins the help of flags that not all methods read with the names of those that do.
func nameOwners(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if owners := rdpp.Owners(settingOf(f)); len(owners) > 0 {
			f.Usage = strings.Join(owners, ", ") + ": " + f.Usage
		}
	})
}

// settingOf is the setting, by its name in JSON, that a flag is for, if it is for one.
func settingOf(f *pflag.Flag) string {
	for setting, flag := range short {
		if flag == f.Name {
			return setting
		}
	}
	return strings.ReplaceAll(f.Name, "-", "_")
}

// unread refuses flags that are given and play no part in c's method. given are their values on the command line.
func unread(flags *pflag.FlagSet, given map[*pflag.Flag]string, c *rdpp.Config) (err error) {
	method, fixed := c.Method, c.Fixed()
	flags.Visit(func(f *pflag.Flag) {
		setting := settingOf(f)
		owners := rdpp.Owners(setting)
		at := slices.IndexFunc(fixed, func(s rdpp.FixedSetting) bool { return s.Setting == setting })
		switch {
		case err != nil:
		case len(owners) > 0 && !slices.Contains(owners, method):
			err = command.Usagef("--%s plays no part with --method %s, it is of %s; leave one of the flags out", f.Name, method, strings.Join(owners, " and "))
		case at >= 0 && !slices.Contains(fixed[at].Values, given[f]):
			err = command.Usagef("--%s %s plays no part with --method %s, which %s; use %s, or leave it out", f.Name, given[f], method, fixed[at].Why,
				strings.Join(fixed[at].Values, " or "))
		}
	})
	return err
}

// readView puts into v what --roi and --ignore name, but for a folder of masks, which belong to the images.
func readView(roi, ignore string, open *dataset.OpenOptions, v *framing.View) (err error) {
	if box, is := boxOf(roi); is {
		v.ROI, v.ROIMask = box, ""
	} else if roi != "" {
		v.ROI = framing.Box{}
		if v.ROIMask, err = framing.DrawFile(roi); err != nil {
			return unreadMask("roi", fmt.Errorf("%w; give x,y,w,h or the file of a mask", err))
		}
	}
	if info, err := os.Stat(ignore); err == nil && info.IsDir() {
		open.Ignore = ignore
	} else if ignore != "" {
		if v.Ignore, err = framing.DrawFile(ignore); err != nil {
			return unreadMask("ignore", err)
		}
	}
	return v.Check()
}

// unreadMask is the error about a mask that a flag names. What a file holds is no wrong usage.
func unreadMask(flag string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return command.Usagef("--%s: %w", flag, err)
	}
	return fmt.Errorf("--%s: %w", flag, err)
}

// boxOf reads x,y,w,h.
func boxOf(text string) (b framing.Box, is bool) {
	fields := strings.Split(text, ",")
	if len(fields) != 4 {
		return b, false
	}
	for i, to := range []*int{&b.X, &b.Y, &b.W, &b.H} {
		var err error
		if *to, err = strconv.Atoi(strings.TrimSpace(fields[i])); err != nil {
			return b, false
		}
	}
	return b, true
}

// augment is the value of --augment: changes and how far they go at most, with commas between. Those that are not named
// stay as they are.
type augment struct {
	c    *rdpp.Config
	text *string
}

func (a augment) String() string {
	if a.text == nil {
		return ""
	}
	return *a.text
}

func (a augment) Set(text string) error {
	*a.text = text
	if !numbersOf(text, map[string]*float64{"shift": &a.c.AugmentShift, "rotate": &a.c.AugmentRotate, "scale": &a.c.AugmentScale, "light": &a.c.Light}) {
		return errors.New("use shift=X, rotate=X, scale=X and light=X, with commas between, of which some may be left out")
	}
	return nil
}

func (a augment) Type() string { return "string" }

// numbersOf reads numbers with their names, with commas between, and says whether text has nothing else.
func numbersOf(text string, to map[string]*float64) bool {
	for part := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(strings.TrimSpace(part), "=")
		value, err := strconv.ParseFloat(number, 64)
		if to[name] == nil || err != nil {
			return false
		}
		*to[name] = value
	}
	return true
}

// align is the value of --align: how far a part may lie from where the training images have it.
type align struct {
	to   *framing.Align
	text *string
}

// alignDefault is what --align alone stands for; as of a switch, help does not tell it.
const alignDefault = "true"

func (a align) String() string {
	if a.text == nil {
		return ""
	}
	return *a.text
}

func (a align) Set(text string) error {
	*a.text, *a.to = text, framing.DefaultAlign()
	if text != alignDefault && !numbersOf(text, map[string]*float64{"shift": &a.to.Shift, "rotate": &a.to.Rotate}) {
		return errors.New("use --align alone, or --align=shift=X,rotate=X, of which one may be left out")
	}
	return nil
}

func (a align) Type() string { return "bool" }

// bitDepth is the value of --bit-depth: a number of bits, or auto.
type bitDepth struct{ bits *int }

func (b bitDepth) String() string {
	if b.bits == nil || *b.bits == rdpp.BitDepthAuto {
		return "auto"
	}
	return strconv.Itoa(*b.bits)
}

func (b bitDepth) Set(text string) error {
	*b.bits = rdpp.BitDepthAuto
	if text == "auto" {
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || !slices.Contains([]int{8, 10, 12, 14, 16}, n) {
		return errors.New("use auto, 8, 10, 12, 14 or 16")
	}
	*b.bits = n
	return nil
}

func (b bitDepth) Type() string { return "string" }

// tile is the value of --tile: a side, perhaps with a stride, or auto.
type tile struct{ side, stride *int }

func (t tile) String() string {
	switch {
	case t.side == nil || *t.side == 0:
		return ""
	case *t.side == rdpp.TileAuto:
		return "auto"
	case *t.stride == 0:
		return strconv.Itoa(*t.side)
	}
	return fmt.Sprintf("%d,%d", *t.side, *t.stride)
}

func (t tile) Set(text string) error {
	*t.side, *t.stride = rdpp.TileAuto, 0
	if text == "auto" {
		return nil
	}
	wrong := errors.New("use auto, a number of pixels, or two with a comma: 512,384")
	side, stride, both := strings.Cut(text, ",")
	var err error
	if *t.side, err = strconv.Atoi(side); err != nil || *t.side < 1 {
		return wrong
	}
	if !both {
		return nil
	}
	if *t.stride, err = strconv.Atoi(stride); err != nil || *t.stride < 1 {
		return wrong
	}
	return nil
}

func (t tile) Type() string { return "string" }

// setDevice resolves --device and sets --threads.
func setDevice(name string, threads int) (torch.Device, error) {
	device, err := torch.ParseDevice(name)
	switch {
	case errors.Is(err, torch.ErrNoDevice):
		return device, err
	case err != nil:
		return device, command.Usagef("--device: %w", err)
	}
	if err := torch.SetThreads(threads); err != nil {
		return device, command.Usagef("--threads: %w", err)
	}
	return device, nil
}

// dataSources resolves --category: to the folders of the data sets in --data or, of other sources, to the one's name.
func dataSources(source dataset.Source, categories []string) ([]dataset.Source, error) {
	if len(categories) == 0 {
		return []dataset.Source{source}, nil
	}
	for _, category := range categories {
		if category == "" || category != filepath.Base(category) || category == "." || category == ".." {
			return nil, command.Usagef("--category %q; give names of folders in --data", category)
		}
	}
	if source.Data == "" {
		if len(categories) > 1 {
			return nil, command.Usagef("--category names %d categories; give --good and --list one name", len(categories))
		}
		source.Category = categories[0]
		return []dataset.Source{source}, nil
	}
	if len(categories) == 1 && categories[0] == "all" {
		found, err := dataset.Categories(source.Data)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return []dataset.Source{source}, nil
		}
		categories = found
	}
	var sources []dataset.Source
	for _, category := range categories {
		sources = append(sources, dataset.Source{Data: filepath.Join(source.Data, category)})
	}
	return sources, nil
}
