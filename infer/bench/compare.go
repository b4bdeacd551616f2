package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"rdpp/rdpp"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/weights"
)

// Subject is a model as its file, and the metrics.json that its training has left beside that, tell of it.
type Subject struct {
	Model     string `json:"model"`                  // its file
	Base64    string `json:"model_base64,omitempty"` // its name's bytes, where it is not UTF-8, which JSON cannot hold
	Category  string `json:"category"`
	Arch      string `json:"arch"`
	Method    string `json:"method"`
	ImageSize int    `json:"image_size"`  // side of the network's input, pixels
	Teacher   string `json:"teacher"`     // its origin, and how the SHA-256 of its file begins
	Bytes     int64  `json:"model_bytes"` // of the file

	Training *Training `json:"training,omitempty"`         // nil: Unknown says why
	Unknown  string    `json:"training_unknown,omitempty"` // in words
}

// Training is what is known of how a model came to be. Rates lie in 0 to 1; nil where they were not measured.
type Training struct {
	Seconds            float64  `json:"seconds"`               // over all epochs, on the machine that trained
	CalibrationSeconds float64  `json:"calibration_seconds"`   // and for the threshold
	ImageAUROC         *float64 `json:"image_auroc,omitempty"` // on its test images
	PixelAUROC         *float64 `json:"pixel_auroc,omitempty"`
	BestOnTest         bool     `json:"best_on_test"` // the epoch was chosen by these: they are optimistic
}

// Look reads the header of a model file, and what lies beside it.
func Look(file string) (*Subject, error) {
	f, err := weights.OpenSafetensors(file)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer f.Close()
	info, _, err := modelfile.ReadInfo(f)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", file, err)
	}
	s := &Subject{Model: file, Base64: printable.Base64(file), Category: info.Category, Arch: info.Config.Arch, Method: info.Config.Method,
		ImageSize: info.Config.ImageSize, Teacher: teacherOf(info.Teacher), Bytes: f.Size()}
	if s.Training, err = trainingOf(file, &info); err != nil {
		s.Unknown = err.Error()
	}
	return s, nil
}

// teacherOf names a teacher in a few words that tell it from every other one.
func teacherOf(t rdpp.TeacherInfo) string {
	if t.SHA256 == "" {
		return t.Origin
	}
	return fmt.Sprintf("%s (%.8s)", t.Origin, t.SHA256)
}

// trainingOf reads the metrics.json beside a model file. Its errors say why nothing is known of the training.
func trainingOf(file string, info *modelfile.Info) (*Training, error) {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(file), rdpp.MetricsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no %s beside the model", rdpp.MetricsFile)
	}
	if err != nil {
		return nil, err
	}
	var s rdpp.Summary
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("%s beside the model: %w", rdpp.MetricsFile, err)
	}
	is, was := &info.Config, &s.Config
	if is.Method != was.Method || is.Arch != was.Arch || is.ImageSize != was.ImageSize || is.Seed != was.Seed || info.Epoch != s.Epoch ||
		info.Category != s.Category || info.Teacher.SHA256 != s.Teacher.SHA256 {
		return nil, fmt.Errorf("%s beside the model is another training's", rdpp.MetricsFile)
	}
	for _, rate := range []struct {
		name  string
		value *float64
	}{{"image_auroc", s.ImageAUROC}, {"pixel_auroc", s.PixelAUROC}} {
		if v := rate.value; v != nil && !(*v >= 0 && *v <= 1) {
			return nil, fmt.Errorf("%s beside the model: %s is %g, to be within 0 and 1", rdpp.MetricsFile, rate.name, *v)
		}
	}
	return &Training{Seconds: s.TrainingSeconds, CalibrationSeconds: s.CalibrationSeconds, ImageAUROC: s.ImageAUROC, PixelAUROC: s.PixelAUROC,
		BestOnTest: was.Select == rdpp.SelectBestOnTest}, nil
}

// Find lists the models of files and of folders, which are looked through for what train has written: by category, then in the
// order of the methods.
func Find(paths []string) (all []*Subject, err error) {
	seen := map[string]bool{} // by the name that links lead to
	add := func(file string) error {
		own, err := filepath.EvalSymlinks(file)
		if err == nil {
			own, err = filepath.Abs(own)
		}
		if err != nil {
			return fmt.Errorf("bench: %w; check the path", err)
		}
		if seen[own] {
			return nil
		}
		seen[own] = true
		s, err := Look(filepath.Clean(file))
		all = append(all, s)
		return err
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("bench: %w; check the path", err)
		}
		if !info.IsDir() {
			if err := add(path); err != nil {
				return nil, err
			}
			continue
		}
		found := false
		// With the separator a link to a folder is followed.
		err = filepath.WalkDir(path+string(filepath.Separator), func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || entry.Name() != rdpp.ModelFile {
				return err
			}
			found = true
			return add(file)
		})
		if err != nil {
			return nil, fmt.Errorf("bench: %s: %w", path, err)
		}
		if !found {
			return nil, fmt.Errorf("bench: no %s in %s or below; name a folder that train wrote", rdpp.ModelFile, path)
		}
	}
	methods := rdpp.Methods()
	slices.SortStableFunc(all, func(a, b *Subject) int {
		return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(slices.Index(methods, a.Method), slices.Index(methods, b.Method)),
			cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.ImageSize, b.ImageSize), cmp.Compare(a.Teacher, b.Teacher))
	})
	return all, nil
}

// Kind is what of a model decides what it costs and finds: models of one kind are one method's, of different categories and
// seeds.
type Kind struct {
	Method    string `json:"method"`
	Arch      string `json:"arch"`
	ImageSize int    `json:"image_size"` // side of the network's input, pixels
	Teacher   string `json:"teacher"`    // as a Subject's
	Device    string `json:"device"`     // "cpu" or "cuda:N"
}

// Mean is a method over the categories that all methods have models of: the mean of each category's mean. What is not known of
// all of them is nil.
type Mean struct {
	Kind
	Categories       []string `json:"categories"`
	Models           int      `json:"models"`
	LatencyMS        float64  `json:"latency_ms"`        // of an image, the median
	Throughput       float64  `json:"images_per_second"` // an image per pass
	PeakMemory       int64    `json:"peak_memory_bytes"`
	PeakDeviceMemory int64    `json:"peak_device_memory_bytes"`
	Bytes            int64    `json:"model_bytes"`
	Seconds          *float64 `json:"training_seconds,omitempty"`
	ImageAUROC       *float64 `json:"image_auroc,omitempty"`
	PixelAUROC       *float64 `json:"pixel_auroc,omitempty"`
}

// Memory is that of the device that the model runs on, bytes.
func (m *Mean) Memory() int64 { return cmp.Or(m.PeakDeviceMemory, m.PeakMemory) }

// Means are the methods in the order of their first reports; none where they share no category.
func Means(reports []*Report) (all []Mean) {
	var kinds []Kind
	var categories []string
	groups := map[Kind]map[string][]*Report{} // by category
	for _, r := range reports {
		categories = append(categories, r.Category)
		k := Kind{r.Method, r.Arch, r.ImageSize, r.Teacher, r.Device}
		if groups[k] == nil {
			kinds, groups[k] = append(kinds, k), map[string][]*Report{}
		}
		groups[k][r.Category] = append(groups[k][r.Category], r)
	}
	slices.Sort(categories)
	categories = slices.DeleteFunc(slices.Compact(categories), func(category string) bool {
		return slices.ContainsFunc(kinds, func(k Kind) bool { return len(groups[k][category]) == 0 })
	})
	if len(categories) == 0 {
		return nil
	}
	for _, k := range kinds {
		m := Mean{Kind: k, Categories: categories}
		of := func(value func(r *Report) *float64) *float64 {
			sum := 0.0
			for _, category := range categories {
				for _, r := range groups[k][category] {
					v := value(r)
					if v == nil {
						return nil
					}
					sum += *v / float64(len(groups[k][category]))
				}
			}
			return new(sum / float64(len(categories)))
		}
		known := func(value func(r *Report) float64) float64 {
			return *of(func(r *Report) *float64 { return new(value(r)) })
		}
		trained := func(value func(t *Training) *float64) *float64 {
			return of(func(r *Report) *float64 {
				if r.Training == nil {
					return nil
				}
				return value(r.Training)
			})
		}
		for _, category := range categories {
			m.Models += len(groups[k][category])
		}
		m.LatencyMS = known(func(r *Report) float64 { return r.Speeds[0].Latency.P50 })
		m.Throughput = known(func(r *Report) float64 { return r.Speeds[0].Throughput })
		m.PeakMemory = int64(known(func(r *Report) float64 { return float64(r.PeakMemory) }))
		m.PeakDeviceMemory = int64(known(func(r *Report) float64 { return float64(r.PeakDeviceMemory) }))
		m.Bytes = int64(known(func(r *Report) float64 { return float64(r.Bytes) }))
		m.Seconds = trained(func(t *Training) *float64 { return &t.Seconds })
		m.ImageAUROC = trained(func(t *Training) *float64 { return t.ImageAUROC })
		m.PixelAUROC = trained(func(t *Training) *float64 { return t.PixelAUROC })
		all = append(all, m)
	}
	return all
}
