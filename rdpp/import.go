package rdpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/config"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/document"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/reverse"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// ImportOptions say what Import makes a model of. Zero fields mean the defaults.
type ImportOptions struct {
	Checkpoint string       // file as RD++'s released code saves it, see Import; required
	Teacher    string       // that it was trained with, as for teacher.Find; default teacher.ImageNet
	Arch       string       // default: what the checkpoint is recognised as
	ImageSize  int          // side S of the network input in pixels, default DefaultConfig's
	Category   string       // name of the kind of parts, for the model file
	Device     torch.Device // default the CPU

	Good       []dataset.Item // images of good parts for the thresholds; none: there are no thresholds
	Unseen     bool           // the checkpoint was not trained on Good, so a rate of false alarms can be promised
	FalseAlarm float64        // that rate, 0 to 1; default DefaultConfig's
	MaxPixels  int64          // largest image accepted, default imagefile.DefaultMaxPixels

	OnDownload func(file string, done, total int64) // as in teacher.Options
	Log        *slog.Logger                         // default slog.Default()
}

// Import makes a model of a checkpoint that the released code of RD++, or of RD, has saved: a .pth, or a safetensors
// file, with {"proj": ..., "bn": ..., "decoder": ...}, RD's without proj. The teacher, which is not in it, must be
// the one that it was trained with; nothing can tell whether it is. The caller closes the model.
//
// Without Good the thresholds are 0 and the calibration provisional: every image is called anomalous. With Good that are
// not Unseen they are the highest score, and provisional too.
func Import(ctx context.Context, opt ImportOptions) (*modelfile.Model, error) {
	if opt.Teacher == "" {
		opt.Teacher = teacher.ImageNet
	}
	if opt.Teacher == teacher.Random {
		return nil, setting.Refuse("teacher", opt.Teacher, "a checkpoint needs the teacher that it was trained with")
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
	if err := importTeacher(ctx, m, &opt); err != nil {
		m.Close()
		return nil, err
	}
	if err := calibrateBy(ctx, m, &opt); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// importModel is the checkpoint's networks, with a teacher of fresh weights.
func importModel(ctx context.Context, file *weights.File, opt *ImportOptions) (*modelfile.Model, error) {
	for _, key := range document.Keys() {
		if _, found := file.Metadata[key]; found {
			return nil, errors.New("rdpp wrote it, so there is nothing to import; `infer info` shows what it is")
		}
	}
	released, ok := file.Released()
	if !ok {
		if nets := file.Backbones(); len(nets) > 0 {
			return nil, setting.Advise(fmt.Errorf("it is a %s; a checkpoint has \"bn\" and \"decoder\"", &nets[0]), "it may be the {teacher}")
		}
		return nil, errors.New("it has no \"bn\" and \"decoder\", as checkpoints of RD++ and RD have; `infer info` shows what it holds")
	}
	c, err := importConfig(&released, opt)
	if err != nil {
		return nil, err
	}
	digest, err := file.SHA256()
	if err != nil {
		return nil, err
	}
	m, err := modelfile.New(c, opt.Device)
	if err != nil {
		return nil, err
	}
	m.Info.Category = opt.Category
	m.Info.Imported = modelfile.ImportInfo{Origin: filepath.Base(opt.Checkpoint), SHA256: digest}
	if err := m.Net.(*reverse.Networks).LoadReleased(file, &released); err != nil {
		m.Close()
		return nil, fmt.Errorf("as %s of %s: %w", c.Method, c.Arch, err)
	}
	return m, ctx.Err()
}

// importConfig is the configuration of a checkpoint, the released protocol's where nothing tells.
func importConfig(released *weights.Released, opt *ImportOptions) (config.Config, error) {
	c := config.Preset(config.PresetPaper, opt.Category)
	c.Method, c.BitDepth = reverse.RD, 16 // as OpenCV has read its images
	if released.Projection {
		c.Method = reverse.RDPP
	}
	switch c.Arch = opt.Arch; {
	case opt.Arch == "" && released.Arch == "":
		return c, setting.Advise(errors.New("its architecture is not recognised"), "name it with {arch}")
	case opt.Arch == "":
		c.Arch = released.Arch
		if !slices.Contains(torch.Architectures(), released.Arch) {
			return c, fmt.Errorf("it is of the architecture %s; one of %v is needed", released.Arch, torch.Architectures())
		}
	}
	if opt.ImageSize != 0 {
		c.ImageSize = opt.ImageSize
	}
	if rate := opt.FalseAlarm; rate != 0 {
		if !(rate > 0 && rate < 1) {
			return c, setting.Refuse("false_alarm", rate, "use a share of the good images, above 0 and below 1")
		}
		c.FalseAlarm = rate
	}
	if err := c.Validate(); err != nil {
		return c, err
	}
	return c, teacher.SameArch(released.Arch, c.Arch)
}

func importTeacher(ctx context.Context, m *modelfile.Model, opt *ImportOptions) error {
	name, err := teacher.Find(ctx, opt.Teacher, m.Info.Config.Arch, teacher.Options{OnDownload: opt.OnDownload, Log: opt.Log})
	if err != nil {
		return err
	}
	return m.LoadTeacher(name)
}

// calibrateBy sets the thresholds by good images, if there are any.
func calibrateBy(ctx context.Context, m *modelfile.Model, opt *ImportOptions) error {
	if len(opt.Good) == 0 {
		m.Info.Calibration = anomaly.Calibration{Rule: "none: imported without images of good parts", Provisional: true}
		return nil
	}
	if err := m.Net.Settle(); err != nil {
		return err
	}
	cache := dataset.NewCache(dataset.CacheOptions{Size: m.Info.Config.ImageSize, MaxBytes: -1, MaxPixels: opt.MaxPixels, BitDepth: m.Info.Config.BitDepth, Framer: m.Framer})
	scores, err := evaluation.Scores(ctx, m, opt.Good, cache)
	if err != nil {
		return err
	}
	if !opt.Unseen {
		m.Info.Calibration = anomaly.Provisional(scores)
		return nil
	}
	if m.Info.Calibration, err = anomaly.Calibrate(scores, m.Info.Config.FalseAlarm, 0, false); err != nil {
		return err
	}
	m.Info.Data.HeldOut = len(scores.Images)
	return nil
}
