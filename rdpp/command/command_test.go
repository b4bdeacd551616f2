package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"

	"rdpp/rdpp/setting"
)

var errStopped = errors.New("stopped after a checkpoint")

// limits is a value that may be left out.
type limits struct{}

func (limits) String() string   { return "" }
func (limits) Set(string) error { return errors.New("use a=X") }
func (limits) Type() string     { return "bool" }

// program has commands whose outcome is told by the first argument; withDefault has no command's name for the first.
func program(withDefault bool) *Program {
	p := &Program{Name: "prog", Head: "prog does things.", Codes: "Exit codes: 0 done.\n", Interrupted: []error{errStopped},
		Short: map[string]string{"noise_lambda": "noise"}, Version: Version("prog", func() (string, error) { return "prog 1", nil }, func() string { return "notice\n" })}
	draw := Command{Name: "draw", Summary: "draws", Run: func(_ context.Context, args []string, t *Terminal) (int, error) {
		flags := pflag.NewFlagSet("draw", pflag.ContinueOnError)
		flags.Int("image-size", 1, "`N` pixels")
		flags.Float64("noise", 0, "`X`")
		flags.String("out", "", "`DIR`")
		flags.Bool("odd", false, "rare: it's \\[odd]")
		flags.Duration("wait", 0, "`TIME`")
		flags.String("kind", "", "`NAME`: round or square")
		Words(flags, "kind", "round", "square")
		flags.StringP("from", "f", "", "`FILE` to\nread")
		flags.VarPF(limits{}, "limits", "", "`LIMITS`").NoOptDefVal = "usual"
		flags.MarkHidden("limits")
		flags.Func("even", "`N`", func(string) error { return errors.New("use 2, 4 or 6") })
		if err := t.Parse(flags, args, Help{Text: "Usage: prog draw\n", Rare: []string{"odd"}, More: "More.\n"}); err != nil {
			return 0, err
		}
		switch flags.Arg(0) {
		case "setting":
			return 0, fmt.Errorf("about a setting: %w", setting.Wrong("noise_lambda", -1, "use 0 to {image_size}, or {other}"))
		case "usage":
			return 0, Usagef("--out is missing")
		case "fail":
			return 0, errors.New("two\nlines \x1b[2J")
		case "code":
			return Anomalous, nil
		case "stopped":
			return 0, fmt.Errorf("at step 7: %w", errStopped)
		}
		_, err := fmt.Fprintln(t.Stdout, "drawn")
		return Done, err
	}}
	if p.Commands = []Command{draw, p.Version}; withDefault {
		main := draw
		main.Name = ""
		p.Default = &main
	}
	return p
}

func TestRun(t *testing.T) {
	const drawHelp = "Usage: prog draw\n      --image-size N   N pixels (default 1)\n"
	for _, c := range []struct {
		args           string
		withDefault    bool
		code           int
		stdout, stderr string // what they begin with; "" is nothing
	}{
		{"draw", false, Done, "drawn\n", ""},
		{"draw code", false, Anomalous, "", ""},
		{"draw fail", false, Failed, "", "prog: two lines \\x1b[2J\n"},
		{"draw usage", false, WrongUsage, "", "prog: draw: --out is missing; see `prog draw --help`\n"},
		{"draw setting", false, WrongUsage, "", "prog: draw: about a setting: --noise is -1; use 0 to --image-size, or other; see `prog draw --help`\n"},
		{"draw stopped", false, Interrupted, "", "prog: at step 7: stopped after a checkpoint\n"},

		{"draw --help", false, Done, drawHelp, ""},
		{"help draw", false, Done, drawHelp, ""},
		{"draw --help-all", false, Done, drawHelp, ""},
		{"--help", false, Done, "prog does things.\n\nUsage: prog COMMAND ...\n\n  draw       draws\n  version    name versions; print licences\n", ""},
		{"--help-all", false, Done, "prog does things.\n\nUsage: prog COMMAND ...\n", ""},
		{"version --help-all", false, Done, "Usage: prog version [--licenses]\n", ""},
		{"man more", false, WrongUsage, "", "prog: man: \"more\" is one argument too many; see `prog man --help`\n"},
		{"completion", false, WrongUsage, "", "prog: completion: 0 shells named; name one of bash, zsh, fish; see `prog completion --help`\n"},
		{"completion bahs", false, WrongUsage, "", "prog: completion: \"bahs\" is no shell known here; did you mean bash?; name one of bash, zsh, fish; see `prog completion --help`\n"},
		{"help completion", true, Done, "Usage: prog completion bash|zsh|fish\n", ""},
		{"-h", false, Done, "prog does things.\n", ""},
		{"help", false, Done, "prog does things.\n", ""},
		{"help --help", false, Done, "prog does things.\n", ""},
		{"", false, WrongUsage, "", "prog does things.\n"},
		{"help", true, Done, drawHelp, ""},
		{"--help", true, Done, drawHelp, ""},
		{"help draw", true, Done, drawHelp, ""},
		{"", true, Done, "drawn\n", ""},
		{"usage", true, WrongUsage, "", "prog: unknown command \"usage\"; see `prog --help`\n"},
		{"--out=x usage", true, WrongUsage, "", "prog: --out is missing; see `prog --help`\n"},

		{"version", false, Done, "prog 1\n", ""},
		{"--version", true, Done, "prog 1\n", ""},
		{"version --licenses", true, Done, "prog 1\n\nnotice\n", ""},
		{"help version", false, Done, "Usage: prog version [--licenses]\n", ""},
		{"version more", false, WrongUsage, "", "prog: version: \"more\" is one argument too many; see `prog version --help`\n"},

		{"darw", false, WrongUsage, "", "prog: unknown command \"darw\"; did you mean draw?; see `prog --help`\n"},
		{"ver", true, WrongUsage, "", "prog: unknown command \"ver\"; did you mean version?; see `prog --help`\n"},
		{"hlep", true, WrongUsage, "", "prog: unknown command \"hlep\"; did you mean help?; see `prog --help`\n"},
		{"help darw", false, WrongUsage, "", "prog: unknown command \"darw\"; did you mean draw?; see `prog --help`\n"},
		{"help draw more", false, WrongUsage, "", "prog: \"more\" is one argument too many; `prog help COMMAND` explains a command\n"},
		{"--out=x draw", false, WrongUsage, "", "prog: \"--out=x\" stands before the command; name one first, see `prog --help`\n"},
		{"draw --imagesize 3", false, WrongUsage, "", "prog: draw: unknown flag: --imagesize; did you mean --image-size?; see `prog draw --help`\n"},
		{"draw --image=3", false, WrongUsage, "", "prog: draw: unknown flag: --image; did you mean --image-size?; see `prog draw --help`\n"},
		{"draw --nonsense", false, WrongUsage, "", "prog: draw: unknown flag: --nonsense; see `prog draw --help`\n"},
		{"--nosie=3", true, WrongUsage, "", "prog: unknown flag: --nosie; did you mean --noise?; see `prog --help`\n"},
		{"draw --image-size many", false, WrongUsage, "", "prog: draw: --image-size is \"many\"; use a whole number; see `prog draw --help`\n"},
		{"draw --image-size=99999999999999999999", false, WrongUsage, "", "prog: draw: --image-size is \"99999999999999999999\"; use a whole number; see `prog draw --help`\n"},
		{"draw --noise=1,5", false, WrongUsage, "", "prog: draw: --noise is \"1,5\"; use a number; see `prog draw --help`\n"},
		{"draw --odd=perhaps", false, WrongUsage, "", "prog: draw: --odd is \"perhaps\"; use true or false; see `prog draw --help`\n"},
		{"draw --limits=b", false, WrongUsage, "", "prog: draw: --limits is \"b\"; use a=X; see `prog draw --help`\n"},
		{"draw --wait=5", false, WrongUsage, "", "prog: draw: --wait is \"5\"; use a time with its unit, such as 30s, 5m or 1h30m; see `prog draw --help`\n"},
		{"draw --even=3", false, WrongUsage, "", "prog: draw: --even is \"3\"; use 2, 4 or 6; see `prog draw --help`\n"},
		{"draw --out", false, WrongUsage, "", "prog: draw: --out lacks its value: --out DIR; see `prog draw --help`\n"},
		{"draw -x", false, WrongUsage, "", "prog: draw: unknown shorthand flag: 'x' in -x; see `prog draw --help`\n"},
	} {
		var stdout, stderr bytes.Buffer
		code := program(c.withDefault).Run(t.Context(), strings.Fields(c.args), nil, &stdout, &stderr)
		begins := func(got, want string) bool { return strings.HasPrefix(got, want) && (want != "" || got == "") }
		if code != c.code || !begins(stdout.String(), c.stdout) || !begins(stderr.String(), c.stderr) {
			t.Errorf("%q: got code %d, stdout %q, stderr %q, want %d, %q, %q", c.args, code, &stdout, &stderr, c.code, c.stdout, c.stderr)
		}
	}
}

// --help leaves rare flags out, --help-all has them, and more.
func TestRareFlags(t *testing.T) {
	for args, want := range map[string]bool{"draw --help": false, "draw --help-all": true} {
		var stdout bytes.Buffer
		program(false).Run(t.Context(), strings.Fields(args), nil, &stdout, nil)
		if got := stdout.String(); strings.Contains(got, "--odd") != want || strings.HasSuffix(got, "More.\n") != want || !strings.Contains(got, "--help-all") {
			t.Errorf("%s: got %s, want --odd and more: %v", args, got, want)
		}
	}
}

// A command that does not end when it is asked to is left after a while, a patient one is not, and either ends with 130
// where nothing else is said.
func TestInterrupted(t *testing.T) {
	broken := errors.New("no room for the checkpoint")
	for _, c := range []struct {
		name    string
		patient bool
		takes   time.Duration // to end
		err     error
		code    int
		after   time.Duration
		stderr  string
	}{
		{"ends at once", false, 0, context.Canceled, Interrupted, 0, "prog: interrupted; run the same command again\n"},
		{"ends with another error", false, 0, broken, Interrupted, 0, "prog: interrupted; run the same command again\n"},
		{"is done", false, time.Second, nil, Done, time.Second, ""},
		{"is stuck", false, time.Hour, nil, Interrupted, patience, "prog: interrupted; run the same command again\n"},
		{"patient", true, time.Hour, nil, Done, time.Hour, ""},
		{"patient, interrupted", true, time.Hour, fmt.Errorf("%w at step 3", errStopped), Interrupted, time.Hour, "prog: stopped after a checkpoint at step 3\n"},
		{"patient, waiting", true, 0, context.Canceled, Interrupted, 0, "prog: interrupted; run the same command again\n"},
		{"patient, failed", true, time.Hour, broken, Failed, time.Hour, "prog: no room for the checkpoint\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			p := &Program{Name: "prog", Interrupted: []error{errStopped}, Default: &Command{Patient: c.patient,
				Run: func(ctx context.Context, _ []string, _ *Terminal) (int, error) {
					cancel()
					time.Sleep(c.takes)
					return Done, c.err
				}}}
			began := time.Now()
			var stderr bytes.Buffer
			code := p.Run(ctx, nil, nil, nil, &stderr)
			if took := time.Since(began); code != c.code || took != c.after || stderr.String() != c.stderr {
				t.Errorf("%s: got code %d after %v, %q, want %d after %v, %q", c.name, code, took, &stderr, c.code, c.after, c.stderr)
			}
			time.Sleep(2 * time.Hour) // for what has been left
		})
	}
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if got, err := Await(ctx, func() (int, error) { return 7, errStopped }); got != 7 || err != errStopped {
			t.Errorf("got %d and %v, want 7 and %v", got, err, errStopped)
		}
		got, err := Await(ctx, func() (int, error) { time.Sleep(time.Hour); return 7, nil })
		if got != 0 || err != context.DeadlineExceeded {
			t.Errorf("stuck: got %d and %v, want 0 and %v", got, err, context.DeadlineExceeded)
		}
		time.Sleep(time.Hour)
	})
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"eval", "eval", 0}, {"evla", "eval", 1}, {"evall", "eval", 1}, {"evl", "eval", 1}, {"oval", "eval", 1},
		{"kitten", "sitting", 3}, {"ca", "abc", 3}, {"größe", "grösse", 2}} {
		if got, back := distance(c.a, c.b), distance(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("%q, %q: got %d, back %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}

func TestWrapped(t *testing.T) {
	const long = "      --out DIR   a folder whose use takes very many words to explain, more than a line has\n"
	for line, want := range map[string]string{
		"      --out DIR   short\n": "      --out DIR   short\n",
		long:                        "      --out DIR   a folder whose use takes very many words to explain, more than\n                  a line has\n",
		"      " + strings.Repeat("x", 90) + "\n": "      " + strings.Repeat("x", 90) + "\n",
	} {
		if got := wrapped(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
