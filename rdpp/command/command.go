// Package command is the frame of the programs: it finds the command that a command line names, explains commands and
// flags, calls settings by their flags in errors, ends by signals, and turns outcomes into exit codes.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp/setting"
)

// The exit codes, a contract with the programs that call ours.
const (
	Done        = 0
	Failed      = 1
	WrongUsage  = 2
	Anomalous   = 3 // done, and some image is anomalous
	Interrupted = 130
)

// ErrUsage is what errors of Usagef are, by errors.Is.
var ErrUsage = errors.New("wrong usage")

type usageError struct{ error }

func (e usageError) Unwrap() error        { return e.error }
func (e usageError) Is(target error) bool { return target == ErrUsage }

// Usagef is an error about the command line, formatted as by fmt.Errorf.
func Usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// isUsage says whether an error is the caller's mistake: a wrong command line, or a flag with a value that cannot be.
func isUsage(err error) bool {
	return errors.Is(err, ErrUsage) || errors.Is(err, setting.ErrValue)
}

// Command is a command of a program.
type Command struct {
	Name, Summary string
	// Args completes what is no flag; the zero value: with names of files.
	Args Argument
	// Run returns the exit code, or an error that decides it. Before anything else it calls t.Parse.
	Run func(ctx context.Context, args []string, t *Terminal) (int, error)
	// Patient commands take the time they need to end when ctx ends, and their errors say what came of it. Others are left
	// after a while, and have been interrupted whatever their errors say.
	Patient bool
}

// Program is a program with commands.
type Program struct {
	Name     string
	Summary  string // what the program does, in a few words
	Head     string // of --help, what the program does; where there is no Default
	Commands []Command
	// Default is what a command line without a command's name is for; nil: there must be a command. It explains the whole
	// program.
	Default *Command
	// Version prints the versions for --version.
	Version Command
	// Codes are the last lines of --help, on exit codes; where there is no Default.
	Codes string
	// Interrupted are wrapped by the errors of patient commands that have been interrupted.
	Interrupted []error
	// Short are flags that are not called like their settings, by the settings' names.
	Short map[string]string
}

// Context ends at the first signal that asks the program to end; the second one ends the process. SIGHUP says that its
// terminal is gone; nohup has it ignored, and so it stays.
func Context() (ctx context.Context, stop context.CancelFunc) {
	endings := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		endings = append(endings, syscall.SIGHUP)
	}
	ctx, stop = signal.NotifyContext(context.Background(), endings...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Run carries out a command line and returns the exit code.
func (p *Program) Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	t := &Terminal{Stdin: stdin, Stdout: stdout, Stderr: stderr, name: p.Name, short: p.Short}
	c, args, err := p.find(args, t)
	code := Done
	if err == nil {
		code, err = c.unlessStuck(ctx, args, t)
		if isUsage(err) {
			err = p.advised(c, err)
		}
	}
	switch {
	case err == nil:
		return code
	case errors.Is(err, pflag.ErrHelp):
		return Done
	case slices.ContainsFunc(p.Interrupted, func(target error) bool { return errors.Is(err, target) }):
		t.Complain(err)
		return Interrupted
	case ctx.Err() != nil && (!c.Patient || errors.Is(err, ctx.Err())):
		t.Complain(errors.New("interrupted; run the same command again"))
		return Interrupted
	}
	t.Complain(err)
	if isUsage(err) {
		return WrongUsage
	}
	return Failed
}

// advised is an error of a command with where its usage stands.
func (p *Program) advised(c *Command, err error) error {
	if c.Name == "" {
		return fmt.Errorf("%w; see `%s --help`", err, p.Name)
	}
	return fmt.Errorf("%s: %w; see `%s %s --help`", c.Name, err, p.Name, c.Name)
}

// find is the command that a command line names, and its arguments. c is never nil.
func (p *Program) find(args []string, t *Terminal) (c *Command, rest []string, err error) {
	usage := &Command{Run: func(_ context.Context, _ []string, t *Terminal) (int, error) {
		_, err := fmt.Fprint(t.Stdout, p.usage())
		return Done, err
	}}
	if p.Default != nil {
		usage = p.Default
	}
	switch {
	case len(args) == 0 && p.Default == nil:
		fmt.Fprint(t.Stderr, p.usage(), "\n")
		return usage, nil, Usagef("no command; name one of those above")
	case len(args) == 0:
		return usage, nil, nil
	case args[0] == "--version":
		return &p.Version, args[1:], nil
	case args[0] == "help" && len(args) == 1:
		return usage, []string{"--help"}, nil
	case args[0] == "help" && len(args) > 2:
		return usage, nil, Usagef("%q is one argument too many; `%s help COMMAND` explains a command", args[2], p.Name)
	case args[0] == "help":
		c, _, err = p.find(args[1:], t)
		return c, []string{"--help"}, err
	case strings.HasPrefix(args[0], "-") && p.Default == nil:
		switch args[0] {
		case "-h", "--help":
			return usage, nil, nil
		case "--help-all":
			return &Command{Run: p.helpAll}, nil, nil
		}
		return usage, nil, Usagef("%q stands before the command; name one first, see `%s --help`", args[0], p.Name)
	case strings.HasPrefix(args[0], "-"):
		return usage, args, nil
	}
	names := []string{"help"}
	commands := p.all()
	for i := range commands {
		if commands[i].Name == args[0] {
			return &commands[i], args[1:], nil
		}
		names = append(names, commands[i].Name)
	}
	return usage, nil, Usagef("unknown command %q%s; see `%s --help`", args[0], meant(args[0], names), p.Name)
}

// usage is the text of --help where there are commands alone.
func (p *Program) usage() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n\nUsage: %s COMMAND ...\n\n", p.Head, p.Name)
	for _, c := range p.all() {
		fmt.Fprintf(&s, "  %-11s%s\n", c.Name, c.Summary)
	}
	fmt.Fprintf(&s, "\n\"%s help COMMAND\" explains a command, \"%s --help-all\" all of them.\n\n%s", p.Name, p.Name, p.Codes)
	return s.String()
}

// all are the commands of the program, with those that every program has.
func (p *Program) all() []Command {
	return append(slices.Clip(p.Commands), p.completion(), p.manual())
}

// helpAll prints the usage, and what --help-all prints of every command.
func (p *Program) helpAll(_ context.Context, _ []string, t *Terminal) (int, error) {
	text := p.usage()
	for _, d := range p.Describe() {
		text += fmt.Sprintf("\n%s %s\n\n%s", p.Name, d.Name, d.Help.Usage(d.Flags, true))
	}
	_, err := fmt.Fprint(t.Stdout, text)
	return Done, err
}

// patience is how long a command may take to end when it is asked to. One that waits for a disk or a network that no longer
// answers, or for a large network's result, is left then: no file is half written.
const patience = 2 * time.Second

// unlessStuck runs a command.
func (c *Command) unlessStuck(ctx context.Context, args []string, t *Terminal) (int, error) {
	type outcome struct {
		code int
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		code, err := c.Run(ctx, args, t)
		ended <- outcome{code, err}
	}()
	var late <-chan time.Time
	asked := ctx.Done()
	for {
		select {
		case o := <-ended:
			return o.code, o.err
		case <-asked:
			if asked = nil; !c.Patient {
				late = time.After(patience)
			}
		case <-late:
			return 0, ctx.Err()
		}
	}
}

// Await returns what f does, or ctx's error where that ends first: nothing can interrupt the reading of a pipe that
// nobody writes to, or of a network share that no longer answers.
func Await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1) // f, which nobody awaits any more, must not block
	go func() {
		value, err := f()
		done <- answer{value, err}
	}()
	select {
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	case a := <-done:
		return a.value, a.err
	}
}
