// Package reproduce holds the numbers that the RD++ paper prints in its Tables 1 to 8, plans the trainings that measure
// them again, and shows what was measured beside what was printed, in the paper's arrangement.
//
// A [Plan] lists the trainings that some tables need, each once however many tables need it. A [Run] carries them out by
// calling the program that trains, and hands their outcomes to [Plan.Compare]; the [Comparison] writes itself as Markdown,
// CSV and HTML.
//
// But for a Run, which is one goroutine's, functions and methods are safe for concurrent use, as nothing is changed once
// it is made.
package reproduce

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/setting"
)

// The data sets of the paper.
const (
	MVTec = "mvtec" // MVTec AD, 15 categories
	BTAD  = "btad"  // BTAD, categories 01, 02 and 03
	OCT   = "oct"   // retinal OCT, which is one category, called oct here
)

// variants are Table 6's, RD++ without some of its losses, and the flags that make them of it.
var variants = map[string][]string{
	"rd+ssot":     {"--weight-recon", "0", "--weight-contrast", "0"},
	"rd+ssot+con": {"--weight-recon", "0"},
}

// trained is the method that train knows a method of the tables by.
func trained(method string) string {
	if variants[method] != nil {
		return rdpp
	}
	return method
}

// noisy says whether a method learns from images with noise, whose level Table 7 varies.
func noisy(method string) bool { return trained(method) == rdpp }

const (
	rd          = "rd"   // the baseline
	rdpp        = "rd++" // with all losses
	paperArch   = "wide_resnet50_2"
	paperNoise  = 0.2
	paperSize   = 256 // pixels
	paperSelect = "best-on-test"
	maxSeeds    = 100
	teacherAuto = "auto"
)

// teachersInside are the words for teachers that are surely not torchvision's.
var teachersInside = []string{"random", "builtin", "drawn"}

// Options say what to reproduce. Zero fields mean the defaults.
type Options struct {
	Tables     []int    // of the paper, 1 to 8; default all
	Categories []string // of MVTec AD, by their folders' names; default all 15
	Arch       string   // backbone of Tables 1 to 7; default wide_resnet50_2, the paper's. Table 8 has its own three
	Seeds      int      // trainings of each kind, with the seeds 1 to Seeds; default 1, at most 100
	Methods    []string // to train, as train calls them; default the paper's own, rd and rd++. The paper need not have them

	// What departs from the paper's protocol, and is handed to every training.
	Epochs      int               // of every training; default: the preset's, per category
	OnePass     []string          // those of Methods that take one pass over the images in any case, and are not told Epochs
	ImageSize   int               // side of the network's input, pixels; default 256
	Calibration float64           // share of the good images that is held out for the threshold; default 0, as released: there is none worth the name then
	Teacher     string            // weight file, or a word such as "random" or "auto", the default
	Teachers    map[string]string // the same for single backbones, which Teacher then does not apply to
}

// Training is one training of the paper's experiments. Equal trainings are equal values.
type Training struct {
	Dataset  string  `json:"dataset"`  // MVTec, BTAD or OCT
	Category string  `json:"category"` // its folder's name, but for OCT
	Arch     string  `json:"arch"`
	Method   string  `json:"method"` // one of Options.Methods, or "rd+ssot" or "rd+ssot+con"
	Noise    float64 `json:"noise"`  // lambda; 0 for methods that have none
	Seed     uint64  `json:"seed"`
}

// Folder names the folder of the results of all categories that share the training's settings.
func (t Training) Folder() string {
	name := fmt.Sprintf("%s_%s_%s", t.Dataset, t.Arch, t.Method)
	if noisy(t.Method) {
		name += "_noise" + strconv.FormatFloat(t.Noise, 'g', -1, 64)
	}
	return fmt.Sprintf("%s_seed%d", name, t.Seed)
}

func (t Training) String() string {
	text := fmt.Sprintf("%s %s, %s, %s", t.Dataset, t.Category, t.Method, t.Arch)
	if noisy(t.Method) {
		text += ", noise " + strconv.FormatFloat(t.Noise, 'g', -1, 64)
	}
	return fmt.Sprintf("%s, seed %d", text, t.Seed)
}

// Plan is what some of the paper's tables need.
type Plan struct {
	Trainings []Training // all different; those of the first table first
	opt       Options    // with the defaults put in
	named     bool       // whether the categories were asked for by name
	tables    []paperTable
}

// NewPlan plans the trainings of some tables. nil means the defaults. Its errors are those of settings (setting.Error).
func NewPlan(options *Options) (*Plan, error) {
	p := &Plan{}
	if options != nil {
		p.opt, p.named = *options, len(options.Categories) > 0
	}
	wrong := func(field string, value any, want string, args ...any) (*Plan, error) {
		return nil, fmt.Errorf("reproduce: %w", setting.Wrong(field, value, want, args...))
	}
	known := paper.Datasets[MVTec].Categories
	p.opt.Arch = cmp.Or(p.opt.Arch, paperArch)
	p.opt.Seeds = cmp.Or(p.opt.Seeds, 1)
	p.opt.Teacher = cmp.Or(p.opt.Teacher, teacherAuto)
	if p.opt.Methods = distinct(p.opt.Methods); len(p.opt.Methods) == 0 {
		p.opt.Methods = []string{rd, rdpp}
	}
	for _, m := range p.opt.Methods {
		if m == "" || m != filepath.Base(m) || variants[m] != nil { // it becomes part of a folder's name
			return wrong("methods", m, "use names of methods that train knows")
		}
	}
	for _, c := range p.opt.Categories {
		if !slices.Contains(known, c) {
			return wrong("categories", c, "MVTec AD has %s", strings.Join(known, ", "))
		}
	}
	switch {
	case p.opt.Seeds < 1 || p.opt.Seeds > maxSeeds:
		return wrong("seeds", p.opt.Seeds, "use 1 to %d", maxSeeds)
	case p.opt.Epochs < 0:
		return wrong("epochs", p.opt.Epochs, "use at least 1, or 0 for the paper's")
	case p.opt.ImageSize < 0:
		return wrong("image_size", p.opt.ImageSize, "use a multiple of 32, or 0 for the paper's")
	case !(p.opt.Calibration >= 0 && p.opt.Calibration < 1):
		return wrong("calibration", p.opt.Calibration, "use a share of the good images")
	}
	for _, number := range p.opt.Tables {
		if number < 1 || number > len(paper.Tables) {
			return wrong("tables", number, "the paper's results are in Tables 1 to %d", len(paper.Tables))
		}
	}
	p.opt.Categories = chosen(known, p.opt.Categories, func(c string) string { return c })
	for _, t := range chosen(paper.Tables, p.opt.Tables, func(t paperTable) int { return t.Number }) {
		t = t.of(p.opt.Methods)
		if trainings := p.trainings(&t); len(trainings) > 0 {
			p.tables, p.Trainings = append(p.tables, t), append(p.Trainings, trainings...)
		}
	}
	if p.Trainings = distinct(p.Trainings); len(p.Trainings) == 0 {
		return wrong("methods", strings.Join(p.opt.Methods, ","), "none of the tables that are asked for has them; add others, or other {tables}")
	}
	return p, nil
}

// chosen are those of all, in their order, whose keys are in keys; all where there are no keys.
func chosen[T any, K comparable](all []T, keys []K, key func(T) K) (some []T) {
	for _, one := range all {
		if len(keys) == 0 || slices.Contains(keys, key(one)) {
			some = append(some, one)
		}
	}
	return some
}

// distinct leaves the first of those that are equal.
func distinct[T comparable](all []T) (some []T) {
	seen := map[T]bool{}
	for _, one := range all {
		if !seen[one] {
			seen[one] = true
			some = append(some, one)
		}
	}
	return some
}

// trainings are those of a table, row by row, some of them several times.
func (p *Plan) trainings(t *paperTable) (all []Training) {
	for _, row := range t.Rows {
		for _, column := range t.Columns {
			s := t.at(row.selector, column.selector)
			for _, category := range p.categories(s) {
				all = append(all, p.seeds(s, category)...)
			}
		}
	}
	return all
}

// categories are those whose trainings make a cell: one, or all that an average is over. There are none where the
// paper's number is of a method that is not trained here.
func (p *Plan) categories(s selector) []string {
	switch {
	case s.Method == "":
		return nil
	case s.Category == "" && s.dataset == MVTec:
		return p.opt.Categories
	case s.Category == "":
		return paper.Datasets[s.dataset].Categories
	case s.dataset == MVTec && !slices.Contains(p.opt.Categories, s.Category):
		return nil
	}
	return []string{s.Category}
}

// seeds are the trainings of a cell on one category.
func (p *Plan) seeds(s selector, category string) (all []Training) {
	t := Training{Dataset: s.dataset, Category: category, Arch: s.Arch, Method: s.Method}
	t.Arch = cmp.Or(t.Arch, p.opt.Arch)
	if noisy(t.Method) {
		t.Noise = s.Noise
		t.Noise = cmp.Or(t.Noise, paperNoise)
	}
	for t.Seed = 1; t.Seed <= uint64(p.opt.Seeds); t.Seed++ {
		all = append(all, t)
	}
	return all
}

// teacher is what a backbone's trainings are told to take.
func (p *Plan) teacher(arch string) string {
	if name := p.opt.Teachers[arch]; name != "" {
		return name
	}
	return p.opt.Teacher
}

// counted says whether a training is told Options.Epochs.
func (p *Plan) counted(t Training) bool {
	return p.opt.Epochs > 0 && !slices.Contains(p.opt.OnePass, t.Method)
}

// Args are train's flags for a training, all but those that name data, results and machine.
func (p *Plan) Args(t Training) []string {
	args := []string{"--preset", "paper", "--arch", t.Arch, "--method", trained(t.Method), "--teacher", p.teacher(t.Arch),
		"--seed", strconv.FormatUint(t.Seed, 10)}
	if noisy(t.Method) {
		args = append(args, "--noise", strconv.FormatFloat(t.Noise, 'g', -1, 64))
	}
	args = append(args, variants[t.Method]...)
	if p.counted(t) {
		args = append(args, "--epochs", strconv.Itoa(p.opt.Epochs))
	}
	if p.opt.Calibration > 0 {
		args = append(args, "--calibration", strconv.FormatFloat(p.opt.Calibration, 'g', -1, 64))
	}
	if p.opt.ImageSize > 0 {
		args = append(args, "--image-size", strconv.Itoa(p.opt.ImageSize))
	}
	return args
}

// Result is what a comparison needs of a training's metrics.json. Metrics lie in 0 to 1 and are nil where they were
// not measured.
type Result struct {
	Config struct {
		Arch           string  `json:"arch"`
		Method         string  `json:"method"`
		ImageSize      int     `json:"image_size"`
		Epochs         int     `json:"epochs"`
		Select         string  `json:"select"` // which epoch became the model
		Seed           uint64  `json:"seed"`
		NoiseLambda    float64 `json:"noise_lambda"`
		WeightRecon    float64 `json:"weight_recon"`
		WeightContrast float64 `json:"weight_contrast"`
		Calibration    float64 `json:"calibration"`
	} `json:"config"`
	Teacher            Teacher `json:"teacher"`
	Selection          string  `json:"selection"`           // how the epoch was chosen, in words
	Seconds            float64 `json:"seconds"`             // of the training
	CalibrationSeconds float64 `json:"calibration_seconds"` // and of those for the threshold
	EvaluationSeconds  float64 `json:"evaluation_seconds"`  // for all test images, read and decoded
	anomaly.Metrics
	anomaly.Verdicts
	HasMasks    bool `json:"has_masks"`             // the test images have masks
	Provisional bool `json:"threshold_provisional"` // no good images were held out for the threshold

	// What metrics.json does not have: the model file's size, and what BenchFile says of the model; 0: not known.
	ModelBytes  int64   `json:"model_bytes,omitempty"`
	LatencyMS   float64 `json:"latency_ms,omitempty"` // of an image, the median
	MemoryBytes int64   `json:"memory_bytes,omitempty"`
}

// String is the metrics in a line, those that there are.
func (r *Result) String() string {
	var parts []string
	for _, m := range []struct {
		name  string
		value *float64
	}{{"image AUROC", r.ImageAUROC}, {"pixel AUROC", r.PixelAUROC}, {"AUPRO", r.AUPRO}} {
		if m.value != nil {
			parts = append(parts, fmt.Sprintf("%s %.4f", m.name, *m.value))
		}
	}
	return strings.Join(parts, " ")
}

// Teacher is where a training's teacher came from.
type Teacher struct {
	Origin string `json:"origin"` // "random", "drawn", "builtin-imagenet" or a file's name
	SHA256 string `json:"sha256"` // of the weights; empty where they are random
}

// UnmarshalJSON reads "builtin", as older versions called the teacher of drawn pictures, as "drawn".
func (t *Teacher) UnmarshalJSON(text []byte) error {
	type plain Teacher
	if err := json.Unmarshal(text, (*plain)(t)); err != nil {
		return err
	}
	if t.Origin == "builtin" {
		t.Origin = "drawn"
	}
	return nil
}

func (t Teacher) String() string {
	if t.SHA256 == "" {
		return t.Origin
	}
	return t.Origin + ", SHA-256 " + t.SHA256[:min(8, len(t.SHA256))]
}

// ReadResult reads a metrics.json. An error wraps os.ErrNotExist where there is none, and names the file.
func ReadResult(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reproduce: %w", err)
	}
	r := &Result{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("reproduce: %s: %w; remove it, and the training is finished again", path, err)
	}
	for _, v := range []*float64{r.ImageAUROC, r.PixelAUROC, r.AUPRO, r.PROReleased} {
		if v != nil && !(*v >= 0 && *v <= 1) {
			return nil, fmt.Errorf("reproduce: %s: a metric of %v; all lie in 0 to 1; remove the file, and the training is finished again",
				path, *v)
		}
	}
	return r, nil
}

// Fits says whether a result is that of a training of the plan.
func (p *Plan) Fits(r *Result, t Training) bool {
	c := &r.Config
	switch {
	case c.Arch != t.Arch || c.Seed != t.Seed || c.Method != trained(t.Method):
		return false
	case p.counted(t) && c.Epochs != p.opt.Epochs, p.opt.ImageSize > 0 && c.ImageSize != p.opt.ImageSize, p.opt.Calibration > 0 && c.Calibration != p.opt.Calibration:
		return false
	}
	without := func(flag string) bool { return slices.Contains(variants[t.Method], flag) }
	return !noisy(t.Method) || c.NoiseLambda == t.Noise && (c.WeightRecon > 0) == !without("--weight-recon") &&
		(c.WeightContrast > 0) == !without("--weight-contrast")
}
