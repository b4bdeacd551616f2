// Command infer finds defects in photographs of parts with a model that train made. `infer --help` lists its commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/setting"
)

// The exit codes, a contract with the programs that call infer.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitAnomalous   = 3 // image alone: done, and some image is anomalous
	exitInterrupted = 130
)

// command is a subcommand. Its run returns the exit code, or an error that decides it.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, t *terminal) (int, error)
}

var commands = []command{
	{"image", "score images and outline their defects", runImage},
	{"eval", "measure a model on a data set with good and defective images", runEval},
	{"serve", "answer over HTTP, with a page for browsers", runServe},
	{"bench", "measure latency, throughput and memory of models", runBench},
	{"import", "make a model file of a released checkpoint and its teacher", runImport},
	{"info", "say what a weight or model file holds", runInfo},
	{"export", "write a model for onnxruntime or libtorch, to run without rdpp", runExport},
	{"version", "name versions; print licences", runVersion},
}

// terminal is where a command reads and writes.
type terminal struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	flags *pflag.FlagSet // of the command, from parse on
}

// usageError is the caller's mistake.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// isUsage says whether an error is the caller's mistake: a wrong command line, or a flag with a value that cannot be.
func isUsage(err error) bool {
	return errors.As(err, new(usageError)) || errors.Is(err, rdpp.ErrConfig)
}

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: printable.Attr})))
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program; it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once

	t := &terminal{stdin: stdin, stdout: stdout, stderr: stderr}
	code, err := unlessStuck(ctx, args, t)
	switch {
	case err == nil:
		return code
	case errors.Is(err, pflag.ErrHelp):
		return exitDone
	case ctx.Err() != nil:
		t.complain(errors.New("interrupted; run the same command again"))
		return exitInterrupted
	}
	t.complain(err)
	if isUsage(err) {
		return exitUsage
	}
	return exitFailed
}

// endings are the signals that ask the program to end. SIGHUP says that its terminal is gone; nohup has it ignored, and so it
// stays.
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// patience is how long a command may take to end when it is asked to. One that waits for a disk or a network that no longer
// answers, or for a large network's result, is left then: no file is half written. The service takes the time that its requests
// need.
const patience = 2 * time.Second

// unlessStuck carries out a command line.
func unlessStuck(ctx context.Context, args []string, t *terminal) (int, error) {
	type outcome struct {
		code int
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		code, err := dispatch(ctx, args, t)
		ended <- outcome{code, err}
	}()
	var late <-chan time.Time
	asked := ctx.Done()
	for {
		select {
		case o := <-ended:
			return o.code, o.err
		case <-asked:
			if asked = nil; len(args) == 0 || args[0] != "serve" {
				late = time.After(patience)
			}
		case <-late:
			return 0, ctx.Err()
		}
	}
}

func dispatch(ctx context.Context, args []string, t *terminal) (int, error) {
	if len(args) == 0 {
		fmt.Fprint(t.stderr, usage(), "\n")
		return 0, usagef("no command; name one of those above")
	}
	switch args[0] {
	case "-h", "--help":
		_, err := fmt.Fprint(t.stdout, usage())
		return exitDone, err
	case "--version":
		return runVersion(ctx, nil, t)
	}
	for _, c := range commands {
		if c.name == args[0] {
			code, err := c.run(ctx, args[1:], t)
			if isUsage(err) {
				err = fmt.Errorf("%s: %w; see `infer %s --help`", c.name, err, c.name)
			}
			return code, err
		}
	}
	fmt.Fprint(t.stderr, usage(), "\n")
	return 0, usagef("unknown command %q; use one of those above", args[0])
}

func usage() string {
	var s strings.Builder
	s.WriteString("infer finds defects in photographs of parts with a model that `train` made.\n\nUsage: infer COMMAND ...\n\n")
	for _, c := range commands {
		fmt.Fprintf(&s, "  %-8s%s\n", c.name, c.summary)
	}
	s.WriteString(`
"infer COMMAND --help" explains a command, "infer --version" names versions.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some image is anomalous (image),
130 interrupted.
`)
	return s.String()
}

// complain prints an error as one line, whatever is in it.
func (t *terminal) complain(err error) {
	t.say(t.stderr, "infer: %s", strings.ReplaceAll(t.tell(err), "\n", " "))
}

// tell is an error's text, with settings called by their flags where the command has such.
func (t *terminal) tell(err error) string {
	return setting.Text(err, t.flagOf)
}

// flagOf is the flag of a setting where the command has such, else the setting.
func (t *terminal) flagOf(field string) string {
	if name := strings.ReplaceAll(field, "_", "-"); t.flags != nil && t.flags.Lookup(name) != nil {
		return "--" + name
	}
	return field
}

// say prints a line for people, in which names from files cannot act on the terminal.
func (t *terminal) say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintln(w, printable.Text(fmt.Sprintf(format, args...)))
	return err
}

// parse reads a command's flags. Asked for help it prints the text and the flags, and returns pflag.ErrHelp. Where some of
// them are rare, --help leaves those out, and --help-all prints all.
func (t *terminal) parse(flags *pflag.FlagSet, args []string, help string, rare ...string) error {
	t.flags = flags
	flags.SortFlags = false
	flags.Usage = func() {}
	all := false
	if len(rare) > 0 {
		flags.BoolVar(&all, "help-all", false, "all flags")
	}
	err := flags.Parse(args)
	if err == nil && all {
		err, rare = pflag.ErrHelp, nil
	}
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, pflag.ErrHelp):
		return usageError{err}
	}
	for _, name := range rare {
		flags.Lookup(name).Hidden = true
	}
	if _, err := fmt.Fprint(t.stdout, help, "\n", flags.FlagUsages()); err != nil {
		return err
	}
	return pflag.ErrHelp
}
