// Package rdpp learns what good parts look like from photographs of good parts alone, and finds and outlines
// defects, by RD++ (Tien et al., "Revisiting Reverse Distillation for Anomaly Detection", CVPR 2023) and by the other methods
// that [Methods] lists.
//
// [Train] turns a folder of photographs into a model file, a [Detector] opens that file and scores images. [Config] is
// every choice that changes a result. The names here are those of the packages below, where they are described; a program
// that embeds rdpp needs this package alone.
package rdpp

import (
	"context"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/cfa"
	"rdpp/rdpp/config"
	"rdpp/rdpp/csflow"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/detector"
	"rdpp/rdpp/document"
	"rdpp/rdpp/engine"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/fastflow"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/patchcore"
	"rdpp/rdpp/pretrain"
	"rdpp/rdpp/reverse"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/teacher"
	"rdpp/torch"
)

// Version is written into model files.
const Version = document.Version

// What trains and what is known of it afterwards.
type (
	Config        = config.Config       // every choice that changes a training's result
	FixedSetting  = method.Fixed        // of which a method takes but a few values, see Config.Fixed
	TrainOptions  = engine.Options      // where and how to train
	StepReport    = engine.Step         // a step that is done
	EpochReport   = anomaly.Epoch       // an epoch that is done
	Losses        = anomaly.Losses      // of a step or an epoch
	Summary       = engine.Summary      // the outcome, and metrics.json
	Metrics       = anomaly.Metrics     // of a test set
	Verdicts      = anomaly.Verdicts    // what a threshold makes of a test set
	Calibration   = anomaly.Calibration // what turns scores into verdicts
	IndexEntry    = engine.IndexEntry   // a category of a run, for WriteIndex
	Model         = modelfile.Model     // a net and what is known about it
	Info          = modelfile.Info      // the JSON document in a model file's header
	DataInfo      = modelfile.DataInfo
	ImportInfo    = modelfile.ImportInfo
	ExportOptions = modelfile.ExportOptions // of Model.Export
	Provenance    = modelfile.Provenance    // how a model came to be
)

// What of images is looked at.
type (
	View    = framing.View    // of Config
	ViewBox = framing.Box     // a rectangle in pixels
	Drawing = framing.Drawing // a mask in a View, see DrawFile
	Align   = framing.Align   // whether the part is found first, and how far it may lie
	Pose    = framing.Pose    // how it was found to lie, see Frame
	Frame   = framing.Frame   // what a View makes of an image, see Result.Frame
)

// What detects.
type (
	Detector        = detector.Detector
	DetectorOptions = detector.Options
	Batcher         = detector.Batcher
	Result          = detector.Result
	Input           = detector.Input
	Prediction      = anomaly.Prediction // what is said of an image, as JSON
	Verdict         = anomaly.Verdict
	RegionOptions   = anomaly.RegionOptions
	Evaluation      = evaluation.Evaluation
	ItemScore       = evaluation.ItemScore
	ReportOptions   = evaluation.ReportOptions
)

// What makes teachers.
type (
	TeacherInfo     = teacher.Info
	TeacherOptions  = teacher.Options
	ConvertOptions  = teacher.ConvertOptions
	ConvertSummary  = teacher.ConvertSummary
	PretrainConfig  = pretrain.Config
	PretrainOptions = pretrain.Options
	PretrainReport  = pretrain.Report
	PretrainSummary = pretrain.Summary
	ScaleReport     = pretrain.ScaleReport
	TeacherDocument = pretrain.Document
)

// SettingError refuses the value of a setting: a field of Config, PretrainConfig or the options of a function, by its name in
// JSON. Text of rdpp/setting tells it with other names.
type SettingError = setting.Error

// ErrConfig is what every SettingError is, by errors.Is.
var ErrConfig = setting.ErrValue

// ErrBusy is wrapped by the error about a folder that another training has locked.
var ErrBusy = engine.ErrBusy

// ErrInterrupted says that training stopped because its context ended, after a checkpoint.
var ErrInterrupted = engine.ErrInterrupted

// Names of settings, files and words, described where they come from.
const (
	MethodRDPP      = reverse.RDPP
	MethodRD        = reverse.RD
	MethodPatchCore = patchcore.Name
	MethodFastFlow  = fastflow.Name
	MethodCSFlow    = csflow.Name
	MethodCFA       = cfa.Name

	SelectLast       = method.SelectLast
	SelectBestOnTest = method.SelectBestOnTest
	ProjectAll       = reverse.ProjectAll
	ProjectCoarsest  = reverse.ProjectCoarsest
	ScheduleCosine   = reverse.ScheduleCosine
	ScheduleConstant = reverse.ScheduleConstant
	ScoreReleased    = reverse.ScoreReleased
	ScoreBalanced    = reverse.ScoreBalanced
	BitDepthAuto     = method.BitDepthAuto
	TileAuto         = method.TileAuto
	PrecisionAuto    = method.PrecisionAuto
	PresetPaper      = config.PresetPaper

	ModelFile     = engine.ModelFile
	MetricsFile   = engine.MetricsFile
	HistoryFile   = engine.HistoryFile
	ReportFile    = engine.ReportFile
	ScoresFile    = engine.ScoresFile
	IndexFile     = engine.IndexFile
	MaxModelBytes = modelfile.MaxBytes

	TeacherRandom   = teacher.Random
	TeacherBuiltin  = teacher.Builtin
	TeacherDrawn    = teacher.Drawn
	TeacherImageNet = teacher.ImageNet
	TeacherAuto     = teacher.Auto
	OriginRandom    = teacher.OriginRandom
	OriginDrawn     = teacher.OriginDrawn
	OriginImageNet  = teacher.OriginImageNet
	StoreFP16       = teacher.StoreFP16
	StoreFP32       = teacher.StoreFP32
	ObjectiveClass  = pretrain.ObjectiveClass
	ObjectiveDense  = pretrain.ObjectiveDense
	ObjectivePair   = pretrain.ObjectivePair

	FormatONNX        = modelfile.FormatONNX
	FormatTorchScript = modelfile.FormatTorchScript
	InputUint8        = modelfile.InputUint8
	InputFloat        = modelfile.InputFloat
)

// Methods lists what Config.Method takes.
func Methods() []string { return config.Methods() }

// Owners lists the methods that a setting of Config, by its name in JSON, plays a part in; none where it does in all, or there is
// no such setting.
func Owners(setting string) []string { return config.Owners(setting) }

// DefaultConfig returns what did best, of what was tried, in trainings of some minutes on real parts (BENCHMARKS.md); Preset
// returns the released settings.
func DefaultConfig() Config { return config.Default() }

// Presets lists what Preset takes.
func Presets() []string { return config.Presets() }

// Preset returns the settings of a protocol for a category, DefaultConfig's where it says nothing; see config.Preset.
func Preset(name, category string) Config { return config.Preset(name, category) }

// PresetOf is Preset for a method, which may have defaults of its own; an empty name stands for DefaultConfig.
func PresetOf(name, category, method string) Config { return config.PresetOf(name, category, method) }

// Train trains a model on the good images of a data set, evaluates it on the test images, and writes model, metrics,
// history and checkpoints to opt.Out; see engine.Train.
func Train(ctx context.Context, c Config, set *dataset.Set, opt TrainOptions) (*Summary, error) {
	return engine.Train(ctx, c, set, opt)
}

// FromModel returns the settings with which a training goes on from a model file; see engine.FromModel.
func FromModel(path string) (Config, error) { return engine.FromModel(path) }

// Finished is the summary of the finished run in a folder; see engine.Finished.
func Finished(folder string, c *Config, teacher string) (*Summary, error) {
	return engine.Finished(folder, c, teacher)
}

// WriteIndex writes the page of a run over several categories, whose folders lie in out under their names. out is made
// where missing.
func WriteIndex(out, title string, entries []IndexEntry) error {
	return engine.WriteIndex(out, title, entries)
}

// DefaultArch is the backbone of a training that names none but a teacher, as for FindTeacher: DefaultConfig's where that
// teacher needs no network for it, else one whose teacher is inside the program.
func DefaultArch(name string) string { return teacher.Arch(name, DefaultConfig().Arch) }

// SettledTeacher is what TeacherAuto stands for on this machine, for others to take the same teacher; see teacher.Settled.
func SettledTeacher(name, arch string) string { return teacher.Settled(name, arch) }

// CheckRanks says by a SettingError what keeps so many processes from training one model with these settings.
func CheckRanks(c *Config, size int) error { return engine.CheckRanks(c, size) }

// ReadConfig reads the settings of a training, and its teacher, from the metrics.json or the model file that it has written.
func ReadConfig(path string) (Config, TeacherInfo, error) { return engine.ReadConfig(path) }

// Commit is the commit that the program was built of, with a + where files were changed since; "" where nobody has said.
func Commit() string { return document.Commit() }

// OpenDetector reads a model file.
func OpenDetector(path string, opt *DetectorOptions) (*Detector, error) {
	return detector.Open(path, opt)
}

// DrawFile makes a Drawing of the mask in an image file.
func DrawFile(path string) (Drawing, error) { return framing.DrawFile(path) }

// NewModel returns a model with fresh weights, the teacher's included. Its net is not settled: call Net.Settle before Predict.
func NewModel(c Config, device torch.Device) (*Model, error) { return modelfile.New(c, device) }

// LoadModel reads a model file onto a device, ready to predict; see modelfile.Load.
func LoadModel(path string, device torch.Device) (*Model, error) {
	m, err := modelfile.Load(path, modelfile.LoadOptions{Device: device})
	if err != nil {
		return nil, err
	}
	if err := m.Net.Settle(); err != nil { // else batch norms would take their statistics from what is predicted
		m.Close()
		return nil, err
	}
	return m, nil
}

// Pretrain trains a teacher on drawn pictures and writes it to opt.Out; see pretrain.Train.
func Pretrain(ctx context.Context, c PretrainConfig, opt PretrainOptions) (*PretrainSummary, error) {
	return pretrain.Train(ctx, c, opt)
}

// DefaultPretrainConfig returns settings for resnet18 on a CPU.
func DefaultPretrainConfig() PretrainConfig { return pretrain.DefaultConfig() }

// ConvertTeacher makes a teacher's file of an ONNX file of a ResNet; see teacher.Convert.
func ConvertTeacher(opt ConvertOptions) (*ConvertSummary, error) { return teacher.Convert(opt) }

// FindTeacher resolves TeacherAuto and TeacherImageNet; see teacher.Find.
func FindTeacher(ctx context.Context, name, arch string, opt TeacherOptions) (string, error) {
	return teacher.Find(ctx, name, arch, opt)
}

// TeacherWords lists the words for a teacher other than a weight file's path.
func TeacherWords() []string { return teacher.Words() }

// TeacherCache returns the folder of downloaded teachers.
func TeacherCache() (string, error) { return teacher.Cache() }

// Notice is the text of the repository's NOTICE: whose work is inside the program, and under which licences.
func Notice() string { return teacher.Notice() }

// DrawnImageSize is the side of the network input, pixels, at which the teacher of drawn pictures, which has learned from
// pictures of 64 x 64, told good from defective images best, of 128, 192 and 256.
const DrawnImageSize = 192

// DefaultImageSize is the side of the network input where nobody has asked for one: it depends on the teacher, which is
// given as for FindTeacher.
func DefaultImageSize(name string) int {
	if name == TeacherDrawn {
		return DrawnImageSize
	}
	return DefaultConfig().ImageSize
}
