package reproduce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rdpp/rdpp/setting"
	"rdpp/rdpp/share"
)

// Files of a reproduction: in its folder, and in those of single trainings.
const (
	ResultsMarkdown = "results.md"
	ResultsCSV      = "results.csv"
	ResultsHTML     = "results.html"
	ResultsJSON     = "results.json"
	settingsFile    = "settings.json"
	failureFile     = "failure.json"
	logFile         = "train.log"

	metricsFile    = "metrics.json" // of a training, as train writes it
	modelFile      = "model.safetensors"
	checkpointFile = "checkpoint"
)

// ErrInterrupted is wrapped by the errors of a Run whose context ended before all was trained.
var ErrInterrupted = errors.New("interrupted")

// RunOptions say where and how to train. All but OnEvent and Complain are needed.
type RunOptions struct {
	Out     string            // folder for trainings and results
	Roots   map[string]string // data set -> its folder, absolute; none where there is no data
	Devices []string          // as train calls them; each has a training at a time
	Threads int               // CPU threads of a training
	Program string            // file of the program that trains

	// Share is which share of the trainings is done; zero: all are.
	Share share.Share
	// Hand, if not nil, has the trainings done elsewhere, instead of by Program on Devices.
	Hand func(ctx context.Context, h *Handed) error

	OnEvent  func(Event) // called one at a time
	Complain func(error) // is told of what stops nothing
}

// Handed is what Hand has done elsewhere: some trainings, numbered from 0. It returns when Done is true of all, or Failed has been
// called for the others.
type Handed struct {
	Of     int
	There  string                     // a file in the folder of results
	Args   func(i int) []string       // the command line, but for flags of the machine
	Data   func(i int) string         // folder of the images
	Done   func(i int) bool           // whether it has results; to be asked over and over
	Failed func(i int, reason string) // is told of one that cannot be done
}

// Event is something that happens to a Run. Its Name is begin, start, done, failed or end.
type Event struct {
	Name, Text string
	Fields     map[string]any // the same for programs, by names in JSON
	Spent      time.Duration  // since the Run was made
	Left       time.Duration  // estimated, until its end; negative while nothing tells
}

// Run is the trainings of a plan in a folder, of which some may have been done before.
type Run struct {
	opt  RunOptions
	plan *Plan
	lock *os.File // on the folder

	bench map[string]benched // of models, by their folders' paths in Out

	mutex    sync.Mutex // of all that follows
	started  time.Time
	others   []Training // not finished when this began, and of other shares
	outcomes map[Training]Outcome
	todo     []Training // not finished when this began
	tried    map[Training]bool
	running  map[Training]time.Time
	took     map[Training]time.Duration
	failed   int
	writing  error // the last of the results' files that could not be written
}

// NewRun looks at what is done of a plan, and what can be: categories that the plan names must be there, and the folder
// must not have been made with other settings. It writes nothing.
func NewRun(plan *Plan, opt *RunOptions) (*Run, error) {
	r := &Run{opt: *opt, plan: plan, started: time.Now(), running: map[Training]time.Time{}, took: map[Training]time.Duration{}}
	if r.opt.OnEvent == nil {
		r.opt.OnEvent = func(Event) {}
	}
	if r.opt.Complain == nil {
		r.opt.Complain = func(error) {}
	}
	var err error
	if r.bench, err = readBench(r.opt.Out); err != nil {
		r.opt.Complain(err) // the tables are whole without
	}
	if err := r.look(); err != nil {
		return nil, err
	}
	return r, nil
}

// Planned is a training of a Run and how it stands.
type Planned struct {
	Training Training
	State    string   // "done", "to do", "begun", or why it is not to be done
	Args     []string // the command line of what is to be done or begun; nil of others
}

// Plan lists the trainings as they stand.
func (r *Run) Plan() (all []Planned) {
	for _, t := range r.plan.Trainings {
		p := Planned{Training: t, State: "to do"}
		switch {
		case r.outcomes[t].Result != nil:
			p.State = "done"
		case !slices.Contains(r.todo, t):
			p.State = r.outcomes[t].Missing
		default:
			p.Args = r.args(t, r.opt.Devices[0])
			if exists(filepath.Join(r.folder(t), checkpointFile)) {
				p.State = "begun"
			}
		}
		all = append(all, p)
	}
	return all
}

// source are the values of --data and --category of a training, both empty where there is no data at all.
func (r *Run) source(t Training) (data, category string) {
	root := r.opt.Roots[t.Dataset]
	switch {
	case root == "":
		return "", ""
	case t.Dataset == OCT:
		return filepath.Dir(root), filepath.Base(root)
	}
	return root, t.Category
}

// base is --out of a training, folder what that makes of it.
func (r *Run) base(t Training) string { return filepath.Join(r.opt.Out, t.Folder()) }

func (r *Run) folder(t Training) string {
	_, category := r.source(t)
	if category == "" {
		category = t.Category
	}
	return filepath.Join(r.base(t), category)
}

// args is the command line of a training.
func (r *Run) args(t Training, device string) []string {
	return append(r.argsAnywhere(t), "--device", device, "--threads", strconv.Itoa(r.opt.Threads), "--resume")
}

// argsAnywhere are those that do not depend on the machine.
func (r *Run) argsAnywhere(t Training) []string {
	data, category := r.source(t)
	return append(r.plan.Args(t), "--data", data, "--category", category, "--out", r.base(t))
}

// mine says whether a training is in this process's share.
func (r *Run) mine(t Training) bool {
	if r.opt.Share.N < 2 {
		return true
	}
	from, to := r.opt.Share.Range(len(r.plan.Trainings))
	i := slices.Index(r.plan.Trainings, t)
	return from <= i && i < to
}

// look finds what is done, and what can be.
func (r *Run) look() error {
	if err := r.checkSettings(); err != nil {
		return err
	}
	r.outcomes, r.todo, r.others, r.tried = map[Training]Outcome{}, nil, nil, map[Training]bool{}
	field := map[string]string{MVTec: "data", BTAD: "btad", OCT: "oct"}
	for _, t := range r.plan.Trainings {
		// Metrics that cannot be read are made again.
		if result, err := r.result(t); err == nil {
			r.outcomes[t] = Outcome{Result: result}
			continue
		}
		data, category := r.source(t)
		if data == "" {
			r.outcomes[t] = Outcome{Missing: "no data: --" + field[t.Dataset] + " was not given"}
			continue
		}
		dir := filepath.Join(data, category)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			if r.plan.named && t.Dataset == MVTec {
				return setting.Advise(fmt.Errorf("reproduce: there is no folder %s", dir), "correct {data} or {categories}")
			}
			r.outcomes[t] = Outcome{Missing: "no data: no folder of that name in " + data}
			continue
		}
		if r.mine(t) {
			r.todo = append(r.todo, t)
		} else {
			r.others = append(r.others, t)
			r.outcomes[t] = Outcome{Missing: "not done yet, and of another share"}
		}
		var failure struct{ Reason string }
		if text, err := os.ReadFile(filepath.Join(r.folder(t), failureFile)); err == nil && json.Unmarshal(text, &failure) == nil {
			r.outcomes[t] = Outcome{Missing: failedText(failure.Reason)}
		}
	}
	if len(r.todo)+len(r.others)+r.done() == 0 {
		var given any
		if root := r.opt.Roots[MVTec]; root != "" {
			given = root
		}
		return fmt.Errorf("reproduce: no training of these tables has data: %w", setting.Wrong("data", given,
			"{data} is for Tables 1 to 3 and 6 to 8 and has MVTec AD's categories as folders, {btad} is for Table 4, {oct} for Table 5"))
	}
	return nil
}

// result reads what a training has measured.
func (r *Run) result(t Training) (*Result, error) {
	path := filepath.Join(r.folder(t), metricsFile)
	result, err := ReadResult(path)
	if err == nil && !r.plan.Fits(result, t) {
		err = fmt.Errorf("reproduce: %s is that of other settings; remove it", path)
	}
	if err != nil {
		return nil, err
	}
	if model, err := os.Stat(filepath.Join(r.folder(t), modelFile)); err == nil {
		result.ModelBytes = model.Size()
		// Another model may have taken its place since.
		if b := r.bench[filepath.Join(t.Folder(), filepath.Base(r.folder(t)))]; b.modelBytes == model.Size() {
			result.LatencyMS, result.MemoryBytes = b.latencyMS, b.memoryBytes
		}
	}
	return result, nil
}

func failedText(reason string) string { return "failed: " + reason }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (r *Run) done() (n int) {
	for _, o := range r.outcomes {
		if o.Result != nil {
			n++
		}
	}
	return n
}

// settings are what all trainings of a folder have in common and their folders' names do not say.
type settings struct {
	Format    int               `json:"format"` // settingsFormat; 0: "builtin" is the teacher of drawn pictures
	Teacher   string            `json:"teacher"`
	Teachers  map[string]string `json:"teachers,omitempty"` // of single backbones
	Epochs    int               `json:"epochs,omitempty"`
	ImageSize int               `json:"image_size,omitempty"`

	Calibration float64 `json:"calibration,omitempty"`
}

const settingsFormat = 1

func (p *Plan) settings() settings {
	return settings{settingsFormat, p.opt.Teacher, p.opt.Teachers, p.opt.Epochs, p.opt.ImageSize, p.opt.Calibration}
}

// complete reads an older version's settings as today's.
func (s *settings) complete() {
	today := func(name string) string {
		if s.Format == 0 && name == "builtin" {
			return "drawn"
		}
		return name
	}
	s.Teacher = today(s.Teacher)
	for arch, name := range s.Teachers {
		s.Teachers[arch] = today(name)
	}
}

// String is the settings as flags.
func (s settings) String() string {
	teachers := s.Teacher
	for _, arch := range slices.Sorted(maps.Keys(s.Teachers)) {
		teachers += "," + arch + "=" + s.Teachers[arch]
	}
	args := []string{"--teacher", teachers}
	if s.Epochs > 0 {
		args = append(args, "--epochs", strconv.Itoa(s.Epochs))
	}
	if s.ImageSize > 0 {
		args = append(args, "--image-size", strconv.Itoa(s.ImageSize))
	}
	if s.Calibration > 0 {
		args = append(args, "--calibration", strconv.FormatFloat(s.Calibration, 'g', -1, 64))
	}
	return strings.Join(args, " ")
}

// madeOtherwise tells of a folder as the value of a setting.
type madeOtherwise struct {
	folder      string
	before, now settings
}

func (m madeOtherwise) String() string {
	return fmt.Sprintf("%s, which was made with %s, not with %s", m.folder, m.before, m.now)
}

// checkSettings refuses a folder that was made with other settings.
func (r *Run) checkSettings() error {
	path := filepath.Join(r.opt.Out, settingsFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return elsewhere(err)
	}
	var before settings
	if err := json.Unmarshal(text, &before); err != nil {
		return elsewhere(fmt.Errorf("%s: %w", path, err))
	}
	before.complete()
	if now := r.plan.settings(); before.String() != now.String() {
		return fmt.Errorf("reproduce: %w", setting.Wrong("out", madeOtherwise{r.opt.Out, before, now}, "give the same, or another folder"))
	}
	return nil
}

// elsewhere is an error about the folder.
func elsewhere(err error) error {
	return setting.Advise(fmt.Errorf("reproduce: %w", err), "choose another folder with {out}")
}
