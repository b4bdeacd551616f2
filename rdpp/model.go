package rdpp

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"slices"
	"strings"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Model is the four networks of RD++ and what is known about them. It belongs to one goroutine at a time.
type Model struct {
	Info       Info
	Device     torch.Device
	Teacher    torch.Teacher    // E
	Projection torch.Projection // P; absent with MethodRD
	Bottleneck torch.Bottleneck // O
	Student    torch.Student    // D

	predictor *torch.Predictor // by options, of the networks; nil until it is needed
	options   torch.MapOptions
	precision torch.Precision // of prediction; zero: FP32
	settled   bool            // weights change no more: eval mode, once set, need not be set again
}

// Info is the JSON document in a model file's header.
type Info struct {
	FormatVersion int         `json:"format_version"`
	Software      string      `json:"software"`
	Category      string      `json:"category"`
	Config        Config      `json:"config"`
	Teacher       TeacherInfo `json:"teacher"`
	Data          DataInfo    `json:"data"`
	MapWeights    MapTerms    `json:"map_weights,omitzero"` // zero: the plain sum of the scales
	MapLevels     MapTerms    `json:"map_levels,omitzero"`  // of log(1 + d/level); zero: the terms are distances d, also where they have weights
	Epoch         int         `json:"epoch"`                // that these weights are from, counted from 1
	Calibration   Calibration `json:"calibration"`
	Imported      ImportInfo  `json:"imported,omitzero"` // of a model that Import made; its Config tells nothing of its training
}

// ImportInfo names the checkpoint that a model was imported from.
type ImportInfo struct {
	Origin string `json:"origin"` // the file's name
	SHA256 string `json:"sha256"`
}

// TeacherInfo says where the teacher's weights come from.
type TeacherInfo struct {
	Origin string `json:"origin"`           // OriginRandom, OriginDrawn, OriginImageNet or the weight file's name
	SHA256 string `json:"sha256,omitempty"` // of the weight file
}

// DataInfo describes the training images.
type DataInfo struct {
	Images      int    `json:"images"`      // trained on
	HeldOut     int    `json:"held_out"`    // kept out of training, for the calibration
	Fingerprint string `json:"fingerprint"` // SHA-256 over names and contents
	Layout      string `json:"layout"`

	Range dataset.Range `json:"range,omitzero"` // of all that could be read, held out or not; zero: not known
}

// Formats of model files. A program that does not know a file's format refuses it.
const (
	modelFormat     = 1
	modelFormatBits = 2 // of models that read 16-bit images by fewer bits, which programs of format 1 would not

	modelKey = "rdpp" // of the JSON document in the header's metadata
)

// MaxModelBytes is several times what a model file of the largest backbone has.
const MaxModelBytes = 4 << 30

// The names under which networks are stored, as in the released checkpoints.
const (
	prefixTeacher    = "encoder."
	prefixProjection = "proj."
	prefixBottleneck = "bn."
	prefixStudent    = "decoder."
)

// NewModel returns a model with fresh weights, the teacher's included.
func NewModel(config Config, device torch.Device) (*Model, error) {
	return newModel(config, device, false)
}

// newModel leaves the weights blank where asked to, for loading.
func newModel(config Config, device torch.Device, blank bool) (*Model, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.BitDepth == BitDepthAuto { // until training finds what its images use
		config.BitDepth = 16
	}
	m := &Model{Device: device, Info: Info{FormatVersion: modelFormat, Software: "rdpp " + Version, Config: config,
		Teacher: TeacherInfo{Origin: OriginRandom}}}
	options := func(part string) torch.ModuleOptions {
		return torch.ModuleOptions{Arch: config.Arch, Device: device, Seed: seedOf(part, config.Seed), Blank: blank}
	}
	var err error
	if m.Teacher, err = torch.NewTeacher(options(prefixTeacher)); err == nil && config.Method == MethodRDPP {
		o := options(prefixProjection)
		o.Coarsest = config.Project == ProjectCoarsest
		m.Projection, err = torch.NewProjection(o)
	}
	if err == nil {
		m.Bottleneck, err = torch.NewBottleneck(options(prefixBottleneck))
	}
	if err == nil {
		m.Student, err = torch.NewStudent(options(prefixStudent))
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("rdpp: model: %w", err)
	}
	return m, nil
}

// seedOf gives every network of a seed a seed of its own.
func seedOf(part string, seed uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s%d", part, seed)
	return h.Sum64()
}

// Close frees the networks. It is idempotent.
func (m *Model) Close() {
	m.predictor.Close()
	for _, part := range m.parts() {
		part.net.Close()
	}
}

type part struct {
	prefix string
	net    torch.Network
}

// parts lists the networks in the order of the file.
func (m *Model) parts() []part {
	all := []part{{prefixTeacher, m.Teacher}}
	if m.Info.Config.Method == MethodRDPP {
		all = append(all, part{prefixProjection, m.Projection})
	}
	return append(all, part{prefixBottleneck, m.Bottleneck}, part{prefixStudent, m.Student})
}

// trained lists the networks that learn: all but the teacher, which comes first.
func (m *Model) trained() []part { return m.parts()[1:] }

// train sets training or eval mode.
func (m *Model) train(on bool) error {
	for _, part := range m.parts() {
		if err := part.net.Train(on); err != nil {
			return err
		}
	}
	return nil
}

// formatOf is the oldest format whose programs score as the settings say.
func formatOf(c *Config) int {
	if c.BitDepth < 16 {
		return modelFormatBits
	}
	return modelFormat
}

// Save writes the model file. What is at path stays there until the new file is complete.
func (m *Model) Save(path string) error {
	info := m.Info
	info.FormatVersion = formatOf(&info.Config)
	return saveTensors(path, modelKey, info, m.tensors())
}

// saveTensors writes a safetensors file whose metadata holds document as JSON.
func saveTensors(path, key string, document any, tensors []weights.Source) error {
	metadata, err := metadataOf(key, document)
	if err != nil {
		return fmt.Errorf("rdpp: %s: %w", path, err)
	}
	if err := weights.WriteFile(path, metadata, tensors); err != nil {
		return fmt.Errorf("rdpp: %w", err)
	}
	return nil
}

func metadataOf(key string, document any) (map[string]string, error) {
	text, err := json.Marshal(document)
	return map[string]string{"format": "pt", key: string(text)}, err
}

// grown is what a document may grow by in the course of a training: scores, a line of history per epoch.
const grown = 1 << 20

// sizeOf is how large the file of saveTensors can become.
func sizeOf(key string, document any, tensors []weights.Source) (int64, error) {
	metadata, err := metadataOf(key, document)
	if err != nil {
		return 0, fmt.Errorf("rdpp: %w", err)
	}
	size, err := weights.Size(metadata, tensors)
	if err != nil {
		return 0, fmt.Errorf("rdpp: %w", err)
	}
	return size + grown, nil
}

func (m *Model) tensors() []weights.Source { return stateOf(m.parts()) }

// stateOf describes the state dicts of networks.
func stateOf(parts []part) (sources []weights.Source) {
	for _, part := range parts {
		for _, e := range part.net.State() {
			sources = append(sources, source(part.prefix+e.Name, e.Tensor))
		}
	}
	return sources
}

// source describes a tensor for the file; its elements are fetched when their turn comes.
func source(name string, t *torch.Tensor) weights.Source {
	s := weights.Source{Name: name, DType: weights.F32, Bytes: t.ReadBytes}
	types := map[torch.DType]weights.DType{torch.Int64: weights.I64, torch.Float16: weights.F16}
	shape, err := t.Shape()
	if err != nil {
		s.Bytes = func() ([]byte, error) { return nil, err }
	}
	for _, d := range shape {
		s.Shape = append(s.Shape, int(d))
	}
	if dtype, err := t.DType(); err == nil && types[dtype] != 0 {
		s.DType = types[dtype]
	}
	return s
}

// LoadModel reads a model file onto a device. Nothing in the file is executed, and no length is believed before it
// is checked against the file's size. Damage is found by the digest that the file has; one of an earlier version has none, of
// which slog.Default() is told.
func LoadModel(path string, device torch.Device) (*Model, error) {
	return loadModel(path, device, 0, slog.Default())
}

// loadModel refuses a model whose images would take more than maxMemory bytes, see DetectorOptions.
func loadModel(path string, device torch.Device, maxMemory int64, log *slog.Logger) (*Model, error) {
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		return nil, modelError(path, err)
	}
	defer file.Close()
	if size := file.Size(); size > MaxModelBytes {
		return nil, fmt.Errorf("rdpp: %s: %d bytes are more than any model has, %d at most", path, size, int64(MaxModelBytes))
	}
	info, o, err := readInfo(file)
	if err != nil {
		return nil, fmt.Errorf("rdpp: %s: %w", path, err)
	}
	if err := info.Config.checkMemory(file.Size(), maxMemory, device); err != nil {
		return nil, fmt.Errorf("rdpp: %s: %w", path, err)
	}
	m, err := newModel(info.Config, device, true)
	if err != nil {
		return nil, fmt.Errorf("rdpp: %s: %w", path, err)
	}
	m.Info = info
	if err := m.load(file); err != nil {
		m.Close()
		return nil, fmt.Errorf("rdpp: %s: %w", path, err)
	}
	switch {
	case !o.digest:
		log.Warn("the model file is of a version that stored no digest, so damage to it can pass unseen; train or import it again for one", "file", path)
	case o.unknown != "":
		log.Warn("the model file is of a later version, whose further settings play no part here", "file", path, "software", info.Software,
			"first", o.unknown)
	}
	return m, nil
}

func modelError(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rdpp: no model at %s; `train` writes one to OUT/CATEGORY/model.safetensors", path)
	}
	return fmt.Errorf("rdpp: %w", err)
}

// load fills every entry of every network; a missing, mis-shaped or left-over tensor is an error.
func (m *Model) load(file *weights.File) error {
	var parts []filled
	for _, part := range m.parts() {
		parts = append(parts, filled{net: part.net, name: func(name string) string { return part.prefix + name }})
	}
	within := func(name string) bool {
		return !strings.HasPrefix(name, prefixAdam) && !strings.HasPrefix(name, prefixGrad) && !strings.HasPrefix(name, prefixAverage)
	}
	err := fill(file, within, parts...)
	if err == nil {
		return nil
	}
	if nets := file.ResNets(); len(nets) == 1 && sameArch(nets[0].Arch, m.Info.Config.Arch) != nil {
		err = fmt.Errorf("%w; it is of another architecture: %s, not %s", err, nets[0].Arch, m.Info.Config.Arch)
	}
	if errors.Is(err, errDamaged) {
		return err
	}
	return fmt.Errorf("%w; restore the file or train again", err)
}

// filled is a network to be filled from a file, which names its tensors by name. countsOptional lets files lack the
// counts of batches, as older ones do: they play no part in eval mode.
type filled struct {
	net            torch.Network
	name           func(string) string
	countsOptional bool
}

// fill copies a file's tensors into networks, if all of them fit and none that within accepts is left over.
func fill(file *weights.File, within func(name string) bool, parts ...filled) error {
	var wants []weights.Want
	into := map[string]*torch.Tensor{}
	for _, part := range parts {
		for _, e := range part.net.State() {
			dims, err := e.Tensor.Shape()
			if err != nil {
				return err
			}
			w := weights.Want{Name: part.name(e.Name), Shape: make([]int, len(dims)),
				Optional: part.countsOptional && strings.HasSuffix(e.Name, "num_batches_tracked")}
			for i, dim := range dims {
				w.Shape[i] = int(dim)
			}
			wants, into[w.Name] = append(wants, w), e.Tensor
		}
	}
	if err := file.Match(wants, within); err != nil {
		return err
	}
	for _, w := range wants {
		if _, found := file.Lookup(w.Name); !found {
			continue
		}
		if err := loadTensor(file, w.Name, into[w.Name]); err != nil {
			return err
		}
	}
	return nil
}

// loadTensor copies the named tensor of a file into t.
func loadTensor(file *weights.File, name string, t *torch.Tensor) error {
	stored, found := file.Lookup(name)
	if !found {
		return fmt.Errorf("tensor %s is missing; restore the file or train again", name)
	}
	shape, err := t.Shape()
	if err != nil {
		return err
	}
	same := len(shape) == len(stored.Shape)
	for i := range shape {
		same = same && shape[i] == int64(stored.Shape[i])
	}
	if !same {
		return fmt.Errorf("tensor %s has shape %v, needed is %v; is it of another architecture?", name, stored.Shape, shape)
	}
	if !stored.Finite() {
		return fmt.Errorf("tensor %s holds numbers that are infinite or none, %w", name, errDamaged)
	}
	if strings.HasSuffix(name, "running_var") && slices.Min(append(stored.Float64(), 0)) < 0 {
		return fmt.Errorf("tensor %s holds variances below 0, %w", name, errDamaged)
	}
	dtype, known := map[weights.DType]torch.DType{weights.F16: torch.Float16, weights.BF16: torch.BFloat16,
		weights.F32: torch.Float32, weights.F64: torch.Float64, weights.I64: torch.Int64}[stored.DType]
	if !known {
		return fmt.Errorf("tensor %s has elements of type %s; floating-point ones are needed", name, stored.DType)
	}
	return t.WriteBytes(dtype, stored.Data)
}
