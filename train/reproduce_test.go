package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/reproduce"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// fakeTrainKey is the environment variable that makes the test program fakeTrain: a folder to say what happens and to be
// told.
const fakeTrainKey = "RDPP_TEST_FAKE_TRAIN"

// asReproduce is the name of train reproduce, whose trainings are fakeTrain, as the test program can be it.
const asReproduce = "reproduce with fake"

func reproduceWithFake(args []string) error {
	return runReproduce(context.Background(), args, &command.Terminal{Stdout: os.Stdout, Stderr: os.Stderr})
}

// Files of a reproduction and of a training.
const (
	settingsFile   = "settings.json"
	checkpointFile = "checkpoint"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fakeTrain does what train does as far as a reproduction can see. It adds its arguments to the file calls of the folder
// control. Of the file "CATEGORY METHOD" there it does what that says: fail, say nothing, hang until it is told to stop,
// or wait until two devices are at work.
func fakeTrain(control string, args []string) error {
	flags := pflag.NewFlagSet("fake", pflag.ContinueOnError)
	value := map[string]*string{}
	for _, name := range []string{"preset", "data", "category", "out", "arch", "method", "teacher", "device", "threads"} {
		value[name] = flags.String(name, "", "")
	}
	config := rdpp.DefaultConfig()
	flags.Uint64Var(&config.Seed, "seed", 0, "")
	flags.IntVar(&config.Epochs, "epochs", 7, "")
	flags.IntVar(&config.ImageSize, "image-size", 256, "")
	flags.Float64Var(&config.NoiseLambda, "noise", 0.1, "")
	flags.Float64Var(&config.Calibration, "calibration", 0, "")
	flags.Float64Var(&config.WeightRecon, "weight-recon", 1, "")
	flags.Float64Var(&config.WeightContrast, "weight-contrast", 1, "")
	resume := flags.Bool("resume", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config.Arch, config.Method = *value["arch"], *value["method"]
	switch {
	case *value["preset"] != "paper" || !*resume || *value["threads"] == "":
		return fmt.Errorf("wrong flags: %q", args)
	case !exists(filepath.Join(*value["data"], *value["category"])):
		return fmt.Errorf("no such folder: %s in %s", *value["category"], *value["data"])
	}
	folder := filepath.Join(*value["out"], *value["category"])
	checkpoint := filepath.Join(folder, checkpointFile)
	state := "new"
	if exists(checkpoint) {
		state = "resumed"
	}
	calls, err := os.OpenFile(filepath.Join(control, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	fmt.Fprintf(calls, "%s %s %s %s\n", *value["category"], filepath.Base(*value["out"]), *value["device"], state)
	calls.Close()

	succeed := func() error {
		auroc := 0.75
		summary := rdpp.Summary{Config: config, Teacher: rdpp.TeacherInfo{Origin: *value["teacher"]}, Selection: "the best on the test set",
			Metrics: rdpp.Metrics{ImageAUROC: &auroc, PixelAUROC: &auroc}, TrainingSeconds: 60}
		if err := os.WriteFile(checkpoint, nil, 0o666); err != nil {
			return err
		}
		text, err := json.Marshal(summary)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(folder, rdpp.MetricsFile), text, 0o666)
	}
	order, _ := os.ReadFile(filepath.Join(control, *value["category"]+" "+config.Method))
	fmt.Println("a training begins")
	switch string(order) {
	case "fail":
		return errors.New("no memory for </td><script>alert(1)</script>")
	case "say nothing":
		return nil
	case "hang":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		os.WriteFile(filepath.Join(control, "hangs"), nil, 0o666)
		<-stop
		time.Sleep(200 * time.Millisecond) // as writing a checkpoint takes time
		if err := os.WriteFile(checkpoint, nil, 0o666); err != nil {
			return err
		}
		os.Exit(command.Interrupted)
	case "wait":
		os.WriteFile(filepath.Join(control, *value["device"]), nil, 0o666)
		for range 1200 {
			if found, _ := filepath.Glob(filepath.Join(control, "cuda:*")); len(found) == 2 {
				return succeed()
			}
			time.Sleep(50 * time.Millisecond)
		}
		return errors.New("alone for a minute")
	}
	return succeed()
}

// stage is a place to reproduce at: a folder of categories without pictures, a RUN and the folder that controls fakeTrain.
type stage struct {
	*testing.T
	data, out, control string
}

func newStage(t *testing.T, categories ...string) *stage {
	s := &stage{t, t.TempDir(), filepath.Join(t.TempDir(), "run"), t.TempDir()}
	for _, c := range categories {
		if err := os.Mkdir(filepath.Join(s.data, c), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(fakeTrainKey, s.control)
	return s
}

// args is a command line, of RD and RD++ where further names no methods.
func (s *stage) args(further ...string) []string {
	args := []string{"--data=" + s.data, "--out=" + s.out, "--teacher=random", "--devices=cpu", "--threads=1"}
	if !slices.ContainsFunc(further, func(arg string) bool { return strings.HasPrefix(arg, "--methods=") }) {
		args = append(args, "--methods=rd,rd++")
	}
	return append(args, further...)
}

// reproduce calls train reproduce.
func (s *stage) reproduce(further ...string) (stdout string, err error) {
	var out bytes.Buffer
	err = runReproduce(context.Background(), s.args(further...), &command.Terminal{Stdout: &out, Stderr: io.Discard})
	return out.String(), err
}

// order tells fakeTrain what to do.
func (s *stage) order(training, what string) {
	write(s.T, filepath.Join(s.control, training), []byte(what))
}

// calls are those of fakeTrain since the last time.
func (s *stage) calls() (lines []string) {
	path := filepath.Join(s.control, "calls")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Fatal(err)
	}
	os.Remove(path)
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

func (s *stage) checkCalls(what string, want ...string) {
	s.Helper()
	if got := s.calls(); !slices.Equal(got, want) {
		s.Errorf("%s: got trainings\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// results are the four files, which must all be there.
func (s *stage) results() (all string) {
	s.Helper()
	for _, name := range []string{reproduce.ResultsMarkdown, reproduce.ResultsCSV, reproduce.ResultsHTML, reproduce.ResultsJSON} {
		text, err := os.ReadFile(filepath.Join(s.out, name))
		if err != nil {
			s.Fatal(err)
		}
		all += string(text)
	}
	return all
}

// What is finished is left alone, what failed is recorded and tried again, and the others go on.
func TestReproduce(t *testing.T) {
	s := newStage(t, "carpet", "grid")
	s.order("carpet rd", "fail")
	s.order("grid rd", "say nothing")
	const rd, full = "mvtec_wide_resnet50_2_rd_seed1 cpu new", "mvtec_wide_resnet50_2_rd++_noise0.2_seed1 cpu new"
	stdout, err := s.reproduce("--tables=1,3")
	if err == nil || !strings.Contains(err.Error(), "2 of 30 trainings failed") || errors.Is(err, command.ErrUsage) {
		t.Errorf("got %v, want two failures", err)
	}
	s.checkCalls("first", "carpet "+rd, "grid "+rd, "carpet "+full, "grid "+full)
	for _, want := range []string{"30 trainings, 0 done before, 4 to do, 26 without data", "1/30 cpu: mvtec carpet, rd, wide_resnet50_2, seed 1",
		"failed: exit status 1: no memory", "done in ", "image AUROC 0.7500", " so far, about ", "2 of 30 trainings done, 2 failed"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got stdout\n%swant %q in it", stdout, want)
		}
	}
	results := s.results()
	for _, want := range []string{"75.00", "avg. of 2 of 15", "failed: exit status 1: no memory", "metrics.json", "no data: no folder of that name in ",
		"Not comparable with the paper", "is random instead"} {
		if !strings.Contains(results, want) {
			t.Errorf("got results\n%s\nwant %q in them", results, want)
		}
	}
	if page, _ := os.ReadFile(filepath.Join(s.out, reproduce.ResultsHTML)); bytes.Contains(page, []byte("<script")) {
		t.Errorf("got %s, want the failure's text escaped", page)
	}
	if got := files(t, s.out); slices.Contains(got, checkpointFile) {
		t.Errorf("got %q, want no checkpoint of what is finished", got)
	}

	// With fewer tables asked for, and interrupted at once, the failures of before are still known.
	ended, stop := context.WithCancel(context.Background())
	stop()
	if err := runReproduce(ended, s.args("--tables=1"), &command.Terminal{Stdout: io.Discard, Stderr: io.Discard}); !errors.Is(err, reproduce.ErrInterrupted) {
		t.Errorf("got %v, want ErrInterrupted", err)
	}
	s.checkCalls("interrupted at once")
	if !strings.Contains(s.results(), "no memory") {
		t.Errorf("got results\n%s\nwant the failure of before", s.results())
	}

	s.order("carpet rd", "")
	s.order("grid rd", "")
	if _, err := s.reproduce("--tables=1"); err != nil {
		t.Error(err)
	}
	s.checkCalls("again", "carpet "+rd, "grid "+rd)
	if strings.Contains(s.results(), "failed") {
		t.Errorf("got results\n%s\nwant no failures", s.results())
	}
	if _, err := s.reproduce("--tables=2"); err != nil {
		t.Error(err)
	}
	s.checkCalls("all done")
	if _, err := s.reproduce("--tables=6", "--categories=grid"); err != nil {
		t.Error(err)
	}
	s.checkCalls("what other tables share", "grid mvtec_wide_resnet50_2_rd+ssot_noise0.2_seed1 cpu new",
		"grid mvtec_wide_resnet50_2_rd+ssot+con_noise0.2_seed1 cpu new")

	// Metrics of other settings, or that cannot be read, are made again.
	metrics := filepath.Join(s.out, "mvtec_wide_resnet50_2_rd_seed1")
	write(t, filepath.Join(metrics, "grid", rdpp.MetricsFile), []byte("{"))
	write(t, filepath.Join(metrics, "carpet", rdpp.MetricsFile), []byte(`{"config":{"arch":"resnet18","method":"rd"}}`))
	if _, err := s.reproduce("--tables=1"); err != nil {
		t.Error(err)
	}
	s.checkCalls("broken metrics", "carpet "+rd, "grid "+rd)
}

// Every method that there is can be trained beside the others, those of one pass without being told epochs, and what is done of
// some methods is not done again when others are asked for.
func TestReproduceMethods(t *testing.T) {
	s := newStage(t, "carpet")
	const folder = "carpet mvtec_wide_resnet50_2_"
	if _, err := s.reproduce("--tables=1,6,7", "--epochs=5", "--seeds=2", "--methods=patchcore"); err != nil {
		t.Error(err)
	}
	s.checkCalls("one method", folder+"patchcore_seed1 cpu new", folder+"patchcore_seed2 cpu new")
	if _, err := s.reproduce("--tables=1", "--epochs=5", "--seeds=2", "--methods=patchcore,rd"); err != nil {
		t.Error(err)
	}
	s.checkCalls("another", folder+"rd_seed1 cpu new", folder+"rd_seed2 cpu new")
	stdout, err := s.reproduce("--tables=1", "--epochs=5", "--categories=carpet", "--methods="+strings.Join(rdpp.Methods(), ","), "--dry-run")
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range rdpp.Methods() {
		asked := strings.Contains(stdout, "--method "+method+" ")
		if want := method != "patchcore" && method != "rd"; asked != want {
			t.Errorf("%s: got it asked for %v, want %v in %s", method, asked, want, stdout)
		}
	}
	for _, want := range []string{"Methods on MVTec AD", "carpet: PatchCore", "carpet: RD"} {
		if !strings.Contains(s.results(), want) {
			t.Errorf("got results\n%s\nwant %q in them", s.results(), want)
		}
	}
}

func TestReproduceInterrupted(t *testing.T) {
	s := newStage(t, "carpet")
	s.order("carpet rd", "hang")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		waitFor(t, filepath.Join(s.control, "hangs"))
		cancel()
	}()
	var stdout bytes.Buffer
	err := runReproduce(ctx, s.args("--tables=1"), &command.Terminal{Stdout: &stdout, Stderr: io.Discard})
	if !errors.Is(err, reproduce.ErrInterrupted) || !strings.Contains(err.Error(), "the same command resumes") {
		t.Errorf("got %v, want ErrInterrupted and the remedy", err)
	}
	if !strings.Contains(s.results(), "interrupted; the same command resumes it") || strings.Contains(s.results(), "failed") {
		t.Errorf("got results\n%s\nwant the interruption in them", s.results())
	}
	s.checkCalls("interrupted", "carpet mvtec_wide_resnet50_2_rd_seed1 cpu new")
	stdout.Reset()
	if err := runReproduce(context.Background(), s.args("--tables=1", "--dry-run"), &command.Terminal{Stdout: &stdout, Stderr: io.Discard}); err != nil ||
		!strings.Contains(stdout.String(), "seed 1: begun\n") {
		t.Errorf("dry run: got %q, %v, want the training begun", stdout.String(), err)
	}
	s.order("carpet rd", "")
	if _, err := s.reproduce("--tables=1"); err != nil {
		t.Error(err)
	}
	s.checkCalls("resumed", "carpet mvtec_wide_resnet50_2_rd_seed1 cpu resumed", "carpet mvtec_wide_resnet50_2_rd++_noise0.2_seed1 cpu new")
}

// waitFor waits for a file.
func waitFor(t *testing.T, path string) {
	t.Helper()
	testmain.Wait(t, path, func() bool { return exists(path) })
}

// Killed, a reproduction takes its training with it, after a checkpoint, and the next one waits for that.
func TestReproduceKilled(t *testing.T) {
	s := newStage(t, "carpet")
	s.order("carpet rd", "hang")
	cmd := testmain.Child(asReproduce, s.args("--tables=1")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, filepath.Join(s.control, "hangs"))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	s.order("carpet rd", "")
	if _, err := s.reproduce("--tables=1"); err != nil {
		t.Error(err)
	}
	s.checkCalls("killed and resumed", "carpet mvtec_wide_resnet50_2_rd_seed1 cpu new", "carpet mvtec_wide_resnet50_2_rd_seed1 cpu resumed",
		"carpet mvtec_wide_resnet50_2_rd++_noise0.2_seed1 cpu new")
}

func TestReproduceRefuses(t *testing.T) {
	s := newStage(t, "carpet")
	if err := os.MkdirAll(s.out, 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.out, settingsFile), []byte(`{"teacher":"random","epochs":2}`))
	weights := write(t, filepath.Join(t.TempDir(), "w.pth"), nil)
	// refused calls with the settings of before but for those that args has.
	refused := func(args []string) (told string, err error) {
		for _, flag := range []string{"--data=" + s.data, "--out=" + s.out, "--tables=1", "--teacher=random", "--epochs=2", "--devices=cpu"} {
			name, _, _ := strings.Cut(flag, "=")
			if !slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, name+"=") }) {
				args = append(args, flag)
			}
		}
		terminal := &command.Terminal{Stdout: io.Discard, Stderr: io.Discard}
		if err = runReproduce(context.Background(), args, terminal); err != nil {
			told = terminal.Tell(err)
		}
		return told, err
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--out="}, "--out"},
		{[]string{"--nonsense"}, "--nonsense"},
		{[]string{"more"}, `"more"`},
		{[]string{"--epochs=3"}, "was made with --teacher random --epochs 2, not with --teacher random --epochs 3"},
		{[]string{"--epochs=0"}, "--epochs 2, not with --teacher random"},
		{[]string{"--image-size=64"}, "--image-size 64"},
		{[]string{"--teacher=auto"}, "not with --teacher auto"},
		{[]string{"--teacher=random,resnet18=" + weights}, "resnet18=" + weights},
		{[]string{"--teacher=builtin,auto"}, "ARCH=FILE"},
		{[]string{"--teacher=nowhere.pth"}, "nowhere.pth"},
		{[]string{"--tables=9"}, "--tables is 9"},
		{[]string{"--tables=x"}, "--tables"},
		{[]string{"--categories=part"}, `"part"`},
		{[]string{"--seeds=-1"}, "--seeds is -1"},
		{[]string{"--methods=none"}, strings.Join(rdpp.Methods(), ", ")},
		{[]string{"--methods="}, "names none"},
		{[]string{"--methods=patchcore", "--tables=7"}, "--methods is"},
		{[]string{"--calibration=0.5"}, "--calibration is 0.5"},
		{[]string{"--calibration=0.1"}, "with --teacher random --epochs 2, not with --teacher random --epochs 2 --calibration 0.1"},
		{[]string{"--arch=vgg"}, "resnet18"},
		{[]string{"--image-size=100"}, "--image-size is 100"},
		{[]string{"--devices=gpu"}, "cuda:N"},
		{[]string{"--devices=cpu,cpu"}, "cpu twice"},
		{[]string{"--devices="}, "names none"},
		{[]string{"--threads=-1"}, "--threads"},
		{[]string{"--tables=4"}, "--btad is for Table 4"},
	} {
		told, err := refused(c.args)
		if !errors.Is(err, command.ErrUsage) && !errors.Is(err, rdpp.ErrConfig) || !strings.Contains(told, c.want) {
			t.Errorf("%v: got %q, want a usage error with %q", c.args, told, c.want)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--categories=grid"}, filepath.Join(s.data, "grid")},
		{[]string{"--devices=cuda:999"}, "CUDA libtorch"},
		{[]string{"--out=" + weights}, weights},
	} {
		_, err := refused(c.args)
		if err == nil || errors.Is(err, command.ErrUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want a failure with %q", c.args, err, c.want)
		}
	}
	s.checkCalls("refused")
	if got := files(t, s.out); !slices.Equal(got, []string{settingsFile}) {
		t.Errorf("got files %q, want the settings alone", got)
	}
	// What older versions had built in has another name today.
	for _, c := range []struct{ before, teacher, want string }{
		{`{"teacher":"builtin","teachers":{"resnet18":"builtin"}}`, "builtin", "was made with --teacher drawn,resnet18=drawn, not with --teacher builtin"},
		{`{"teacher":"builtin"}`, "drawn", ""}, {`{"format":1,"teacher":"builtin"}`, "builtin", ""},
		{`{"format":1,"teacher":"builtin"}`, "drawn", "was made with --teacher builtin, not with --teacher drawn"},
	} {
		write(t, filepath.Join(s.out, settingsFile), []byte(c.before))
		_, err := refused([]string{"--epochs=0", "--dry-run", "--teacher=" + c.teacher})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, now %s: got %v, want %q", c.before, c.teacher, err, c.want)
		}
	}
	write(t, filepath.Join(s.out, settingsFile), []byte("{"))
	if _, err := s.reproduce("--tables=1"); err == nil || !strings.Contains(err.Error(), settingsFile) {
		t.Errorf("broken settings: got %v, want an error that names the file", err)
	}
}

// All data sets, with --json; before, a dry run that writes nothing.
func TestReproduceDataSetsAndJSON(t *testing.T) {
	s := newStage(t, "carpet")
	btad, oct := t.TempDir(), filepath.Join(t.TempDir(), "OCT2017")
	for _, dir := range []string{filepath.Join(btad, "03"), oct} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	flags := []string{"--tables=1,4,5", "--btad=" + btad, "--oct=" + oct, "--arch=resnet18", "--epochs=3", "--json"}
	stdout, err := s.reproduce(append(flags, "--dry-run")...)
	if err != nil {
		t.Fatal(err)
	}
	s.checkCalls("dry run")
	if exists(s.out) {
		t.Errorf("dry run: got %s, want no such folder", s.out)
	}
	states := map[any]int{}
	for _, o := range objects(t, stdout) {
		state := o["state"].(string)
		if strings.HasPrefix(state, "no data") {
			state = "no data"
		}
		states[state]++
		if (state == "to do") != (o["args"] != nil) || o["event"] != "plan" {
			t.Errorf("dry run: got %v, want a plan with a command line for what is to do", o)
		}
	}
	if want := fmt.Sprint(map[any]int{"to do": 2 + 2 + 2, "no data": 28 + 4}); fmt.Sprint(states) != want {
		t.Errorf("dry run: got %v, want %s", states, want)
	}

	stdout, err = s.reproduce(flags...)
	if err != nil {
		t.Fatal(err)
	}
	events := map[any]int{}
	for _, o := range objects(t, stdout) {
		events[o["event"]]++
		if o["event"] == "done" && (o["device"] != "cpu" || o["of"] != 38.0 || o["seconds_left"] == nil || o["seconds_so_far"] == nil ||
			o["result"].(map[string]any)["image_auroc"] != 0.75) {
			t.Errorf("got %v, want device, numbers, times and result", o)
		}
	}
	if got, want := fmt.Sprint(events), "map[begin:1 done:6 end:1 start:6]"; got != want {
		t.Errorf("events: got %s, want %s", got, want)
	}
	if got := s.calls(); !slices.Contains(got, "OCT2017 oct_resnet18_rd_seed1 cpu new") || !slices.Contains(got, "03 btad_resnet18_rd_seed1 cpu new") {
		t.Errorf("got trainings %q, want those of OCT and BTAD", got)
	}
	for _, want := range []string{"resnet18 instead of wide_resnet50_2", "every training has 3 epochs", "avg. of 1 of 3",
		"no data: no folder of that name in " + btad} {
		if !strings.Contains(s.results(), want) {
			t.Errorf("got results\n%s\nwant %q in them", s.results(), want)
		}
	}
	stdout, err = s.reproduce(append(flags, "--dry-run", "--json=false")...)
	if want := "1/38 mvtec carpet, rd, resnet18, seed 1: done\n"; err != nil || !strings.HasPrefix(stdout, want) {
		t.Errorf("dry run at the end: got %q, %v, want %q first", stdout, err, want)
	}
}

// Every device has a training of its own at the same time.
func TestReproduceOnSeveralDevices(t *testing.T) {
	s := newStage(t, "carpet")
	s.order("carpet rd", "wait")
	s.order("carpet rd++", "wait")
	parseDevice = func(name string) (torch.Device, error) { // two GPUs
		if name == "cuda:0" || name == "cuda:1" {
			return torch.CUDA(int(name[5] - '0')), nil
		}
		return torch.CPU, torch.ErrNoDevice
	}
	defer func() { parseDevice = torch.ParseDevice }()
	err := runReproduce(context.Background(), []string{"--data=" + s.data, "--out=" + s.out, "--tables=1", "--methods=rd,rd++"}, &command.Terminal{Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	devices := map[string]int{}
	for _, call := range s.calls() {
		devices[strings.Fields(call)[2]]++
	}
	if devices["cuda:0"] != 1 || devices["cuda:1"] != 1 {
		t.Errorf("got %v, want a training on each of two devices", devices)
	}
}

func TestReproduceHelp(t *testing.T) {
	const lines, columns = 40, 110
	var out bytes.Buffer
	if err := runReproduce(context.Background(), []string{"--help"}, &command.Terminal{Stdout: &out, Stderr: io.Discard}); !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("got %v, want %v", err, pflag.ErrHelp)
	}
	if got := strings.Count(out.String(), "\n"); got > lines || got < 15 {
		t.Errorf("got %d lines, want 15 to %d", got, lines)
	}
	for line := range strings.Lines(out.String()) {
		if got := len(strings.TrimRight(line, "\n")); got > columns {
			t.Errorf("got %d columns, want at most %d: %s", got, columns, line)
		}
	}
}

// A reproduction keeps a second one out of its folder.
func TestReproduceLock(t *testing.T) {
	s := newStage(t, "carpet")
	if err := os.MkdirAll(s.out, 0o777); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(s.out)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	var stderr bytes.Buffer
	err = runReproduce(ctx, s.args("--tables=1"), &command.Terminal{Stdout: io.Discard, Stderr: &stderr})
	if !errors.Is(err, reproduce.ErrInterrupted) || strings.Count(stderr.String(), "in use, waiting") != 1 {
		t.Errorf("got %v, stderr %q, want it to say so and wait until it is interrupted", err, stderr.String())
	}
	if got := files(t, s.out); len(got) != 0 {
		t.Errorf("got files %q, want none", got)
	}
}
