// Package bench measures what a model costs on a device: time to the first prediction, latency, throughput and memory.
package bench

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// Options say what is measured, and for how long. Nil or zero means the defaults.
type Options struct {
	Batches   []int           // images in one pass of the networks, each size measured by itself; default 1
	Image     string          // file that is read and decoded for every prediction; default: Picture, which is in memory
	Count     int             // images per measurement, at most, but for a whole batch; default 1000
	Time      time.Duration   // per measurement, at most; default 10 s
	WarmUp    int             // images before each measurement, whole batches of them; default 10, negative: none
	MaxPixels int64           // largest image accepted, default imagefile.DefaultMaxPixels
	Precision torch.Precision // default torch.FP32
}

func (o *Options) complete() Options {
	var all Options
	if o != nil {
		all = *o
	}
	if len(all.Batches) == 0 {
		all.Batches = []int{1}
	}
	all.Count = cmp.Or(all.Count, 1000)
	all.Time = cmp.Or(all.Time, 10*time.Second)
	all.WarmUp = cmp.Or(all.WarmUp, 10)
	return all
}

// Report is what a model costs on a device. Memory is the whole process's, so that a report is of one model only in a
// process that opens no other.
type Report struct {
	Subject
	Device    string          `json:"device"` // "cpu" or "cuda:N"
	Precision torch.Precision `json:"precision"`
	OpenMS    float64         `json:"open_ms"`   // to read the model file and set the networks up
	FirstMS   float64         `json:"first_ms"`  // the first prediction, which also sets libtorch up
	OwnBatch  int             `json:"own_batch"` // images in one pass of infer image and infer eval where nobody says how many
	Speeds    []Speed         `json:"speeds"`    // one per batch size
	// PeakMemory is the process's largest resident set, and PeakDeviceMemory what tensors took on the device, 0 for the CPU.
	PeakMemory       int64 `json:"peak_memory_bytes"`
	PeakDeviceMemory int64 `json:"peak_device_memory_bytes"`
}

// Speed is what one batch size gives, from end to end: from file or Picture to verdict and regions, as infer image does it, with
// the next batch being read beside. A batch of 1 has a single client, so that its latency is an image's own.
type Speed struct {
	Batch      int     `json:"batch"`   // images in one pass at most
	Clients    int     `json:"clients"` // that ask at the same time
	Images     int     `json:"images"`  // measured
	Seconds    float64 `json:"seconds"`
	Throughput float64 `json:"images_per_second"`
	Latency    Latency `json:"latency_ms"` // of a call, from its start to its result
	Compute    Pass    `json:"compute"`    // alone
}

// Pass is what the networks give alone: from normalised images in memory to maps and scores in memory, one pass after the
// other, each of a whole batch.
type Pass struct {
	Images     int     `json:"images"` // measured
	Seconds    float64 `json:"seconds"`
	Throughput float64 `json:"images_per_second"`
	Latency    Latency `json:"latency_ms"` // of a pass
}

// Latency holds percentiles in milliseconds, each a duration that was measured (nearest rank). With fewer than 100 calls
// P99 is Max.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Model opens a model on a device and measures it.
func Model(ctx context.Context, file string, device torch.Device, opt *Options) (*Report, error) {
	o := opt.complete()
	subject, err := Look(file)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	d, err := rdpp.OpenDetector(file, &rdpp.DetectorOptions{Device: device, MaxPixels: o.MaxPixels, Precision: o.Precision})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if view := d.Info().Config.View; o.Image == "" && view.Placed() {
		return nil, setting.Refuse("image", nil, "the model looks at certain places of images, so name one")
	}
	r := &Report{Subject: *subject, Device: device.String(), Precision: cmp.Or(o.Precision, torch.FP32),
		OpenMS: milliseconds(time.Since(start)), OwnBatch: d.BatchSize()}

	decode := decoder(d, o.Image)
	start = time.Now()
	img, err := decode()
	if err == nil {
		_, err = d.Detect(img)
	}
	if err != nil {
		return nil, err
	}
	r.FirstMS = milliseconds(time.Since(start))
	for _, batch := range o.Batches {
		speed, err := measureBatch(ctx, d, batch, decode, img, &o)
		if err != nil {
			return nil, err
		}
		r.Speeds = append(r.Speeds, speed)
	}
	if r.PeakMemory, err = peakMemory(); err != nil {
		return nil, err
	}
	if device != torch.CPU {
		_, r.PeakDeviceMemory, err = torch.DeviceMemory(device)
	}
	return r, err
}

// measureBatch measures passes of a number of images: img again and again, then what decode makes, from end to end.
func measureBatch(ctx context.Context, d *rdpp.Detector, batch int, decode func() (*imagefile.Image, error), img *imagefile.Image, o *Options) (Speed, error) {
	input, err := d.Prepare(img)
	if err != nil {
		return Speed{}, err
	}
	inputs := slices.Repeat([]*rdpp.Input{input}, batch)
	alone := load{clients: 1, images: batch, call: func() error {
		_, err := d.Measure(inputs)
		return err
	}}
	pass, err := alone.measure(ctx, o)
	if err != nil {
		return Speed{}, err
	}
	whole := load{clients: 1, images: 1, call: func() error { // as a program does that has one image
		img, err := decode()
		if err == nil {
			_, err = d.Detect(img)
		}
		return err
	}}
	if batch > 1 {
		batcher := d.Batcher(batch)
		defer batcher.Close()
		whole.clients = batcher.InFlight()
		whole.call = func() error {
			_, _, err := batcher.Detect(ctx, decode)
			return err
		}
	}
	speed, err := whole.measure(ctx, o)
	speed.Batch = batch
	speed.Compute = Pass{Images: pass.Images, Seconds: pass.Seconds, Throughput: pass.Throughput, Latency: pass.Latency}
	return speed, err
}

// decoder returns what is judged: the file, read and decoded each time, or Picture.
func decoder(d *rdpp.Detector, file string) func() (*imagefile.Image, error) {
	if file != "" {
		opt := d.ImageOptions()
		return func() (*imagefile.Image, error) { return imagefile.DecodeFile(file, &opt) }
	}
	img := Picture()
	return func() (*imagefile.Image, error) { return img, nil }
}

// PictureSize is the side of Picture in pixels: photographs of MVTec AD have between 700 and 1024.
const PictureSize = 1024

// Picture is what is predicted where no image is given: a gradient with a fine pattern.
func Picture() *imagefile.Image {
	img := &imagefile.Image{W: PictureSize, H: PictureSize, Pix: make([]uint8, 3*PictureSize*PictureSize)}
	for y := range PictureSize {
		for x := range PictureSize {
			p := img.Pix[3*(y*PictureSize+x):]
			p[0], p[1], p[2] = uint8(x/4), uint8(y/4), uint8(x*y)
		}
	}
	return img
}

// load is how a detector is kept busy: clients that call at the same time, each for a number of images.
type load struct {
	clients, images int
	call            func() error
}

// measure warms up and then lets the clients call until o.Count images are done or o.Time is over. What has begun is
// finished and counted.
func (l *load) measure(ctx context.Context, o *Options) (Speed, error) {
	for done := 0; done < o.WarmUp; done += l.images {
		if err := l.once(ctx); err != nil {
			return Speed{}, err
		}
	}
	calls := make(chan struct{}, max(o.Count/l.images, 1))
	for range cap(calls) {
		calls <- struct{}{}
	}
	close(calls)

	var mu sync.Mutex // guards the two below
	var durations []time.Duration
	var failed error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working sync.WaitGroup
	start := time.Now()
	for range l.clients {
		working.Go(func() {
			for range calls {
				began := time.Now()
				err := l.once(ctx)
				took := time.Since(began)
				mu.Lock()
				if err == nil {
					durations = append(durations, took)
				} else if failed == nil {
					failed = err
					cancel()
				}
				mu.Unlock()
				if err != nil || time.Since(start) >= o.Time {
					return
				}
			}
		})
	}
	working.Wait()
	elapsed := time.Since(start)
	if failed != nil {
		return Speed{}, failed
	}
	s := Speed{Clients: l.clients, Images: len(durations) * l.images, Seconds: elapsed.Seconds(),
		Latency: percentiles(durations)}
	s.Throughput = float64(s.Images) / s.Seconds
	return s, nil
}

func (l *load) once(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.call()
}

// percentiles sorts the durations of at least one call.
func percentiles(durations []time.Duration) Latency {
	slices.Sort(durations)
	at := func(percent float64) float64 {
		rank := int(math.Ceil(percent / 100 * float64(len(durations))))
		return milliseconds(durations[max(rank, 1)-1])
	}
	return Latency{P50: at(50), P90: at(90), P95: at(95), P99: at(99), Max: at(100)}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// peakMemory is the largest resident set of this process so far, bytes.
func peakMemory() (int64, error) {
	const file, name = "/proc/self/status", "VmHWM"
	status, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("bench: peak memory: %w", err)
	}
	kB, err := strconv.ParseInt(strings.TrimSuffix(field(string(status), name), " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("bench: peak memory: %s has no %s in kB", file, name)
	}
	return kB << 10, nil
}
