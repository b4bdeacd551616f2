package rdpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// ImportOptions say what Import makes a model of. Zero fields mean the defaults.
type ImportOptions struct {
	Checkpoint string       // file as RD++'s released code saves it, see Import; required
	Teacher    string       // that it was trained with, as for FindTeacher; default TeacherImageNet
	Arch       string       // default: what the checkpoint is recognised as
	ImageSize  int          // side S of the network input in pixels, default DefaultConfig's
	Category   string       // name of the kind of parts, for the model file
	Device     torch.Device // default the CPU

	Good       []dataset.Item // images of good parts for the thresholds; none: there are no thresholds
	Unseen     bool           // the checkpoint was not trained on Good, so a rate of false alarms can be promised
	FalseAlarm float64        // that rate, 0 to 1; default DefaultConfig's
	MaxPixels  int64          // largest image accepted, default imagefile.DefaultMaxPixels

	OnDownload func(file string, done, total int64) // as in TeacherOptions
	Log        *slog.Logger                         // default slog.Default()
}

// Import makes a model of a checkpoint that the released code of RD++, or of RD, has saved: a .pth, or a safetensors
// file, with {"proj": ..., "bn": ..., "decoder": ...}, RD's without proj. The teacher, which is not in it, must be
// the one that it was trained with; nothing can tell whether it is. The caller closes the model.
//
// Without Good the thresholds are 0 and the calibration provisional: every image is called anomalous. With Good that are
// not Unseen they are the highest score, and provisional too.
func Import(ctx context.Context, opt ImportOptions) (*Model, error) {
	if opt.Teacher == "" {
		opt.Teacher = TeacherImageNet
	}
	if opt.Teacher == TeacherRandom {
		return nil, wrong("teacher", opt.Teacher, "a checkpoint needs the teacher that it was trained with")
	}
	file, err := weights.Open(opt.Checkpoint)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("rdpp: no checkpoint at %s; name a .pth of the released code", opt.Checkpoint)
	}
	if err != nil {
		return nil, fmt.Errorf("rdpp: checkpoint: %w", err)
	}
	defer file.Close()
	m, err := importModel(ctx, file, &opt)
	if err != nil {
		return nil, fmt.Errorf("rdpp: checkpoint %s: %w", opt.Checkpoint, err)
	}
	if err := m.importTeacher(ctx, &opt); err != nil {
		m.Close()
		return nil, err
	}
	if err := m.calibrateBy(ctx, &opt); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// importModel is the checkpoint's networks, with a teacher of fresh weights.
func importModel(ctx context.Context, file *weights.File, opt *ImportOptions) (*Model, error) {
	for _, key := range []string{modelKey, checkpointKey, teacherKey, pretrainCheckpointKey} {
		if _, found := file.Metadata[key]; found {
			return nil, errors.New("rdpp wrote it, so there is nothing to import; `infer info` shows what it is")
		}
	}
	released, ok := file.Released()
	if !ok {
		if nets := file.ResNets(); len(nets) > 0 {
			return nil, setting.Advise(fmt.Errorf("it is a %s; a checkpoint has \"bn\" and \"decoder\"", &nets[0]), "it may be the {teacher}")
		}
		return nil, errors.New("it has no \"bn\" and \"decoder\", as checkpoints of RD++ and RD have; `infer info` shows what it holds")
	}
	config, err := importConfig(&released, opt)
	if err != nil {
		return nil, err
	}
	digest, err := file.SHA256()
	if err != nil {
		return nil, err
	}
	m, err := NewModel(config, opt.Device)
	if err != nil {
		return nil, err
	}
	m.Info.Category = opt.Category
	m.Info.Imported = ImportInfo{Origin: filepath.Base(opt.Checkpoint), SHA256: digest}
	var parts []filled
	for _, part := range m.trained() {
		key := part.prefix[:len(part.prefix)-1] // the released names are ours
		parts = append(parts, filled{net: part.net, name: func(name string) string { return released.Name(key, name) }, countsOptional: true})
	}
	if err := fill(file, released.Within, parts...); err != nil {
		m.Close()
		return nil, fmt.Errorf("as %s of %s: %w", config.Method, config.Arch, err)
	}
	return m, ctx.Err()
}

// importConfig is the configuration of a checkpoint, the released protocol's where nothing tells.
func importConfig(released *weights.Released, opt *ImportOptions) (Config, error) {
	config := Preset(PresetPaper, opt.Category)
	config.Method, config.BitDepth = MethodRD, 16 // as OpenCV has read its images
	if released.Projection {
		config.Method = MethodRDPP
	}
	switch config.Arch = opt.Arch; {
	case opt.Arch == "" && released.Arch == "":
		return config, setting.Advise(errors.New("its architecture is not recognised"), "name it with {arch}")
	case opt.Arch == "":
		config.Arch = released.Arch
		if !slices.Contains(torch.Architectures(), released.Arch) {
			return config, fmt.Errorf("it is of the architecture %s; one of %v is needed", released.Arch, torch.Architectures())
		}
	}
	if opt.ImageSize != 0 {
		config.ImageSize = opt.ImageSize
	}
	if rate := opt.FalseAlarm; rate != 0 {
		if !(rate > 0 && rate < 1) {
			return config, wrong("false_alarm", rate, "use a share of the good images, above 0 and below 1")
		}
		config.FalseAlarm = rate
	}
	if err := config.Validate(); err != nil {
		return config, err
	}
	return config, sameArch(released.Arch, config.Arch)
}

func (m *Model) importTeacher(ctx context.Context, opt *ImportOptions) error {
	name, err := FindTeacher(ctx, opt.Teacher, m.Info.Config.Arch, TeacherOptions{OnDownload: opt.OnDownload, Log: opt.Log})
	if err != nil {
		return err
	}
	return m.LoadTeacher(name)
}

// calibrateBy sets the thresholds by good images, if there are any.
func (m *Model) calibrateBy(ctx context.Context, opt *ImportOptions) error {
	if len(opt.Good) == 0 {
		m.Info.Calibration = Calibration{Rule: "none: imported without images of good parts", Provisional: true}
		return nil
	}
	cache := dataset.NewCache(dataset.CacheOptions{Size: m.Info.Config.ImageSize, MaxBytes: -1, MaxPixels: opt.MaxPixels, BitDepth: m.Info.Config.BitDepth})
	scores, err := m.scores(ctx, opt.Good, cache)
	if err != nil {
		return err
	}
	if !opt.Unseen {
		m.Info.Calibration = provisional(scores)
		return nil
	}
	if m.Info.Calibration, err = calibrate(scores, m.Info.Config.FalseAlarm, 0, false); err != nil {
		return err
	}
	m.Info.Data.HeldOut = len(scores)
	return nil
}
