package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/reproduce"
	"rdpp/torch"
)

const reproduceUsage = `train reproduce --data DIR --out DIR     train for the paper's tables again
Compares methods with each other and with the paper's numbers in results.md,
.csv, .json and .html of --out, written anew after every training. Called again
it goes on where it was stopped or killed; what has failed is tried again. Exit
codes: 0 done, 1 some trainings failed, 2 wrong usage, 130 interrupted.
`

// What tests put others in the place of.
var (
	trainProgram = os.Executable // the program that trains
	parseDevice  = torch.ParseDevice
)

func runReproduce(ctx context.Context, args []string, t *command.Terminal) error {
	run, opt := reproduce.RunOptions{Roots: map[string]string{}, Complain: t.Complain}, reproduce.Options{}
	flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
	data := flags.String("data", "", "`DIR` of MVTec AD's categories, for Tables 1 to 3 and 6 to 8")
	btad := flags.String("btad", "", "`DIR` of BTAD's categories 01, 02 and 03, for Table 4")
	oct := flags.String("oct", "", "`DIR` of the retinal OCT images, for Table 5")
	flags.StringVar(&run.Out, "out", "", "`DIR`, a folder for trainings and results")
	flags.IntSliceVar(&opt.Tables, "tables", nil, "`N,N` of the paper, 1 to 8; default all")
	flags.StringSliceVar(&opt.Categories, "categories", nil, "`NAMES` of MVTec AD's; default all in --data")
	flags.StringSliceVar(&opt.Methods, "methods", rdpp.Methods(), "`NAMES` of methods, as their rows are to stand")
	flags.StringVar(&opt.Arch, "arch", "wide_resnet50_2", "backbone of Tables 1 to 7, `NAME`; Table 8 has three")
	teachers := flags.StringSlice("teacher", []string{rdpp.TeacherAuto}, "`FILE`, "+strings.Join(rdpp.TeacherWords(), ", ")+"; ARCH=FILE: of one")
	flags.IntVar(&opt.Epochs, "epochs", 0, "`N` for every training; default the paper's, per category")
	flags.IntVar(&opt.ImageSize, "image-size", 0, "`N` x N pixels for the network; default the paper's 256")
	flags.Float64Var(&opt.Calibration, "calibration", 0, "`SHARE` of good images for the threshold; default the paper's, none")
	flags.IntVar(&opt.Seeds, "seeds", 1, "`N` trainings of each kind, with the seeds 1 to N")
	devices := flags.StringSlice("devices", []string{"auto"}, "`NAMES` to train on side by side; auto: all GPUs, else cpu")
	flags.IntVar(&run.Threads, "threads", 0, "`N` CPU threads per training; default all CPUs, shared by the devices")
	dryRun := flags.Bool("dry-run", false, "show the trainings and what is done of them; train and write nothing")
	asJSON := flags.Bool("json", false, "one JSON object per line")
	var a apart
	a.register(flags)
	if err := parse(t, flags, args, command.Help{Text: reproduceUsage, Rare: apartFlags}); err != nil {
		return err
	}
	if err := alone("reproduce"); err != nil {
		return err
	}
	if run.Out == "" {
		return command.Usagef("--out is needed")
	}
	if err := readTeachers(&opt, *teachers); err != nil {
		return err
	}
	if err := checkTraining(&opt); err != nil {
		return err
	}
	plan, err := reproduce.NewPlan(&opt)
	if err != nil {
		return err
	}
	if run.Share, err = a.check(); err != nil {
		return err
	}
	if a.URL != "" {
		if run.Out, err = filepath.Abs(run.Out); err != nil {
			return err
		}
		run.Hand = func(ctx context.Context, h *reproduce.Handed) error {
			return a.hand(ctx, &handed{There: h.There, Args: func(i int) []string { return settled(h.Args(i)) }, Of: h.Of, Done: h.Done, Failed: h.Failed, OnError: t.Complain,
				Open: func(i int) (*dataset.Set, error) {
					source := dataset.Source{Data: h.Data(i)}
					return source.Open(&dataset.OpenOptions{})
				}})
		}
	}
	if run.Devices, err = findDevices(*devices); err != nil {
		return err
	}
	if run.Threads == 0 {
		run.Threads = max(1, allowance.CPUs()/len(run.Devices))
	}
	if err := torch.SetThreads(run.Threads); err != nil { // what trainings would refuse
		return command.Usagef("--threads: %w", err)
	}
	if run.Program, err = trainProgram(); err != nil {
		return fmt.Errorf("the program that trains: %w", err)
	}
	for dataset, root := range map[string]string{reproduce.MVTec: *data, reproduce.BTAD: *btad, reproduce.OCT: *oct} {
		if root == "" {
			continue
		}
		if run.Roots[dataset], err = filepath.Abs(root); err != nil {
			return err
		}
	}
	show := reproduction{stdout: t.Stdout, program: run.Program}
	if *asJSON {
		show.json = json.NewEncoder(t.Stdout)
	}
	run.OnEvent = show.event
	r, err := reproduce.NewRun(plan, &run)
	if err != nil {
		return err
	}
	if *dryRun {
		show.plan(r.Plan())
		return nil
	}
	return r.Train(ctx)
}

// settled is the command line of a training with the teacher that auto stands for on this machine, as workers may have other weights.
func settled(args []string) []string {
	arch, teacher := slices.Index(args, "--arch")+1, slices.Index(args, "--teacher")+1
	if arch > 0 && teacher > 0 {
		args[teacher] = rdpp.SettledTeacher(args[teacher], args[arch])
	}
	return args
}

// reproduction shows a reproduction.
type reproduction struct {
	stdout  io.Writer
	program string        // that trains
	json    *json.Encoder // nil: plain lines
}

// plan lists the trainings, and how those are called that are still to be done.
func (r *reproduction) plan(all []reproduce.Planned) {
	for i, p := range all {
		if r.json != nil {
			r.object("plan", map[string]any{"training": p.Training, "number": i + 1, "of": len(all), "state": p.State, "args": p.Args})
			continue
		}
		say(r.stdout, "%d/%d %s: %s", i+1, len(all), p.Training, p.State)
		if p.Args != nil {
			say(r.stdout, "    %s %s", filepath.Base(r.program), strings.Join(p.Args, " "))
		}
	}
}

// event shows an event, with the time so far and what is left of it.
func (r *reproduction) event(e reproduce.Event) {
	if r.json != nil {
		e.Fields["seconds_so_far"] = e.Spent.Seconds()
		if e.Left >= 0 {
			e.Fields["seconds_left"] = e.Left.Seconds()
		}
		r.object(e.Name, e.Fields)
		return
	}
	text := fmt.Sprintf("%s  [%v so far", e.Text, e.Spent.Round(time.Second))
	if e.Left > 0 {
		text += fmt.Sprintf(", about %v left", e.Left.Round(time.Second))
	}
	say(r.stdout, "%s]", text)
}

func (r *reproduction) object(name string, fields map[string]any) {
	fields["schema"], fields["event"] = eventSchema, name
	// A reader that has gone away is no reason to stop.
	_ = r.json.Encode(fields)
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
			if _, err := os.Stat(path); err != nil {
				return command.Usagef("--teacher: there is no file %s; name one, or use one of %s", path,
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
			return command.Usagef("--teacher %s and %s; give one for all backbones, and ARCH=FILE for single ones", opt.Teacher, name)
		}
	}
	if opt.Teacher == "" {
		opt.Teacher = rdpp.TeacherAuto
	}
	return nil
}

// checkTraining finds what every training would refuse, and which methods have one pass.
func checkTraining(opt *reproduce.Options) error {
	if len(opt.Methods) == 0 {
		return command.Usagef("--methods names none; use some of %s", strings.Join(rdpp.Methods(), ", "))
	}
	for _, method := range opt.Methods {
		c := rdpp.DefaultConfig()
		c.Method, c.Arch, c.Calibration = method, opt.Arch, opt.Calibration
		if opt.Epochs != 0 {
			c.Epochs = opt.Epochs
		}
		if opt.ImageSize != 0 {
			c.ImageSize = opt.ImageSize
		}
		if c.Learned() == nil {
			return command.Usagef("--methods %q; use some of %s", method, strings.Join(rdpp.Methods(), ", "))
		}
		if err := c.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(c.Fixed(), func(s rdpp.FixedSetting) bool { return s.Setting == "epochs" }) {
			opt.OnePass = append(opt.OnePass, method)
		}
	}
	return nil
}

// findDevices reads --devices.
func findDevices(names []string) (devices []string, err error) {
	if len(names) == 1 && names[0] == "auto" {
		for {
			device, err := parseDevice(torch.CUDA(len(devices)).String())
			switch {
			case err == nil:
				devices = append(devices, device.String())
				continue
			case !errors.Is(err, torch.ErrNoDevice):
				return nil, err
			case len(devices) == 0:
				return []string{torch.CPU.String()}, nil
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
			return nil, command.Usagef("--devices: %w", err)
		case slices.Contains(devices, device.String()):
			return nil, command.Usagef("--devices names %s twice", device)
		}
		devices = append(devices, device.String())
	}
	if len(devices) == 0 {
		return nil, command.Usagef("--devices names none; use auto, cpu or cuda:N")
	}
	return devices, nil
}
