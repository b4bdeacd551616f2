// Package method is the contract between the ways of finding anomalies and the house they live in. A method is its
// mathematics: networks or a memory, what a batch teaches them, what an image's map and score are. Time is the engine's
// (package engine): passes, checkpoints, interruptions, folds, thresholds, evaluation, selection. What a method needs of the
// other is in its arguments; it opens no file, knows no folder and reads no clock.
//
// Learned methods (reverse distillation, flows) and those that remember (PatchCore) have the same four parts:
//
//	Method    its settings, immutable, which make nets and learners
//	Net       what predicts: a teacher that the house finds, and the method's own tensors
//	Learner   what makes a net of images, a batch at a time, and can be put down and taken up again
//	Plan      what it wants of the engine: how many passes, how large batches, whether images are lit and disturbed
package method

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/export"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/tiling"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Method is a way of finding anomalies with all its settings. It is immutable, and safe for concurrent use.
type Method interface {
	// Check says which of its settings cannot be, by a setting.Error with the setting's name in JSON.
	Check() error

	// New returns a net with fresh weights, its teacher's included. A net that is to be loaded is blank.
	New(o Options) (Net, error)

	// Load fills a net that New has made blank with the tensors and facts of a model file, teacher included. No shape is
	// believed before it is checked. A missing, mis-shaped or left-over tensor is an error.
	Load(n Net, f *weights.File, facts anomaly.Facts) error

	// Learner returns what teaches the net. Begin or Restore comes next.
	Learner(n Net, o LearnerOptions) (Learner, error)

	// Plan is what the engine does for the method; images is how many there are to learn from: of the model's own training,
	// then of the trainings for the calibration, if any. What cannot be learned from so many is an error.
	Plan(images []int) (Plan, error)

	// MostScore is the highest score and pixel that a net with these facts can give, +Inf where there is no bound. Facts that
	// cannot be are an error. No score is negative.
	MostScore(facts anomaly.Facts) (float64, error)

	// PredictionBytes estimates the memory that a net takes which judges so many images at once, rather too high than too low.
	// fileBytes is the size of its model file.
	PredictionBytes(fileBytes int64, images int) int64
}

// Mapped is a Method of which an image's score can follow from its map alone.
type Mapped interface {
	// Top is the share of a map's values, the highest, whose mean is the score, or their maximum where that share is of
	// less than two. An error, a setting.Error, where the score is made of more than the map.
	Top() (share float64, err error)
}

// TopOf is m's Top, of any method. Where parts of a picture do not count, its score is made of the map's rest; of a picture in
// tiles it is made of the blended map, and where there is an error it is the highest of the tiles' scores.
func TopOf(m Method) (share float64, err error) {
	if mapped, is := m.(Mapped); is {
		return mapped.Top()
	}
	return 0, errors.New("method: scores that are made of more than the map can leave nothing of a picture out")
}

// Sized is a Method whose settings alone say how large its own tensors are, and could say anything. Those of the others follow
// from the backbone, or have the shapes that their file has.
type Sized interface {
	// WeightBytes is what a model file holds of them, the teacher's aside. Check refuses more than MaxModelBytes.
	WeightBytes() int64
}

// MaxModelBytes is the largest model file that is opened, several times what one of the largest backbone has by default.
const MaxModelBytes = 4 << 30

// Older is a Method of which programs of the first format of model files know.
type Older interface {
	// Older says whether those score as a net of these settings does.
	Older() bool
}

// Later is a Method which programs know that do not know all of its ways to score.
type Later interface {
	// Later says whether a net of these settings scores in a way that came after the method.
	Later() bool
}

// Farsighted is a Method that reads a teacher's coarsest features alone. Its backbone may be any of torch.Backbones; the others
// know the layers of torch.Architectures.
type Farsighted interface {
	// ReadsCoarsest does nothing.
	ReadsCoarsest()
}

// Choosy is a Method in which some of the settings that all have can be but a few things.
type Choosy interface {
	// Fixed lists them.
	Fixed() []Fixed
}

// Fixed is a setting that a method takes no other values of than Values.
type Fixed struct {
	Setting string   // its name in JSON
	Values  []string // the first of which is the method's own
	Why     string   // a clause about the method: "takes one pass over the images"
}

// Usual is a Method with defaults of its own for settings that all have.
type Usual interface {
	// Usual changes s, the first method's defaults or, where released, the released protocol, to the method's own.
	Usual(s *Settings, released bool)
}

// Looker is a Method that learns from what a detector looks at. Where images are cut into tiles, others learn from tiles that
// are drawn anew in every pass.
type Looker interface {
	// Most is how many tiles there can be to learn from; of more, so many are drawn.
	Most() int
}

// Continuer is a Method whose nets can go on learning from other images than those that they have learned from.
type Continuer interface {
	// Lasting lists the settings, by their names in JSON, that a net that goes on has to have as before.
	Lasting() []string
}

// Spreader is a Method of which several processes can learn one model together: LearnerOptions.Group. They call the same
// functions of their learners in the same order: Begin or, of rank 0 alone, Restore; Follow; then Step. What is read or
// written, State, Finish and Predict, is rank 0's alone. Losses are those of the whole batch, in all processes.
type Spreader interface {
	// Follow makes a learner what rank 0's is. Every process calls it before the first step.
	Follow(l Learner) error
}

// Options say how a net is made.
type Options struct {
	Device torch.Device
	Blank  bool // all weights are about to be loaded
}

// LearnerOptions say how a net learns.
type LearnerOptions struct {
	Precision torch.Precision // of what is computed with gradients; what a method must not round it keeps in float32
	Images    int             // there are to learn from
	Continued bool            // the net, teacher included, has learned from other images before; of a Continuer alone
	Group     *torch.Group    // of a Spreader, the processes that learn with this one, to which batches are dealt out; nil: none
}

// Net is what a training leads to and a detector uses. It belongs to one goroutine.
type Net interface {
	// Predict maps normalised images x, B x 3 x S x S in float32 or bfloat16, to anomaly maps, B x S x S, and image scores, B,
	// in float32. An image's score need not be its map's maximum. The caller closes both. Settle comes before.
	Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error)

	// Settle makes the net ready to predict after its State was written or learned.
	Settle() error

	// Backbone is the teacher, which the engine fills with weights.
	Backbone() torch.Teacher

	// State lists what a model file holds, teacher included. Shapes may depend on the images.
	State() []weights.Source

	// Facts are what is to be known beside that.
	Facts() anomaly.Facts

	// Close frees it. It is idempotent.
	Close()
}

// Embedder is a Net whose images have an embedding to compare, of any shape, for the report's compactness.
type Embedder interface {
	// Embed maps a normalised image, 1 x 3 x S x S, to it.
	Embed(x *torch.Tensor) (*torch.Tensor, error)
}

// Releaser is a Net that needs less memory where it will predict alone.
type Releaser interface {
	// Release lets go of what only learning, State and Export need, which are not called from then on. Settle comes before, and
	// all images that follow are of one type.
	Release() error
}

// Grower is a Net of which a learner makes one with a larger State.
type Grower interface {
	// Growth is by how many bytes State can at most become larger than it is.
	Growth() (int64, error)
}

// Exporter is a Net that can be written down as ONNX and TorchScript.
type Exporter interface {
	// Export fills in what is the net's: tensors, and how a map is made of features.
	Export(m *export.Model)
}

// LearnerOf learns from batches. It belongs to one goroutine. Given the same batches in the same order it leads to
// the same to the bit, whether or not it was put down (State) and taken up again (Restore) between two steps.
type LearnerOf[Batch any] interface {
	// Step learns from a batch, which is its own until it returns. step counts from 0 over all passes, of is how many there
	// will be; a run that is resumed for more passes counts on. The first of the losses is what has to stay finite.
	Step(b Batch, step, of int) (anomaly.Losses, error)

	// State lists what the next step depends on, what has been learned included, under names that Restore knows. The sources
	// can be read until the scope is closed or the next step.
	State(s *torch.Scope) ([]weights.Source, error)

	// Growth is by how many bytes State can at most become larger than it is.
	Growth() (int64, error)

	// Restore makes the learner what it was when State was written to f.
	Restore(f *weights.File, facts anomaly.Facts) error

	// Close frees what the learner has made, but for a net that it was given. It is idempotent.
	Close()
}

// Learner makes a net of the images of a data set.
type Learner interface {
	LearnerOf[*dataset.Batch]

	// Begin is called before the first step of a run that goes on from no checkpoint, when the teacher is there.
	Begin(ctx context.Context, images Images) error

	// Finish returns the net that has been learned so far, settled: the last weights, their average, or a memory cut down to
	// its core. It belongs to the learner, as does New's. Learning may go on afterwards, and Finish be called again, unless
	// last is true: then what only learning needs is freed.
	Finish(ctx context.Context, images Images, last bool) (Net, error)
}

// Images hands at most most of the images that are trained on, evenly spread, to visit, each as a detector would see it: 1 x
// 3 x S x S in float32 on the net's device, normalised and without made-up light or defects, and the frame that says which
// of its positions count. most 0 stands for all. The tensor is closed after visit. Reading ahead is the house's.
type Images func(ctx context.Context, most int, visit func(x *torch.Tensor, frame *framing.Frame) error) error

// Plan is what a method wants of the engine.
type Plan struct {
	Passes int // over the images
	Batch  int // images per step

	Noise  dataset.NoiseOptions // the noisy images of a batch; Off: none
	Motion dataset.Motion       // how parts are moved; zero: they are where the images have them

	Light dataset.Light // how the light on images is varied; zero: a batch's clean images are as a detector sees them

	// TryPrecisions says that steps are to be timed in fp32 and bf16 where the precision is to be chosen. Else it is fp32.
	TryPrecisions bool
}

// Settings are those that every method has. They travel in the model file.
type Settings struct {
	Arch      string `json:"arch"`       // backbone, one of torch.Architectures; of a Farsighted method one of torch.Backbones
	Method    string `json:"method"`     // one of config.Methods
	ImageSize int    `json:"image_size"` // side S of the network input in pixels, a multiple of 32

	BitDepth int `json:"bit_depth"` // bits that the values of 16-bit images use, 8 to 16, or BitDepthAuto, which the start of training replaces

	Tile           int `json:"tile,omitempty"`            // side N of the tiles that images are cut into, pixels of the image, at least ImageSize; 0: none; or TileAuto, which the start of training replaces
	TileStride     int `json:"tile_stride,omitempty"`     // pixels from one tile to the next at most, a quarter to seven eighths of Tile; 0: three quarters
	SmallestDefect int `json:"smallest_defect,omitempty"` // diameter that is to be found, pixels of the image: TileAuto goes by it, and training says where it is missed; 0: not told

	Mean [3]float32 `json:"mean"` // subtracted from RGB in 0..1
	Std  [3]float32 `json:"std"`  // divided by

	Updates   int    `json:"updates"`   // of the weights, to the end of a pass over the images; 0: Epochs alone count
	Epochs    int    `json:"epochs"`    // passes over the images; with Updates the most, which end them earlier, and once training has begun those that the method's Plan takes
	Batch     int    `json:"batch"`     // images per step
	Select    string `json:"select"`    // SelectLast or SelectBestOnTest
	Precision string `json:"precision"` // of training, one of torch.Precisions, or PrecisionAuto
	Seed      uint64 `json:"seed"`      // of fresh weights, order, noise and shuffles

	MapSigma float64 `json:"map_sigma"` // Gaussian that smooths the anomaly map, pixels of the network input

	Calibration float64 `json:"calibration"` // share of the good images that is held out to calibrate the threshold; 0: none
	FalseAlarm  float64 `json:"false_alarm"` // share of good images that the threshold lets be called anomalous

	Patience int `json:"patience,omitempty"` // looks at made-up defects on held-out images without a gain after which training stops early; 0: it does not
}

// Which epoch becomes the model.
const (
	SelectLast       = "last"
	SelectBestOnTest = "best-on-test" // the released protocol; it chooses on the answer
)

// BitDepthAuto stands for the number of bits that the training images use.
const BitDepthAuto = 0

// TileAuto stands for the side of tiles in which SmallestDefect is autoPixels of the network's pixels wide, or for none where images
// are no larger than that.
const TileAuto = -1

// autoPixels is the distance of two positions of layer2 in the network's input. It is a rule of thumb, which the spots that
// training puts on images check.
const autoPixels = 8

// PrecisionAuto stands for bf16 where the device has instructions for it and some steps show that it is faster, else for
// fp32. What was chosen takes its place before the first step.
const PrecisionAuto = "auto"

// The largest values that Check lets pass: far above use, low enough that no size overflows and that a model file cannot ask for
// minutes and all memory.
const (
	MaxImageSize = 2048
	MaxMapSigma  = 64
	leastStd     = 1e-5 // below that of networks that read 16 bits as they are
	MaxBatch     = 4096
	MaxUpdates   = 1_000_000_000
	MaxTile      = 1 << 14
)

// Check says which value cannot be, by a setting.Error. Whether there is such a method is not its business.
func (c *Settings) Check() error {
	switch {
	case !slices.Contains(torch.Backbones(), c.Arch):
		return setting.Refuse("arch", c.Arch, "use one of %v", torch.Backbones())
	case c.ImageSize < 32 || c.ImageSize > MaxImageSize || c.ImageSize%32 != 0:
		return setting.Refuse("image_size", c.ImageSize, "use a multiple of 32 from 32 to %d", MaxImageSize)
	case c.SmallestDefect < 0 || c.SmallestDefect > MaxTile:
		return setting.Refuse("smallest_defect", c.SmallestDefect, "use pixels of the images, 1 to %d", MaxTile)
	case c.Tile == TileAuto && c.SmallestDefect == 0:
		return setting.Refuse("tile", "auto", "give {smallest_defect}, by which it chooses")
	case c.Tile <= 0 && c.TileStride != 0:
		return setting.Refuse("tile_stride", c.TileStride, "a stride goes with a {tile} of pixels")
	case c.Tile != 0 && c.Tile != TileAuto && (c.Tile < c.ImageSize || c.Tile > MaxTile):
		return setting.Refuse("tile", c.Tile, "use {image_size}, which is %d, to %d, or auto", c.ImageSize, MaxTile)
	case c.TileStride != 0 && (c.TileStride < c.Tile/4 || c.TileStride > c.Tile*7/8):
		return setting.Refuse("tile_stride", c.TileStride, "use a stride of a quarter to seven eighths of the tile, %d to %d", c.Tile/4, c.Tile*7/8)
	case c.BitDepth != BitDepthAuto && (c.BitDepth < 8 || c.BitDepth > 16):
		return setting.Refuse("bit_depth", c.BitDepth, "use 8, 10, 12, 14 or 16, or auto")
	case !(min(c.Std[0], c.Std[1], c.Std[2]) >= leastStd && max(c.Std[0], c.Std[1], c.Std[2]) <= 1):
		return setting.Refuse("std", c.Std, "colours are 0 to 1: all three must be positive, %v to 1", leastStd)
	case !(min(c.Mean[0], c.Mean[1], c.Mean[2]) >= 0 && max(c.Mean[0], c.Mean[1], c.Mean[2]) <= 1):
		return setting.Refuse("mean", c.Mean, "colours are 0 to 1, and so are their means")
	case c.Updates < 0 || c.Updates > MaxUpdates:
		return setting.Refuse("updates", c.Updates, "use 1 to %d, or 0 to go by {epochs}", MaxUpdates)
	case c.Epochs < 1:
		return setting.Refuse("epochs", c.Epochs, "use at least 1")
	case c.Patience < 0:
		return setting.Refuse("patience", c.Patience, "use a number of looks, or 0 not to stop early")
	case c.Batch < 1 || c.Batch > MaxBatch:
		return setting.Refuse("batch", c.Batch, "use 1 to %d", MaxBatch)
	case c.Select != SelectLast && c.Select != SelectBestOnTest:
		return setting.Refuse("select", c.Select, "use %s or %s", SelectLast, SelectBestOnTest)
	case c.Precision != PrecisionAuto && !slices.Contains(torch.Precisions(), c.Precision):
		return setting.Refuse("precision", c.Precision, "use auto, fp32, tf32 or bf16")
	case !(c.Calibration >= 0 && c.Calibration <= 0.3):
		return setting.Refuse("calibration", c.Calibration, "use a share of the good images, 0 to 0.3")
	case !(c.FalseAlarm >= 0 && c.FalseAlarm < 1) || c.Calibration > 0 && c.FalseAlarm == 0:
		return setting.Refuse("false_alarm", c.FalseAlarm, "use a share of the good images, above 0 and below 1")
	case !(c.MapSigma > 0 && c.MapSigma*4 < float64(c.ImageSize) && c.MapSigma <= MaxMapSigma):
		return setting.Refuse("map_sigma", c.MapSigma, "use more than 0, at most %d, and less than a quarter of {image_size}, which is %d", MaxMapSigma, c.ImageSize)
	}
	return nil
}

// Tiled says whether images are cut into tiles.
func (c *Settings) Tiled() bool { return c.Tile != 0 }

// Tiling says how images are cut, where they are.
func (c *Settings) Tiling() tiling.Options {
	return tiling.Options{Tile: c.Tile, Stride: c.TileStride, Size: c.ImageSize}
}

// SettleTile replaces TileAuto by a side, or 0, for images that are at most as long as the longest, and the stride by what it
// stands for. Tiles that are larger than every image are a setting.Error.
func (c *Settings) SettleTile(longest int) error {
	if c.Tile == TileAuto {
		if c.Tile = max(c.ImageSize, c.ImageSize*c.SmallestDefect/autoPixels); c.Tile >= longest {
			c.Tile = 0
		}
	}
	if c.Tile > longest {
		return setting.Refuse("tile", c.Tile, "no image is longer than %d pixels: leave it out, or use less", longest)
	}
	if c.Tile > 0 && c.TileStride == 0 {
		c.TileStride = tiling.DefaultStride(c.Tile)
	}
	return c.Check()
}

// Norm is the normalisation of images.
func (c *Settings) Norm() dataset.Norm { return dataset.Norm{Mean: c.Mean, Std: c.Std} }

// Blur is the radius at about half its height, in pixels of the map, of the hill that a defect of one pixel raises in the map: the
// map's Gaussian widens half a position of the coarsest features.
func (c *Settings) Blur() float64 {
	const halfWidth = 1.1774 // sqrt(2 log 2), of a Gaussian of deviation 1
	_, position := torch.Coarsest(c.Arch)
	return math.Hypot(float64(position)/2, halfWidth*c.MapSigma)
}

// Complete fills in what files of before a setting was there lack.
func (c *Settings) Complete() {
	if c.BitDepth == 0 {
		c.BitDepth = 16
	}
}

// Positive says whether all values are, and finite. A NaN makes minimum and maximum NaN, and so the answer false.
func Positive(values ...float64) bool {
	return slices.Min(values) > 0 && slices.Max(values) <= math.MaxFloat64
}

// Cosine is half a wave from one value to another; way is 0 at the first and 1 at the second.
func Cosine(from, to, way float64) float64 { return to + (from-to)*(1+math.Cos(math.Pi*way))/2 }

// SeedOf gives every part of a training a seed of its own.
func SeedOf(part string, seed uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s%d", part, seed)
	return h.Sum64()
}
