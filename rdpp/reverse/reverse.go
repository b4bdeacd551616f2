package reverse

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/export"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/state"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// reversed is the method, RD++ or RD.
type reversed struct {
	method.Settings
	Distillation

	dtype torch.DType // of the networks; zero: torch.Float32, which it is but in tests
}

// New returns RD++, or RD where the settings say so.
func New(s method.Settings, d Distillation) method.Method {
	return &reversed{Settings: s, Distillation: d}
}

// Check says which setting cannot be, by a setting.Error.
func (c *reversed) Check() error { return c.Distillation.Check() }

// rd says whether it is the baseline.
func (c *reversed) rd() bool { return c.Method == RD }

// Lasting are the settings that decide what features are, and so what the weights have learned.
func (c *reversed) Lasting() []string {
	return []string{"method", "arch", "image_size", "mean", "std", "project", "equalise"}
}

// Plan is so many passes as the updates take, but no more than Epochs.
func (c *reversed) Plan(images []int) (method.Plan, error) {
	alone := slices.IndexFunc(images, func(n int) bool { return c.ImageSize < 64 && (n-1)%c.Batch == 0 })
	if alone >= 0 {
		return method.Plan{}, setting.Refuse("batch", c.Batch, "it leaves one of the %d images alone in a batch, which is too little for batch norm where "+
			"{image_size} is %d: use another {batch}, or 64 for {image_size}", images[alone], c.ImageSize)
	}
	passes := c.Epochs
	if steps := c.steps(images[0]); c.Updates > 0 {
		passes = min(passes, (c.Updates*c.Accumulate+steps-1)/steps)
	}
	if steps := passes * c.steps(slices.Min(images)); steps < c.Accumulate {
		return method.Plan{}, setting.Refuse("accumulate", c.Accumulate, "the %d steps of the training then make no update of the weights: use more {epochs}, or 1",
			steps)
	}
	return method.Plan{Passes: passes, Batch: c.Batch, Light: dataset.Light{Exposure: c.Light}, Motion: c.motion(), TryPrecisions: true,
		Noise: dataset.NoiseOptions{Lambda: c.NoiseLambda, Released: c.NoiseReleased, Defects: c.Defects, Share: c.Denoise, Off: c.rd()}}, nil
}

// steps of a pass over so many images.
func (c *reversed) steps(images int) int { return (images + c.Batch - 1) / c.Batch }

// PredictionBytes estimates what a model takes: its weights and the forms of them that are made for speed, and what the
// networks compute.
func (c *reversed) PredictionBytes(fileBytes int64, images int) int64 {
	perPixel := int64(300) // of the network input; measured on the CPU in float32
	if c.Arch != "resnet18" && c.Arch != "resnet34" {
		perPixel = 700 // four times the channels
	}
	const program = 256 << 20
	side := int64(c.ImageSize)
	return program + 4*fileBytes + int64(images)*side*side*perPixel
}

// What a model file's weights are at most. Levels are distances, which are 1 - cos, and at least so much: where distances are
// rounding errors there is nothing to divide by.
const (
	maxWeight  = 1e30
	distance   = 2.
	leastLevel = export.LeastLevel
)

// MostScore is the highest score that a map with these terms can give.
func (c *reversed) MostScore(facts anomaly.Facts) (float64, error) {
	for _, of := range []struct {
		name  string
		terms anomaly.MapTerms
		most  float64
	}{{"map_weights", facts.MapWeights, maxWeight}, {"map_levels", facts.MapLevels, distance}} {
		tiny := func(x float64) bool { return of.name == "map_levels" && x > 0 && x < leastLevel }
		if !(slices.Min(of.terms[:]) >= 0 && slices.Max(of.terms[:]) <= of.most) || slices.ContainsFunc(of.terms[:], tiny) {
			return 0, fmt.Errorf("%s %v cannot be, the file is damaged; restore it or train again", of.name, of.terms)
		}
	}
	if facts.MapWeights == (anomaly.MapTerms{}) && facts.MapLevels != (anomaly.MapTerms{}) {
		return 0, errors.New("map_weights is missing beside map_levels, the file is damaged; restore it or train again")
	}
	// Since before there was ScoreTop, balanced maps have had levels.
	if c.Score == ScoreBalanced && c.ScoreTop > 0 && facts.MapWeights != (anomaly.MapTerms{}) && facts.MapLevels == (anomaly.MapTerms{}) {
		return 0, errors.New("map_levels is missing beside map_weights, the file is damaged; restore it or train again")
	}
	if facts.MapWeights == (anomaly.MapTerms{}) {
		return torch.Scales * distance, nil
	}
	most := 0.0
	for term, weight := range facts.MapWeights {
		if level := facts.MapLevels[term]; level > 0 {
			most += weight * math.Log1p(distance/level)
		} else {
			most += weight * distance
		}
	}
	return most, nil
}

// Older is true without a score of the map's highest pixels, which came later.
func (c *reversed) Older() bool { return c.ScoreTop == 0 || c.Score == ScoreReleased }

// Top is that of the score.
func (c *reversed) Top() (share float64, err error) { return c.top(), nil }

// Networks are the four of RD++.
type Networks struct {
	Teacher    torch.Teacher    // E
	Projection torch.Projection // P; absent in RD
	Bottleneck torch.Bottleneck // O
	Student    torch.Student    // D

	c      *reversed
	device torch.Device
	facts  anomaly.Facts

	predictor *torch.Predictor // by options; nil until it is needed
	options   torch.MapOptions
}

// The names under which networks are stored, as in the released checkpoints.
const (
	prefixTeacher    = "encoder."
	prefixProjection = "proj."
	prefixBottleneck = "bn."
	prefixStudent    = "decoder."
)

// New returns networks with fresh weights.
func (c *reversed) New(o method.Options) (method.Net, error) {
	n, err := c.networks(o)
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (c *reversed) networks(o method.Options) (*Networks, error) {
	n := &Networks{c: c, device: o.Device}
	options := func(part string) torch.ModuleOptions {
		return torch.ModuleOptions{Arch: c.Arch, DType: c.dtype, Device: o.Device, Seed: method.SeedOf(part, c.Seed), Blank: o.Blank}
	}
	var err error
	if n.Teacher, err = torch.NewTeacher(options(prefixTeacher)); err == nil && !c.rd() {
		p := options(prefixProjection)
		p.Coarsest = c.Project == ProjectCoarsest
		n.Projection, err = torch.NewProjection(p)
	}
	if err == nil {
		n.Bottleneck, err = torch.NewBottleneck(options(prefixBottleneck))
	}
	if err == nil {
		n.Student, err = torch.NewStudent(options(prefixStudent))
	}
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("reverse: model: %w", err)
	}
	return n, nil
}

// Close frees the networks. It is idempotent.
func (n *Networks) Close() {
	n.predictor.Close()
	for _, part := range n.parts() {
		part.Net.Close()
	}
}

// parts lists the networks in the order of the file.
func (n *Networks) parts() []state.Part {
	return append([]state.Part{{Prefix: prefixTeacher, Net: n.Teacher}}, n.trained()...)
}

// trained lists the networks that learn.
func (n *Networks) trained() []state.Part {
	all := []state.Part{{Prefix: prefixProjection, Net: n.Projection}, {Prefix: prefixBottleneck, Net: n.Bottleneck}, {Prefix: prefixStudent, Net: n.Student}}
	if n.c.rd() {
		return all[1:]
	}
	return all
}

// train sets training or eval mode.
func (n *Networks) train(on bool) error {
	for _, part := range n.parts() {
		if err := part.Net.Train(on); err != nil {
			return err
		}
	}
	return nil
}

// Settle sets eval mode.
func (n *Networks) Settle() error { return n.train(false) }

// Release leaves the networks the one form of their weights that predictions need.
func (n *Networks) Release() error {
	for _, part := range n.parts() {
		if err := part.Net.Release(); err != nil {
			return err
		}
	}
	return nil
}

// Backbone is the teacher.
func (n *Networks) Backbone() torch.Teacher { return n.Teacher }

// State lists the tensors of all networks.
func (n *Networks) State() []weights.Source { return state.Of(n.parts()) }

// Facts are the terms of the map.
func (n *Networks) Facts() anomaly.Facts { return n.facts }

// mapOptions are those of the anomaly maps.
func (n *Networks) mapOptions() torch.MapOptions {
	return torch.MapOptions{Sigma: n.c.MapSigma, Weights: n.facts.MapWeights, Levels: n.facts.MapLevels, Top: n.c.top()}
}

// Predict maps normalised images to smoothed maps and scores.
func (n *Networks) Predict(x *torch.Tensor) (maps, scores *torch.Tensor, err error) {
	// The map's options change once, when training has found the levels.
	if options := n.mapOptions(); n.predictor == nil || options != n.options {
		predictor, err := torch.NewPredictor(n.Teacher, n.Projection, n.Bottleneck, n.Student, options)
		if err != nil {
			return nil, nil, err
		}
		n.predictor.Close()
		n.predictor, n.options = predictor, options
	}
	return n.predictor.Predict(x)
}

// features are the teacher's, the student's and the student's input of normalised images x, B x 3 x S x S: K tensors of B x
// C x H x W each, and B x 512e x S/32 x S/32.
func (n *Networks) features(s *torch.Scope, x *torch.Tensor) (f, g torch.Features, z *torch.Tensor) {
	f = s.Features(n.Teacher.Forward(x))
	p := f
	if !n.c.rd() {
		p = s.Features(n.Projection.Forward(f))
	}
	z = s.Tensor(n.Bottleneck.Forward(p))
	return f, s.Features(n.Student.Forward(z)), z
}

// Embed maps a normalised image, 1 x 3 x S x S, to the student's input, 1 x 512e x S/32 x S/32.
func (n *Networks) Embed(x *torch.Tensor) (*torch.Tensor, error) {
	f, err := n.Teacher.Forward(x)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if n.c.rd() {
		return n.Bottleneck.Forward(f)
	}
	p, err := n.Projection.Forward(f)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return n.Bottleneck.Forward(p)
}

// Export says what package export makes a file of.
func (n *Networks) Export(m *export.Model) {
	m.Tensors, m.Sigma, m.Weights, m.Levels = n.State(), n.c.MapSigma, n.facts.MapWeights, n.facts.MapLevels
	m.Top = n.c.top()
}

// Load fills every entry of every network.
func (c *reversed) Load(net method.Net, file *weights.File, facts anomaly.Facts) error {
	n, own := net.(*Networks)
	if !own {
		return fmt.Errorf("a net of type %T is not this method's", net)
	}
	n.facts = facts
	return n.load(file)
}

func (n *Networks) load(file *weights.File) error {
	within := func(name string) bool {
		return !strings.HasPrefix(name, state.PrefixAdam) && !strings.HasPrefix(name, state.PrefixGrad) && !strings.HasPrefix(name, prefixAverage)
	}
	err := state.Fill(file, within, state.Under(n.parts())...)
	if err == nil {
		return nil
	}
	if nets := file.Backbones(); len(nets) == 1 && teacher.SameArch(nets[0].Arch, n.c.Arch) != nil {
		err = fmt.Errorf("%w; it is of another architecture: %s, not %s", err, nets[0].Arch, n.c.Arch)
	}
	if errors.Is(err, anomaly.ErrDamaged) || errors.Is(err, weights.ErrChanged) {
		return err
	}
	return fmt.Errorf("%w; restore the file or train again", err)
}

// LoadReleased fills all networks but the teacher from a checkpoint of the released code.
func (n *Networks) LoadReleased(file *weights.File, released *weights.Released) error {
	var parts []state.Filled
	for _, part := range n.trained() {
		key := part.Prefix[:len(part.Prefix)-1] // the released names are ours
		parts = append(parts, state.Filled{Net: part.Net, Name: func(name string) string { return released.Name(key, name) }, CountsOptional: true})
	}
	return state.Fill(file, released.Within, parts...)
}
