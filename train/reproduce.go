package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/reproduce"
	"rdpp/torch"
)

const reproduceUsage = `train reproduce --data ROOT --out RUN    train for the paper's tables again
Compares with the paper's numbers in RUN/results.md, .csv and .html, written
anew after every training. Called again it goes on where it was stopped or
killed; what has failed is tried again. Exit codes: 0 done, 1 some trainings
failed, 2 wrong usage, 130 interrupted.
`

// Files of a reproduction: in its folder, and in those of single trainings.
const (
	settingsFile = "settings.json"
	failureFile  = "failure.json"
	logFile      = "train.log"

	checkpointFile = "checkpoint" // of a training
)

// lockPatience is how long to wait for the trainings of a killed reproduction, which write a checkpoint first.
const lockPatience = 2 * time.Minute

// What tests put others in the place of.
var (
	trainProgram = os.Executable // the program that trains
	parseDevice  = torch.ParseDevice
)

func runReproduce(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	r := &reproduction{stdout: stdout, stderr: stderr, started: time.Now(), roots: map[string]string{},
		running: map[reproduce.Training]time.Time{}, took: map[reproduce.Training]time.Duration{}}
	opt := reproduce.Options{}
	flags := newFlags(reproduceUsage, stdout)
	defer func() { err = inFlags(flags, err) }()
	data := flags.String("data", "", "`ROOT` of MVTec AD's categories, for Tables 1 to 3 and 6 to 8")
	btad := flags.String("btad", "", "`DIR` of BTAD's categories 01, 02 and 03, for Table 4")
	oct := flags.String("oct", "", "`DIR` of the retinal OCT images, for Table 5")
	flags.StringVar(&r.out, "out", "", "`RUN`, a folder for trainings and results")
	flags.IntSliceVar(&opt.Tables, "tables", nil, "`N,N` of the paper, 1 to 8; default all")
	flags.StringSliceVar(&opt.Categories, "categories", nil, "`NAMES` of MVTec AD's; default all that are in ROOT")
	flags.StringVar(&opt.Arch, "arch", "wide_resnet50_2", "backbone of Tables 1 to 7, `NAME`; Table 8 has three")
	teachers := flags.StringSlice("teacher", []string{rdpp.TeacherAuto}, "`FILE`, "+strings.Join(rdpp.TeacherWords(), ", ")+"; ARCH=FILE: of one")
	flags.IntVar(&opt.Epochs, "epochs", 0, "`N` for every training; default the paper's, per category")
	flags.IntVar(&opt.ImageSize, "image-size", 0, "`N` x N pixels for the network; default the paper's 256")
	flags.IntVar(&opt.Seeds, "seeds", 1, "`N` trainings of each kind, with the seeds 1 to N")
	devices := flags.StringSlice("devices", []string{"auto"}, "`D,D` to train on side by side; auto: all GPUs, else cpu")
	flags.IntVar(&r.threads, "threads", 0, "`N` CPU threads per training; default the cores, shared by the devices")
	dryRun := flags.Bool("dry-run", false, "show the trainings and what is done of them; train and write nothing")
	asJSON := flags.Bool("json", false, "one JSON object per line")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *asJSON {
		r.json = json.NewEncoder(stdout)
	}
	if r.out == "" {
		return fmt.Errorf("%w: --out is needed; see train reproduce --help", errUsage)
	}
	if err = readTeachers(&opt, *teachers); err != nil {
		return err
	}
	if err = checkTraining(&opt); err != nil {
		return err
	}
	if r.plan, err = reproduce.NewPlan(&opt); err != nil {
		return err
	}
	if r.devices, err = findDevices(*devices); err != nil {
		return err
	}
	if r.threads == 0 {
		r.threads = max(1, runtime.NumCPU()/len(r.devices))
	}
	if err := torch.SetThreads(r.threads); err != nil { // what trainings would refuse
		return fmt.Errorf("%w: --threads: %w", errUsage, err)
	}
	if r.program, err = trainProgram(); err != nil {
		return fmt.Errorf("the program that trains: %w", err)
	}
	for dataset, root := range map[string]string{reproduce.MVTec: *data, reproduce.BTAD: *btad, reproduce.OCT: *oct} {
		if root == "" {
			continue
		}
		if r.roots[dataset], err = filepath.Abs(root); err != nil {
			return err
		}
	}
	r.settings, r.named = settings{settingsFormat, opt.Teacher, opt.Teachers, opt.Epochs, opt.ImageSize}, len(opt.Categories) > 0
	if err = r.look(); err != nil {
		return err
	}
	if *dryRun {
		r.showPlan()
		return nil
	}
	return r.run(ctx)
}

// readTeachers splits --teacher into the teacher of all backbones and those of single ones.
func readTeachers(opt *reproduce.Options, names []string) error {
	opt.Teachers = map[string]string{}
	for _, name := range names {
		arch, single, found := strings.Cut(name, "=")
		if found = found && slices.Contains(torch.Architectures(), arch); found {
			name = single
		}
		// A path must mean the same file the next time, from wherever that is called.
		if !slices.Contains(rdpp.TeacherWords(), name) {
			path, err := filepath.Abs(name)
			if err != nil {
				return err
			}
			if !exists(path) {
				return fmt.Errorf("%w: --teacher: there is no file %s; name one, or use one of %s", errUsage, path,
					strings.Join(rdpp.TeacherWords(), ", "))
			}
			name = path
		}
		switch {
		case found:
			opt.Teachers[arch] = name
		case opt.Teacher == "":
			opt.Teacher = name
		default:
			return fmt.Errorf("%w: --teacher %s and %s; give one for all backbones, and ARCH=FILE for single ones", errUsage, opt.Teacher, name)
		}
	}
	if opt.Teacher == "" {
		opt.Teacher = rdpp.TeacherAuto
	}
	return nil
}

// checkTraining finds what every training would refuse.
func checkTraining(opt *reproduce.Options) error {
	c := rdpp.DefaultConfig()
	c.Arch = opt.Arch
	if opt.Epochs != 0 {
		c.Epochs = opt.Epochs
	}
	if opt.ImageSize != 0 {
		c.ImageSize = opt.ImageSize
	}
	return c.Validate()
}

// findDevices reads --devices.
func findDevices(names []string) ([]torch.Device, error) {
	var devices []torch.Device
	if len(names) == 1 && names[0] == "auto" {
		for {
			device, err := parseDevice(torch.CUDA(len(devices)).String())
			switch {
			case err == nil:
				devices = append(devices, device)
				continue
			case !errors.Is(err, torch.ErrNoDevice):
				return nil, err
			case len(devices) == 0:
				return []torch.Device{torch.CPU}, nil
			}
			return devices, nil
		}
	}
	for _, name := range names {
		device, err := parseDevice(name)
		switch {
		case errors.Is(err, torch.ErrNoDevice):
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("%w: --devices: %w", errUsage, err)
		case slices.Contains(devices, device):
			return nil, fmt.Errorf("%w: --devices names %s twice", errUsage, device)
		}
		devices = append(devices, device)
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("%w: --devices names none; use auto, cpu or cuda:N", errUsage)
	}
	return devices, nil
}

// reproduction is the trainings for some of the paper's tables.
type reproduction struct {
	out     string
	plan    *reproduce.Plan
	roots   map[string]string // data set -> its folder, absolute; none where there is no data
	devices []torch.Device
	threads int
	program string
	lock    *os.File // on out

	settings settings
	named    bool // whether the categories were asked for by name

	stdout, stderr io.Writer
	json           *json.Encoder // nil: plain lines

	mutex    sync.Mutex // of all that follows
	started  time.Time
	outcomes map[reproduce.Training]reproduce.Outcome
	todo     []reproduce.Training // not finished when this began
	tried    map[reproduce.Training]bool
	running  map[reproduce.Training]time.Time
	took     map[reproduce.Training]time.Duration
	failed   int
	writing  error // the last of the results' files that could not be written
}

// settings are what all trainings of a RUN have in common and their folders' names do not say.
type settings struct {
	Format    int               `json:"format"` // settingsFormat; 0: "builtin" is the teacher of drawn pictures
	Teacher   string            `json:"teacher"`
	Teachers  map[string]string `json:"teachers,omitempty"` // of single backbones
	Epochs    int               `json:"epochs,omitempty"`
	ImageSize int               `json:"image_size,omitempty"`
}

const settingsFormat = 1

// complete reads an older version's settings as today's.
func (s *settings) complete() {
	today := func(name string) string {
		if s.Format == 0 && name == rdpp.TeacherBuiltin {
			return rdpp.TeacherDrawn
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
	text := "--teacher " + s.Teacher
	for _, arch := range torch.Architectures() {
		if name := s.Teachers[arch]; name != "" {
			text += "," + arch + "=" + name
		}
	}
	if s.Epochs > 0 {
		text += " --epochs " + strconv.Itoa(s.Epochs)
	}
	if s.ImageSize > 0 {
		text += " --image-size " + strconv.Itoa(s.ImageSize)
	}
	return text
}

// checkSettings refuses a RUN that was made with other settings.
func (r *reproduction) checkSettings() error {
	path := filepath.Join(r.out, settingsFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; choose another folder with --out", err)
	}
	var before settings
	if err := json.Unmarshal(text, &before); err != nil {
		return fmt.Errorf("%s: %w; choose another folder with --out", path, err)
	}
	before.complete()
	if before.String() != r.settings.String() {
		return fmt.Errorf("%w: %s was made with %s, not with %s; give the same, or another folder with --out", errUsage, r.out, before,
			r.settings)
	}
	return nil
}

// source are the values of --data and --category of a training, both empty where there is no data at all.
func (r *reproduction) source(t reproduce.Training) (data, category string) {
	root := r.roots[t.Dataset]
	switch {
	case root == "":
		return "", ""
	case t.Dataset == reproduce.OCT:
		return filepath.Dir(root), filepath.Base(root)
	}
	return root, t.Category
}

// base is --out of a training, folder what that makes of it.
func (r *reproduction) base(t reproduce.Training) string { return filepath.Join(r.out, t.Folder()) }

func (r *reproduction) folder(t reproduce.Training) string {
	_, category := r.source(t)
	if category == "" {
		category = t.Category
	}
	return filepath.Join(r.base(t), category)
}

// look finds what is done, and what can be. Categories that were asked for by name must be there.
func (r *reproduction) look() error {
	if err := r.checkSettings(); err != nil {
		return err
	}
	r.outcomes, r.todo, r.tried = map[reproduce.Training]reproduce.Outcome{}, nil, map[reproduce.Training]bool{}
	flag := map[string]string{reproduce.MVTec: "--data", reproduce.BTAD: "--btad", reproduce.OCT: "--oct"}
	for _, t := range r.plan.Trainings {
		// Metrics that cannot be read are made again.
		if result, err := r.result(t); err == nil {
			r.outcomes[t] = reproduce.Outcome{Result: result}
			continue
		}
		data, category := r.source(t)
		if data == "" {
			r.outcomes[t] = reproduce.Outcome{Missing: "no data: " + flag[t.Dataset] + " was not given"}
			continue
		}
		dir := filepath.Join(data, category)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			if r.named && t.Dataset == reproduce.MVTec {
				return fmt.Errorf("there is no folder %s; correct --data or --categories", dir)
			}
			r.outcomes[t] = reproduce.Outcome{Missing: "no data: no folder of that name in " + data}
			continue
		}
		r.todo = append(r.todo, t)
		var failure struct{ Reason string }
		if text, err := os.ReadFile(filepath.Join(r.folder(t), failureFile)); err == nil && json.Unmarshal(text, &failure) == nil {
			r.outcomes[t] = reproduce.Outcome{Missing: failedText(failure.Reason)}
		}
	}
	if len(r.todo)+r.done() == 0 {
		return fmt.Errorf("%w: there is no data for any training of these tables: --data is for Tables 1 to 3 and 6 to 8 and has MVTec AD's "+
			"categories as folders, --btad is for Table 4, --oct for Table 5", errUsage)
	}
	return nil
}

// result reads what a training has measured.
func (r *reproduction) result(t reproduce.Training) (*reproduce.Result, error) {
	path := filepath.Join(r.folder(t), rdpp.MetricsFile)
	result, err := reproduce.ReadResult(path)
	if err == nil && !r.plan.Fits(result, t) {
		err = fmt.Errorf("%s is that of other settings; remove it", path)
	}
	return result, err
}

func failedText(reason string) string { return "failed: " + reason }

// args is the command line of a training.
func (r *reproduction) args(t reproduce.Training, device torch.Device) []string {
	data, category := r.source(t)
	return append(r.plan.Args(t), "--data", data, "--category", category, "--out", r.base(t), "--device", device.String(),
		"--threads", strconv.Itoa(r.threads), "--resume")
}

// showPlan lists the trainings, and how those are called that are still to be done.
func (r *reproduction) showPlan() {
	for i, t := range r.plan.Trainings {
		state, args := "to do", []string(nil)
		switch {
		case r.outcomes[t].Result != nil:
			state = "done"
		case !slices.Contains(r.todo, t):
			state = r.outcomes[t].Missing
		default:
			args = r.args(t, r.devices[0])
			if exists(filepath.Join(r.folder(t), checkpointFile)) {
				state = "begun"
			}
		}
		if r.json != nil {
			r.event("plan", map[string]any{"training": t, "number": i + 1, "of": len(r.plan.Trainings), "state": state, "args": args})
			continue
		}
		say(r.stdout, "%d/%d %s: %s", i+1, len(r.plan.Trainings), t, state)
		if args != nil {
			say(r.stdout, "    %s %s", filepath.Base(r.program), strings.Join(args, " "))
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// run trains what is to do, on all devices side by side.
func (r *reproduction) run(ctx context.Context) error {
	err := r.begin(ctx)
	defer r.lock.Close() // which may be nil
	if err != nil {
		return err
	}
	all, done, todo := len(r.plan.Trainings), r.done(), len(r.todo)
	r.say("begin", fmt.Sprintf("%d trainings, %d done before, %d to do, %d without data", all, done, todo, all-done-todo),
		map[string]any{"of": all, "done": done, "todo": todo})
	r.writeResults()
	queue := make(chan reproduce.Training, len(r.todo))
	for _, t := range r.todo {
		queue <- t
	}
	close(queue)
	var devices sync.WaitGroup
	for _, device := range r.devices {
		devices.Go(func() {
			// A training is told to stop when the thread ends that started it, so that one must stay.
			runtime.LockOSThread()
			for t := range queue {
				if ctx.Err() != nil {
					return
				}
				r.train(ctx, t, device)
			}
		})
	}
	devices.Wait()
	return r.end(ctx)
}

// begin makes RUN and keeps others out of it.
func (r *reproduction) begin(ctx context.Context) error {
	err := os.MkdirAll(r.out, 0o777)
	if err == nil {
		r.lock, err = os.Open(r.out)
	}
	if err != nil {
		return fmt.Errorf("cannot write to the output folder: %w; choose another with --out", err)
	}
	if err := lockPatiently(ctx, r.lock, r.stderr); err != nil {
		return err
	}
	// Another reproduction may have worked here until now.
	if err := r.look(); err != nil {
		return err
	}
	for _, name := range []string{settingsFile, resultsMarkdown, resultsCSV, resultsHTML} {
		if err := atomicfile.RemoveTemporary(filepath.Join(r.out, name)); err != nil {
			return fmt.Errorf("%w; choose another folder with --out", err)
		}
	}
	if err := writeJSON(filepath.Join(r.out, settingsFile), r.settings); err != nil {
		return fmt.Errorf("%w; choose another folder with --out", err)
	}
	return nil
}

// lockPatiently locks a folder. Its trainings hold the lock too, so that a reproduction that was killed does not let
// the next one in before they have written their checkpoints.
func lockPatiently(ctx context.Context, folder *os.File, stderr io.Writer) error {
	began, said := time.Now(), false
	for {
		err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK): // some network file systems
			complain(stderr, fmt.Errorf("%s cannot be locked (%w): take care that nothing else writes there", folder.Name(), err))
			return nil
		case time.Since(began) > lockPatience:
			return fmt.Errorf("another reproduction, or a training of one that was killed, is writing to %s; wait for it, or choose another "+
				"folder with --out", folder.Name())
		}
		if !said {
			said = true
			complain(stderr, fmt.Errorf("%s is in use, waiting for up to %v", folder.Name(), lockPatience))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting for %s", rdpp.ErrInterrupted, folder.Name())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func writeJSON(path string, value any) error {
	return atomicfile.Write(path, func(w io.Writer) error { return json.NewEncoder(w).Encode(value) })
}

// train carries out a training and notes what became of it.
func (r *reproduction) train(ctx context.Context, t reproduce.Training, device torch.Device) {
	r.mutex.Lock()
	number := slices.Index(r.plan.Trainings, t) + 1
	r.running[t] = time.Now()
	where := fmt.Sprintf("%d/%d %s: %s", number, len(r.plan.Trainings), device, t)
	about := func(more map[string]any) map[string]any {
		more["training"], more["number"], more["of"], more["device"] = t, number, len(r.plan.Trainings), device.String()
		return more
	}
	r.say("start", where, about(map[string]any{}))
	r.mutex.Unlock()

	result, err := r.call(ctx, t, device)

	r.mutex.Lock()
	defer r.mutex.Unlock()
	seconds := time.Since(r.running[t])
	delete(r.running, t)
	r.tried[t] = true
	failure := filepath.Join(r.folder(t), failureFile)
	switch {
	case err == nil:
		r.outcomes[t] = reproduce.Outcome{Result: result}
		r.took[t] = seconds
		// Neither plays a part beside metrics, and a checkpoint takes much room.
		os.Remove(failure)
		os.Remove(filepath.Join(r.folder(t), checkpointFile))
		r.say("done", fmt.Sprintf("%s: done in %v, %s", where, seconds.Round(time.Second), resultText(result)),
			about(map[string]any{"seconds": seconds.Seconds(), "result": result}))
	case ctx.Err() != nil:
		r.outcomes[t] = reproduce.Outcome{Missing: "interrupted; the same command resumes it"}
		return
	default:
		r.failed++
		r.outcomes[t] = reproduce.Outcome{Missing: failedText(err.Error())}
		if err := writeJSON(failure, map[string]string{"reason": err.Error()}); err != nil {
			complain(r.stderr, err)
		}
		r.say("failed", fmt.Sprintf("%s: failed: %v", where, err), about(map[string]any{"reason": err.Error()}))
	}
	r.writeResults()
}

// call runs the program that trains, which writes to a log, and reads what it has measured.
func (r *reproduction) call(ctx context.Context, t reproduce.Training, device torch.Device) (*reproduce.Result, error) {
	if err := os.MkdirAll(r.folder(t), 0o777); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(r.folder(t), logFile), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, r.program, r.args(t, device)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{r.lock}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// A terminal's Ctrl-C is for this process alone, as a second signal would end a training without a checkpoint.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, lastLine(log, before))
	}
	return r.result(t)
}

// lastLine is the last line of what a training has written to its log, where it says why it failed.
func lastLine(log *os.File, from int64) string {
	const most = 4 << 10
	text, err := io.ReadAll(io.NewSectionReader(log, from, 1<<40))
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text[max(0, len(text)-most):])
	line := string(bytes.ToValidUTF8(text[bytes.LastIndexByte(text, '\n')+1:], []byte("\uFFFD")))
	if line == "" {
		return "it said nothing"
	}
	return strings.TrimPrefix(line, "train: ")
}

// end says how it went, as an error where it did not all go well.
func (r *reproduction) end(ctx context.Context) error {
	files := filepath.Join(r.out, resultsHTML)
	r.writeResults()
	r.say("end", fmt.Sprintf("%d of %d trainings done, %d failed; see %s", r.done(), len(r.plan.Trainings), r.failed, files),
		map[string]any{"done": r.done(), "failed": r.failed, "results": files})
	switch {
	case ctx.Err() != nil && r.done()+r.failed < len(r.plan.Trainings):
		return fmt.Errorf("%w after %d of %d trainings; the same command resumes", rdpp.ErrInterrupted, r.done(), len(r.plan.Trainings))
	case r.failed > 0:
		return fmt.Errorf("%d of %d trainings failed; %s says why, and the same command tries them again", r.failed, len(r.plan.Trainings), files)
	}
	return r.writing
}

// resultText is a result in a line.
func resultText(r *reproduce.Result) string {
	return strings.TrimSpace(metricsText(&r.Metrics))
}

func (r *reproduction) done() (n int) {
	for _, o := range r.outcomes {
		if o.Result != nil {
			n++
		}
	}
	return n
}

// The files of the results.
const (
	resultsMarkdown = "results.md"
	resultsCSV      = "results.csv"
	resultsHTML     = "results.html"
)

// writeResults writes the comparison as it stands. A full disk may have room again, so training goes on.
func (r *reproduction) writeResults() {
	c := r.plan.Compare(r.outcomes)
	r.writing = errors.Join(
		atomicfile.Write(filepath.Join(r.out, resultsMarkdown), c.WriteMarkdown),
		atomicfile.Write(filepath.Join(r.out, resultsCSV), c.WriteCSV),
		atomicfile.Write(filepath.Join(r.out, resultsHTML), c.WriteHTML))
}

// say shows an event, with the time so far and what is left of it.
func (r *reproduction) say(event, text string, fields map[string]any) {
	spent, left := time.Since(r.started), r.left()
	if r.json != nil {
		fields["seconds_so_far"] = spent.Seconds()
		if left >= 0 {
			fields["seconds_left"] = left.Seconds()
		}
		r.event(event, fields)
		return
	}
	text += fmt.Sprintf("  [%v so far", spent.Round(time.Second))
	if left > 0 {
		text += fmt.Sprintf(", about %v left", left.Round(time.Second))
	}
	say(r.stdout, "%s]", text)
}

func (r *reproduction) event(name string, fields map[string]any) {
	fields["event"] = name
	// A reader that has gone away is no reason to stop.
	_ = r.json.Encode(fields)
}

// left estimates the time to the end, from the trainings of the same category where there are any, else from all;
// negative while none is finished.
func (r *reproduction) left() time.Duration {
	type key struct{ dataset, category string }
	sums, counts := map[key]time.Duration{}, map[key]time.Duration{}
	var sum, count time.Duration
	for t, o := range r.outcomes {
		if o.Result == nil {
			continue
		}
		d := max(r.took[t], time.Duration(o.Result.Seconds*float64(time.Second)))
		k := key{t.Dataset, t.Category}
		sums[k], counts[k] = sums[k]+d, counts[k]+1
		sum, count = sum+d, count+1
	}
	if count == 0 {
		return -1
	}
	var left time.Duration
	for _, t := range r.todo {
		began, runs := r.running[t]
		if r.tried[t] {
			continue
		}
		k := key{t.Dataset, t.Category}
		d := sum / count
		if counts[k] > 0 {
			d = sums[k] / counts[k]
		}
		if runs {
			d = max(0, d-time.Since(began))
		}
		left += d
	}
	return left / time.Duration(len(r.devices))
}
