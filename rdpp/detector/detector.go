// Package detector finds defects with a trained model.
package detector

import (
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"math"
	"slices"
	"sync"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/method"
	"rdpp/rdpp/metric"
	"rdpp/rdpp/modelfile"
	"rdpp/torch"
)

// Options say where and how a detector works. Nil or zero means the defaults.
type Options struct {
	Device    torch.Device // default the CPU
	MaxPixels int64        // largest image accepted, default imagefile.DefaultMaxPixels

	// Precision is default torch.FP32. Thresholds were set by scores of FP32: BF16's differ in the third digit. TF32 on a GPU
	// holds for the whole process, until a training in it sets another.
	Precision torch.Precision

	FalseAlarm     *float64 // rate of false alarms, instead of the model's own; needs a calibrated model
	Threshold      *float64 // of scores, instead of the model's own and of FalseAlarm's
	PixelThreshold *float64 // of the map; default Threshold where that is given, else the model's own

	Regions anomaly.RegionOptions // which regions are told of; default all, as far as they reach by anomaly.Calibration.Outline

	// MaxMemory bounds what judging an image may take in memory by Config.PredictionBytes' estimate: a model that would take more
	// is not opened. Default: what the machine has, and on a GPU, which says so itself, nothing.
	MaxMemory int64

	// Batch is how many images go through the networks in one pass where there are many, in Evaluate and a Batcher; default: what
	// suits device, image size and memory. On the CPU it changes no bit of a score, on a GPU it is to change 1e-5 at most.
	Batch int

	Log *slog.Logger // told what there is to know of the model file, and once of images that are too large for it, default slog.Default()
}

// Detector finds defects with a trained model. It is safe for concurrent use: one goroutine owns the device and
// works through the images in turn.
type Detector struct {
	model       *modelfile.Model
	worker      *torch.Worker
	calibration anomaly.Calibration // in force
	images      imagefile.Options
	log         *slog.Logger
	tooLarge    sync.Once // an image that loses too much was told of
	closed      bool      // known to the worker's goroutine alone
}

// Result is what a detector says about one image.
type Result struct {
	anomaly.Verdict
	Width   int             // of the image, pixels
	Height  int             //
	Regions []metric.Region // in the image's pixels, as Prediction has them
	Map     []float32       // the anomaly map, MapH x MapW, over Frame.Area of the image; 0 where Frame leaves it out
	MapW    int             // S; of an image in tiles as many as it has pixels at their scale, and tiling.MaxCells in all at most
	MapH    int             //
	Size    int             // S, side of the network's input
	Frame   *framing.Frame  // what of the image was looked at
	// Warnings say in words what tells that the image was not taken, or stored, as the training images were: another range
	// of values, a mean brightness less than half of the darkest one's or more than twice the brightest one's; and which masks
	// of what counts were scaled to it. nil: nothing.
	Warnings []string

	Look dataset.Look // of the image

	// Levels say which pixels of Map are outlined: those above theirs, which is +Inf outside the regions.
	Levels []float64
	blur   float64 // of the map, see metric.Outline
}

// Over is a result's map over the whole image, as framing.Spread makes it: the map itself where that covers the image.
type Over struct {
	Map    []float32 // H x W, row-major; 0 where the model does not look at the image
	Levels []float64 // of Map, as Result has them
	H, W   int
	Blur   float64 // of Map, see metric.Outline
}

// Over is the map, of a result that was judged, over the whole image.
func (r *Result) Over() (o Over) {
	o.Map, o.H, o.W = framing.Spread(r.Frame, r.Map, 0)
	o.Levels, _, _ = framing.Spread(r.Frame, r.Levels, math.Inf(1))
	o.Blur = r.blur * r.Frame.Scale()
	return o
}

// Looked is a result's map over what the model looks at of the image alone, which regions are made of.
type Looked struct {
	At   image.Rectangle // of the image, pixels
	Map  []float32       // H x W, row-major
	H, W int
	Blur float64 // of Map, see metric.Outline
}

// Looked is the map, of a result that was judged, over what the model looks at.
func (r *Result) Looked() Looked {
	f := r.Frame
	return Looked{f.From, framing.Inner(f, r.Map), f.To.Dy(), f.To.Dx(), r.blur * f.Cell}
}

// Prediction is the result without its map.
func (r *Result) Prediction(image string) anomaly.Prediction {
	p := anomaly.Predicted(image, r.Verdict, r.Width, r.Height, r.Regions, r.Warnings)
	if r.Frame != nil && r.Frame.Pose.Found() {
		p.Pose = &r.Frame.Pose
	}
	return p
}

// Open reads a model file.
func Open(path string, opt *Options) (*Detector, error) {
	if opt == nil {
		opt = &Options{}
	}
	log := opt.Log
	if log == nil {
		log = slog.Default()
	}
	d := &Detector{worker: torch.NewWorker(), images: imagefile.Options{MaxPixels: opt.MaxPixels}, log: log}
	precision, err := torch.ParsePrecision(string(opt.Precision))
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("detector: %w", err)
	}
	err = d.worker.Do(func() (err error) {
		if precision == torch.TF32 {
			if err := torch.SetArithmetic(true, false); err != nil {
				return fmt.Errorf("detector: %w", err)
			}
		}
		d.model, err = modelfile.Load(path, modelfile.LoadOptions{Device: opt.Device, MaxMemory: opt.MaxMemory, Log: opt.Log})
		if err != nil {
			return err
		}
		d.images.BitDepth = d.model.Info.Config.BitDepth
		d.model.Precision, d.model.Batch = precision, opt.Batch
		if err := d.model.Net.Settle(); err != nil {
			return err
		}
		return d.model.Release()
	})
	if err != nil {
		d.Close()
		return nil, err
	}
	d.calibration, err = d.model.Info.Calibration.Override(opt.FalseAlarm, opt.Threshold, opt.PixelThreshold)
	if err == nil {
		d.calibration, err = d.calibration.Choose(opt.Regions)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close frees the model. It is idempotent; calls that wait or come later get torch.ErrClosed.
func (d *Detector) Close() {
	// The error says that the worker is closed, and then the model is too.
	_ = d.worker.Do(func() error {
		if d.model != nil {
			d.model.Close()
		}
		d.closed = true
		return nil
	})
	d.worker.Close()
}

// do runs f on the worker, and returns torch.ErrClosed where Close came first.
func (d *Detector) do(f func() error) error {
	return d.worker.Do(func() error {
		if d.closed {
			return torch.ErrClosed
		}
		return f()
	})
}

// Info describes the model.
func (d *Detector) Info() modelfile.Info { return d.model.Info }

// Digest is the SHA-256 that the model's file holds of itself; "" where it is of a version that stored none.
func (d *Detector) Digest() string { return d.model.Digest }

// BatchSize is how many images go through the networks in one pass where there are many: Options.Batch, or what takes its place.
func (d *Detector) BatchSize() int { return d.model.BatchSize() }

// ImageOptions are those to decode the images with that Detect, DetectBatch and Prepare are given.
func (d *Detector) ImageOptions() imagefile.Options { return d.images }

// Calibration is what verdicts are made by: the model's own, or what Options put in its place.
func (d *Detector) Calibration() anomaly.Calibration { return d.calibration }

// Threshold is the score above which an image is anomalous.
func (d *Detector) Threshold() float64 { return d.calibration.Threshold }

// DetectFile reads and scores an image file.
func (d *Detector) DetectFile(path string) (*Result, *imagefile.Image, error) {
	img, err := imagefile.DecodeFile(path, &d.images)
	if err != nil {
		return nil, nil, err
	}
	r, err := d.Detect(img)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%s)", err, path)
	}
	return r, img, nil
}

// DetectBytes scores an encoded image.
func (d *Detector) DetectBytes(data []byte) (*Result, *imagefile.Image, error) {
	img, err := imagefile.Decode(data, &d.images)
	if err != nil {
		return nil, nil, err
	}
	r, err := d.Detect(img)
	return r, img, err
}

// DetectIgnoring scores an image but for what a mask of its own draws, see PrepareIgnoring.
func (d *Detector) DetectIgnoring(img *imagefile.Image, ignore *imagefile.Mask) (*Result, error) {
	input, err := d.PrepareIgnoring(img, ignore)
	if err != nil {
		return nil, err
	}
	results, err := d.Measure([]*Input{input})
	if err != nil {
		return nil, err
	}
	return results[0], results[0].Judge(&d.calibration)
}

// Detect scores an image.
func (d *Detector) Detect(img *imagefile.Image) (*Result, error) {
	results, err := d.DetectBatch([]*imagefile.Image{img})
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// DetectBatch scores images in one pass of the networks; results are in the order of the images. On the CPU each is to the bit
// what Detect gives, on a GPU it is to be within 1e-5 of it.
func (d *Detector) DetectBatch(images []*imagefile.Image) ([]*Result, error) {
	inputs := make([]*Input, len(images))
	errs := make([]error, len(images))
	prepare := func(i int) { inputs[i], errs[i] = d.Prepare(images[i]) }
	if len(images) == 1 {
		prepare(0) // another thread would take longer to wake than it saves
	} else {
		var preparing sync.WaitGroup
		for i := range images {
			preparing.Go(func() { prepare(i) })
		}
		preparing.Wait()
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	results, err := d.Measure(inputs)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if err := r.Judge(&d.calibration); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// Input is an image as a detector's networks see it: smaller than a large image, and made without the device. Of a model that
// looks at tiles it is the image itself, which must not change until it has been measured. It can be used with the detector
// that made it, any number of times.
type Input struct {
	view     modelfile.View
	w, h     int // of the image, pixels
	look     dataset.Look
	warnings []string
}

// Prepare is the first of the three steps of Detect: it resizes and normalises an image, in the caller's goroutine.
func (d *Detector) Prepare(img *imagefile.Image) (*Input, error) { return d.PrepareIgnoring(img, nil) }

// PrepareIgnoring is Prepare where nothing under a mask of the image's own is to be scored, beside what the model itself
// leaves out; nil: no mask. A mask of another size is scaled, which is a warning. Errors about mask and view are
// framing.ErrShape and its like.
func (d *Detector) PrepareIgnoring(img *imagefile.Image, ignore *imagefile.Mask) (*Input, error) {
	if img.W < 1 || img.H < 1 || len(img.Pix) != img.W*img.H*3 {
		return nil, fmt.Errorf("detector: an image of %d x %d pixels must have %d bytes, got %d", img.W, img.H,
			3*img.W*img.H, len(img.Pix))
	}
	view, err := d.model.View(img, ignore)
	if err != nil {
		return nil, fmt.Errorf("detector: %w", err)
	}
	if text := d.model.TooLarge(img.W, img.H); text != "" {
		d.tooLarge.Do(func() { d.log.Warn(text) })
	}
	in := &Input{view: view, w: img.W, h: img.H, look: dataset.LookAt(img)}
	in.warnings = d.model.Info.Unlike(in.look)
	if frame := view.Frame; frame != nil {
		in.warnings = slices.Concat(in.warnings, d.model.Info.Displaced(img.W, img.H), frame.Pose.Warnings(), frame.Notes)
	}
	return in, nil
}

// Try takes a grey picture through the networks, so that a model that cannot judge is found out, and one that can has set up
// all it needs. What the model looks at plays no part in it.
func (d *Detector) Try() error {
	config := &d.model.Info.Config
	S := config.ImageSize
	side := S
	if _, err := method.TopOf(config.Learned()); err != nil && config.Tiled() { // which takes no less than a tile
		side = config.Tile
	}
	grey := &imagefile.Image{W: side, H: side, Pix: slices.Repeat([]byte{128}, 3*side*side)}
	in := &Input{w: side, h: side}
	if config.Tiled() {
		in.view.Image = grey
	} else {
		framer, err := framing.New(framing.View{}, S)
		if err != nil {
			return err
		}
		if in.view.Frame, err = framer.Frame(S, S, nil); err != nil {
			return err
		}
		in.view.Planes = make([]float32, 3*S*S)
		dataset.Resize(in.view.Planes, grey, S)
		config.Norm().Apply(in.view.Planes, in.view.Planes, S)
	}
	results, err := d.Measure([]*Input{in})
	if err != nil {
		return err
	}
	return results[0].Judge(&d.calibration)
}

// Measure is MeasureEach for those who want all results or none: the first error is returned.
func (d *Detector) Measure(inputs []*Input) ([]*Result, error) {
	results, errs := d.MeasureEach(inputs)
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

// MeasureEach is the second step of Detect, for a batch: one pass of the networks, on the device. The results, in the order of
// the inputs, hold Map, Score, Warnings and the sizes; Judge fills in the rest. An image that fails has an error instead.
func (d *Detector) MeasureEach(inputs []*Input) ([]*Result, []error) {
	if len(inputs) == 0 {
		return nil, nil
	}
	views := make([]modelfile.View, len(inputs))
	for i, in := range inputs {
		views[i] = in.view
	}
	var outcomes []modelfile.Outcome
	err := d.do(func() error {
		outcomes = d.model.PredictViews(views)
		return nil
	})
	results, errs := make([]*Result, len(inputs)), make([]error, len(inputs))
	for i, in := range inputs {
		o := modelfile.Outcome{Err: err}
		if err == nil {
			o = outcomes[i]
		}
		if o.Err != nil {
			errs[i] = fmt.Errorf("detector: detect: %w", o.Err)
			continue
		}
		results[i] = &Result{Verdict: anomaly.Verdict{Score: o.Score}, Map: o.Map, MapW: o.W, MapH: o.H, Size: d.model.Info.Config.ImageSize,
			Frame: o.Frame, Width: in.w, Height: in.h, Look: in.look, Warnings: in.warnings, blur: d.model.Info.Config.Blur()}
	}
	return results, errs
}

// Judge is the third step of Detect: it fills in what follows from score and map by a calibration, such as the detector's
// own or one that Override made of it. A result can be judged again.
func (r *Result) Judge(c *anomaly.Calibration) (err error) {
	r.Verdict = c.Judge(r.Score)
	r.Regions, r.Levels, err = modelfile.Outlined(c.Outline(r.Verdict, r.blur), r.Map, r.Frame)
	if err != nil {
		return fmt.Errorf("detector: detect: %w", err)
	}
	return nil
}

// Evaluate scores the test images of a data set and measures the result.
func (d *Detector) Evaluate(ctx context.Context, set *dataset.Set) (e *evaluation.Evaluation, err error) {
	err = d.do(func() (err error) {
		cache := d.Cache()
		e, err = evaluation.Evaluate(ctx, d.model, set.Test, set.HasMasks, &d.calibration, cache)
		if err == nil {
			evaluation.WarnTooLarge(d.log, d.model, set.Test, cache)
		}
		return err
	})
	return e, err
}

// WriteReport writes the HTML report of an evaluation to a file, which is replaced when it is whole.
func (d *Detector) WriteReport(ctx context.Context, path string, set *dataset.Set, e *evaluation.Evaluation, opt *evaluation.ReportOptions) error {
	o := evaluation.ReportOptions{}
	if opt != nil {
		o = *opt
	}
	o.MaxPixels, o.Threshold, o.Cache = d.images.MaxPixels, &d.calibration, d.Cache()
	return d.do(func() error { return evaluation.WriteReport(ctx, d.model, path, set, e, o) })
}

// Cache reads images as the model looks at them, and keeps none.
func (d *Detector) Cache() *dataset.Cache {
	config := &d.model.Info.Config
	return dataset.NewCache(dataset.CacheOptions{Size: config.ImageSize, MaxBytes: -1, MaxPixels: d.images.MaxPixels,
		BitDepth: d.images.BitDepth, Whole: config.Tiled(), Framer: d.model.Framer})
}
