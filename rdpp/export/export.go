// Package export turns a trained model into a file that other runtimes execute without rdpp: an ONNX model, or TorchScript
// for libtorch. Either holds everything from the image to the verdict: preprocessing, networks, anomaly map, blur,
// maximum and threshold. Batch norms are folded into the convolutions before them.
package export

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"rdpp/rdpp/framing"
	"rdpp/rdpp/weights"
)

// Input is what the exported model reads.
type Input int

// The inputs; B, and H and W of Pixels, are free at run time.
const (
	Pixels Input = iota // uint8, B x H x W x 3: RGB as decoded; scaled to 0..1, resized and normalised inside
	Planes              // float32, B x 3 x S x S: RGB in 0..1, resized and normalised by whoever calls
)

// Names of the inputs and outputs.
const (
	NamePixels     = "pixels"     // Pixels
	NamePlanes     = "images"     // Planes
	NameScore      = "score"      // float32, B
	NameMap        = "map"        // float32, B x S x S: the anomaly map
	NameNormalised = "normalised" // float32, B: 0 to 1, rises with the score, 0.5 at the threshold
	NameAnomalous  = "anomalous"  // bool, B: score > threshold
)

// normFloor is what the product of two squared lengths is raised to before it divides, as in csrc/losses.cpp.
const normFloor = 1e-16

// Terms is the number of maps that an anomaly map is the weighted sum of: one for each scale, finest first, then one for each
// scale's features averaged over 3 x 3 positions.
const Terms = 2 * scales

// Model is what is exported. Its methods do not change it; how many may run at once is for the tensors' Bytes to say.
type Model struct {
	// Tensors are the complete state dicts, as a model file has them, of type F32: where Bank, Flow, Cross and Spheres are nil, of
	// RD++ or RD, teacher ("encoder."), projection ("proj.", none for the RD baseline), bottleneck ("bn.") and student
	// ("decoder."). How many blocks of which kind there are is read off the names. Bytes is called more than once.
	Tensors   []weights.Source
	Bank      *Bank             // of PatchCore; nil: another method
	Flow      *Flow             // of FastFlow; nil: another method
	Cross     *Cross            // of CSFlow; nil: another method
	Spheres   *Spheres          // of CFA; nil: another method
	Size      int               // S, side of the network's input in pixels, a multiple of 32
	Mean, Std [3]float32        // of RGB in 0..1, for the normalisation
	Sigma     float64           // of the map's Gaussian, pixels
	Weights   [Terms]float64    // of the terms of the map; all zero: 1 for each scale
	Levels    [Terms]float64    // the term is log(1 + d/level) of its distances d, from LeastLevel on; 0: it is d
	Top       float64           // share of the map's pixels, the highest, whose mean is the score; 0: the maximum
	Frame     *framing.Frame    // of pictures of one size, of side Size, which alone the file then reads; nil: of any, whole and squashed
	Threshold float32           // a score above it is anomalous
	Producer  string            // program that exports, such as "rdpp"
	Version   string            // its version
	Metadata  map[string]string // travels in the file
}

// LeastLevel is far above the rounding errors of 1 - cos in float32, and far below what a student leaves.
const LeastLevel = 1e-5

func (m *Model) validate() error {
	switch {
	case m.Size < 32 || m.Size%32 != 0:
		return fmt.Errorf("an input side of %d pixels; use a multiple of 32", m.Size)
	case !(m.Sigma > 0 && m.Sigma <= float64(m.Size)):
		return fmt.Errorf("a map sigma of %v pixels; use more than 0 and at most %d", m.Sigma, m.Size)
	case !(slices.Min(m.Weights[:]) >= 0 && slices.Max(m.Weights[:]) <= math.MaxFloat32):
		return fmt.Errorf("weights %v of the map's terms; use 0 or more", m.Weights)
	case !(slices.Max(m.Levels[:]) <= math.MaxFloat32) ||
		slices.ContainsFunc(m.Levels[:], func(x float64) bool { return !(x == 0 || x >= LeastLevel) }):
		return fmt.Errorf("levels %v of the map's terms; use 0, or %v and more", m.Levels, LeastLevel)
	case !(m.Top >= 0 && m.Top <= 0.5):
		return fmt.Errorf("a score of the share %v of the map; use 0 to 0.5", m.Top)
	case !(min(m.Std[0], m.Std[1], m.Std[2]) > 0):
		return fmt.Errorf("standard deviations %v; all must be positive", m.Std)
	case m.Frame != nil && m.Frame.Side != m.Size:
		return fmt.Errorf("a frame of %d positions to a side; use one of %d", m.Frame.Side, m.Size)
	case m.Frame != nil && !m.Frame.All() && m.Bank != nil && (!m.Bank.OfMap || m.Bank.Neighbours > 1):
		return errors.New("a score of patches that leaves some of the picture out; use the map's maximum")
	case math.IsNaN(float64(m.Threshold)):
		return errors.New("the threshold is not a number")
	}
	switch {
	case m.Bank != nil:
		return m.Bank.validate()
	case m.Flow != nil:
		return m.Flow.validate()
	case m.Cross != nil:
		return m.Cross.validate(m)
	case m.Spheres != nil:
		return m.Spheres.validate()
	}
	return nil
}

// builder is a file in the making. Its methods add an operation and return the name of its result; dimension letters
// are those of package torch.
type builder interface {
	// images is the normalised input, B x 3 x S x S.
	images(in Input, m *Model) string
	conv(x string, c conv) string
	relu(x string) string
	// swish is x times its sigmoid.
	swish(x string) string
	sigmoid(x string) string
	// mean is that of all positions of a channel: B x C x 1 x 1.
	mean(x string) string
	// instanceNorm normalises each of the channels of each image and applies LeakyReLU.
	instanceNorm(x string, channels int, eps, slope float32) string
	// maxPool is the teacher's: kernel 3, stride 2, padding 1.
	maxPool(x string) string
	// averagePool is the mean over 3 x 3 positions of those that are there.
	averagePool(x string) string
	add(x, y string) string
	// concat joins channels.
	concat(x ...string) string
	// distance is 1 - cos over channels: B x 1 x H x W.
	distance(f, g string) string
	// times multiplies by a constant that fits x.
	times(x string, factor weights.Source) string
	// plus adds a constant that fits x.
	plus(x string, constant weights.Source) string
	// log1p is log(1 + x).
	log1p(x string) string
	exp(x string) string
	tanh(x string) string
	// layerNorm normalises all values of each image, and applies weight and bias of their shape.
	layerNorm(x string, weight, bias weights.Source) string
	// upsample is bilinear, from H x W of S/factor to S x S, corner pixels on corner pixels.
	upsample(x string, S, factor int) string
	// gather picks channels (axis 1), rows (axis 2) or columns (axis 3) by number.
	gather(x string, index weights.Source, axis int) string
	// finish makes the outputs out of the smoothed map, B x 1 x S x S, and of scores, B; "": the map's maxima.
	finish(x, score string, m *Model)

	// meanPool is the mean over 3 x 3 positions with zeros around the border.
	meanPool(x string) string
	// stretch is bilinear, to side x side, by the pixels' areas.
	stretch(x string, side int) string
	// nearest compares patches, B x D x side x side, with the rows of a bank.
	nearest(x string, bank rows, side int) compared
	// farthest is the largest distance of an image's patches, B.
	farthest(c compared) string
	// top is the mean of the n highest pixels of a map, B x 1 x S x S -> B.
	top(x string, n int) string
	// highest is the maximum of a map, B x 1 x S x S -> B.
	highest(x string) string
	// rarity is what Eq. 7 multiplies a score by, with b neighbours, B.
	rarity(c compared, bank rows, b int) string
	// nearness is the distance of patches, B x D x side x side, from the nearest row of a bank, times the share of that in the
	// softmin over the k nearest ones: B x 1 x side x side. So many patches of an image are compared with the bank at a time.
	nearness(x string, bank rows, side, k, atATime int) string
	// product multiplies element by element; y may be of B x C x 1 x 1.
	product(x, y string) string
	// leaky is LeakyReLU.
	leaky(x string, slope float32) string
	atan(x string) string
	// meanSquare is that of the channels of each position: B x 1 x H x W.
	meanSquare(x string) string
	// average is the mean of all of an image's values, B.
	average(x string) string
	// places picks positions by number, row by row, of planes B x 3 x h x w: B x 3 x S x S.
	places(x string, index weights.Source, S int) string
}

// conv is a convolution, one of each channel alone, or a transposed one, and the values that it needs.
type conv struct {
	name         string
	weight, bias weights.Source // out x in x h x w, depthwise out x 1 x h x w, or transposed in x out x h x w; out
	stride       int
	padding      int // of rows and columns alike
	transposed   bool
	depthwise    bool
}

// groups are the channels' that see each other alone.
func (c *conv) groups() int {
	if c.depthwise {
		return c.weight.Shape[0]
	}
	return 1
}

func (c *conv) kernel() []int { return c.weight.Shape[2:] }

// build adds all of the model's operations to b.
func (m *Model) build(in Input, b builder) error {
	if err := m.validate(); err != nil {
		return err
	}
	n := network{builder: b, tensors: map[string]weights.Source{}}
	for _, t := range m.Tensors {
		n.tensors[t.Name] = t
	}
	terms := m.Weights
	if terms == ([Terms]float64{}) {
		terms = [Terms]float64{1, 1, 1}
	}
	x := b.images(in, m)
	if index, some := m.places(in); some {
		x = b.places(x, index, m.Size)
	}
	if m.Cross != nil {
		m.buildCSFlow(&n, x)
		return n.err
	}
	f := n.teacher(x)
	if m.Bank != nil {
		m.buildPatchCore(&n, f)
		return n.err
	}
	if m.Flow != nil {
		m.buildFastFlow(&n, f)
		return n.err
	}
	if m.Spheres != nil {
		m.buildCFA(&n, f)
		return n.err
	}
	p := n.projection(f)
	z := n.bottleneck(p)
	g := n.student(z)
	anomaly, score := m.blank(b, n.smooth(n.anomalyMap(f, g, terms, m.Levels, m.Size), m.Size, m.Sigma)), ""
	if pixels := int(m.Top * float64(m.counted())); pixels >= 2 {
		score = b.top(anomaly, pixels)
	}
	b.finish(anomaly, score, m)
	return n.err
}
