package modelfile

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"

	"rdpp/rdpp/config"
	"rdpp/rdpp/document"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Model is a net and what is known about it. It belongs to one goroutine at a time.
type Model struct {
	Info      Info
	Device    torch.Device
	Net       method.Net
	Framer    *framing.Framer // by Info.Config's View
	Precision torch.Precision // of prediction; zero: FP32
	Batch     int             // images in one pass where there are many, see BatchSize; 0: it chooses
	Digest    string          // of the file that Load read, which holds it of itself; "": none

	Provenance *Provenance // how it came to be; nil: not said

	released bool

	room int64 // bytes that LoadOptions.MaxMemory leaves for images; 0: no such bound
}

// New returns a model with fresh weights, the teacher's included.
func New(c config.Config, device torch.Device) (*Model, error) {
	return newModel(c, device, false)
}

// newModel leaves the weights blank where asked to, for loading.
func newModel(c config.Config, device torch.Device, blank bool) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.BitDepth == method.BitDepthAuto { // until training finds what its images use
		c.BitDepth = 16
	}
	framer, err := framing.New(c.View, c.ImageSize)
	if err != nil {
		return nil, err
	}
	net, err := c.Learned().New(method.Options{Device: device, Blank: blank})
	if err != nil {
		return nil, err
	}
	return &Model{Device: device, Net: net, Framer: framer, Info: Info{FormatVersion: modelFormat, Software: document.Software, Config: c,
		Teacher: teacher.Info{Origin: teacher.OriginRandom}}}, nil
}

// Close frees the net. It is idempotent.
func (m *Model) Close() { m.Net.Close() }

// Release makes a model smaller that will predict alone, with its present Precision: it can be saved and exported no more.
// The net is settled.
func (m *Model) Release() error {
	net, can := m.Net.(method.Releaser)
	if !can {
		return nil
	}
	m.released = true
	return net.Release()
}

var errReleased = errors.New("modelfile: a released model can only predict; load it once more")

// LoadTeacher fills the teacher, see teacher.Load.
func (m *Model) LoadTeacher(name string) error {
	info, err := teacher.Load(m.Net.Backbone(), m.Info.Config.Arch, name)
	if err == nil {
		m.Info.Teacher = info
	}
	return err
}

// Save writes the model file. What is at path stays there until the new file is complete.
func (m *Model) Save(path string) error {
	if m.released {
		return errReleased
	}
	if m.Provenance != nil {
		return document.Write(path, document.ModelKey, m.document(), m.Net.State(), document.Further{Key: ProvenanceKey, Document: m.Provenance})
	}
	return document.Write(path, document.ModelKey, m.document(), m.Net.State())
}

// Size is how large the file of Save can become while a training goes on.
func (m *Model) Size() (int64, error) {
	size, err := document.Size(document.ModelKey, m.document(), m.Net.State())
	if net, grows := m.Net.(method.Grower); grows && err == nil {
		var growth int64
		growth, err = net.Growth()
		size += growth
	}
	return size, err
}

// document is the header of the model's file.
func (m *Model) document() Info {
	info := m.Info
	info.FormatVersion, info.Facts = formatOf(&info), m.Net.Facts()
	return info
}

// Predict maps B normalised images, B x 3 x S x S, to their anomaly maps, B x S x S, and scores, B. The net is settled. A score
// that is no number is an error.
func (m *Model) Predict(x []float32) (maps []float32, scores []float64, err error) {
	if maps, scores, err = m.pass(x); err != nil {
		return nil, nil, err
	}
	for _, score := range scores {
		if err := finite(score); err != nil {
			return nil, nil, err
		}
	}
	return maps, scores, nil
}

// pass takes images through the net, whatever their scores are.
func (m *Model) pass(x []float32) (maps []float32, scores []float64, err error) {
	S := m.Info.Config.ImageSize
	var s torch.Scope
	defer s.Close()
	input := s.Tensor(torch.FromSlice(x, int64(len(x)/(3*S*S)), 3, int64(S), int64(S)))
	input = s.Tensor(input.To(m.Device, m.Precision.DType()))
	if err := s.Err(); err != nil {
		return nil, nil, err
	}
	planes, values := s.Pair(m.Net.Predict(input))
	if err := s.Err(); err != nil {
		return nil, nil, err
	}
	if maps, err = torch.Read[float32](planes); err != nil {
		return nil, nil, err
	}
	scores, err = torch.Read[float64](values)
	return maps, scores, err
}

// MaxBytes is the largest model file that Load opens.
const MaxBytes = method.MaxModelBytes

// LoadOptions say how a model file is opened. Zero fields mean the defaults.
type LoadOptions struct {
	Device torch.Device // default the CPU
	// MaxMemory bounds what judging an image may take in memory by Config.PredictionBytes' estimate: a model that would take
	// more is refused, and BatchSize stays within it. Default: what the machine has, and on a GPU, which says so itself, nothing.
	MaxMemory int64
	Log       *slog.Logger // told what there is to know of the file, default slog.Default()
}

// Load reads a model file onto a device. Nothing in the file is executed, and no length is believed before it
// is checked against the file's size. Damage is found by the digest that the file has; one of an earlier version has none, of
// which the log is told. The net is not settled.
func Load(path string, opt LoadOptions) (*Model, error) {
	log := opt.Log
	if log == nil {
		log = slog.Default()
	}
	file, err := weights.OpenSafetensors(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("modelfile: no model at %s; `train` writes one to OUT/CATEGORY/model.safetensors", path)
	}
	if err != nil {
		return nil, fmt.Errorf("modelfile: %w", err)
	}
	defer file.Close()
	if size := file.Size(); size > MaxBytes {
		return nil, fmt.Errorf("modelfile: %s: %d bytes are more than any model has, %d at most", path, size, int64(MaxBytes))
	}
	info, o, err := ReadInfo(file)
	if err != nil {
		return nil, fmt.Errorf("modelfile: %s: %w", path, err)
	}
	if err := checkMemory(&info.Config, file.Size(), opt.MaxMemory, opt.Device); err != nil {
		return nil, fmt.Errorf("modelfile: %s: %w", path, err)
	}
	m, err := newModel(info.Config, opt.Device, true)
	if err != nil {
		return nil, fmt.Errorf("modelfile: %s: %w", path, err)
	}
	m.Info, m.Digest, m.Provenance = info, file.Digest(), readProvenance(file)
	if opt.MaxMemory > 0 {
		m.room = opt.MaxMemory - info.Config.PredictionBytes(file.Size(), 0)
	}
	if err := info.Config.Learned().Load(m.Net, file, info.Facts); err != nil {
		m.Close()
		return nil, fmt.Errorf("modelfile: %s: %w", path, err)
	}
	switch {
	case !o.Digest:
		log.Warn("the model file stores no digest, so damage can pass unseen; train or import it again for one", "file", path)
	case o.Unknown != "":
		log.Warn("the model file is of a later version, whose further settings play no part here", "file", path, "software", info.Software,
			"first", o.Unknown)
	}
	return m, nil
}

// FloorFloat32 is the largest float32 that is not above x, so that pixels, which are float32, and images are judged alike.
func FloorFloat32(x float64) float32 {
	f := float32(x)
	if float64(f) > x {
		f = math.Nextafter32(f, float32(math.Inf(-1)))
	}
	return f
}
