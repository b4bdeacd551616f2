package command

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"rdpp/rdpp/printable"
	"rdpp/rdpp/setting"
)

// Terminal is where a command reads and writes.
type Terminal struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	name  string            // of the program
	short map[string]string // as Program has it
	flags *pflag.FlagSet    // of the command, from Parse on
	about *Description      // Parse fills it in and ends the command; nil: the command runs
}

// Say prints a line for people, in which names from files cannot act on the terminal.
func Say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintln(w, printable.Text(fmt.Sprintf(format, args...)))
	return err
}

// Complain prints an error as one line, whatever is in it, with settings called by their flags.
func (t *Terminal) Complain(err error) {
	_ = Say(t.Stderr, "%s: %s", t.name, strings.ReplaceAll(t.Tell(err), "\n", " ")) // there is nowhere else to tell it
}

// Tell is an error's text, with settings called by their flags where the command has such.
func (t *Terminal) Tell(err error) string { return setting.Text(err, t.FlagOf) }

// FlagOf is the flag of a setting where the command has such, else the setting.
func (t *Terminal) FlagOf(field string) string {
	if t.flags == nil {
		return field
	}
	for _, name := range []string{strings.ReplaceAll(field, "_", "-"), t.short[field]} {
		if t.flags.Lookup(name) != nil {
			return "--" + name
		}
	}
	return field
}

// Help is what --help prints beside a command's flags.
type Help struct {
	Text string   // before the flags, with an empty line where one is to be
	Rare []string // flags that --help leaves out, and --help-all prints; none: both print the same
	More string   // behind the flags of --help-all
}

// Parse reads a command's flags. Asked for help it prints that, and returns pflag.ErrHelp.
func (t *Terminal) Parse(flags *pflag.FlagSet, args []string, help Help) error {
	t.flags = flags
	flags.SortFlags = false
	flags.Usage = func() {}
	all := flags.Bool("help-all", false, "all flags")
	flags.Lookup("help-all").Hidden = len(help.Rare) == 0
	if t.about != nil {
		t.about.Flags, t.about.Help = flags, help
		return pflag.ErrHelp
	}
	err := flags.Parse(args)
	if err == nil && !*all {
		return nil
	}
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		return usageError{explained(err, flags)}
	}
	if _, err := fmt.Fprint(t.Stdout, help.Usage(flags, *all)); err != nil {
		return err
	}
	return pflag.ErrHelp
}

// Usage is what --help prints, or --help-all.
func (h *Help) Usage(flags *pflag.FlagSet, all bool) string {
	for _, name := range h.Rare {
		flags.Lookup(name).Hidden = !all
	}
	text := h.Text
	for line := range strings.Lines(flags.FlagUsages()) {
		text += wrapped(line)
	}
	if all {
		text += h.More
	}
	return text
}

// columns is how wide a terminal is that help fits.
const columns = 80

// beforeText is what stands in a line of pflag's before what a flag does.
var beforeText = regexp.MustCompile(`^ +(?:-\w, )?(?:--\S+(?: \S+)? {2,})?`)

// wrapped is a line about a flag, of ASCII, that goes on below its text where it is too long.
func wrapped(line string) string {
	begin := len(beforeText.FindString(line))
	text := ""
	for len(strings.TrimSuffix(line, "\n")) > columns {
		at := strings.LastIndexByte(line[:columns+1], ' ')
		if at <= begin {
			break // a word as long as that
		}
		text += line[:at] + "\n"
		line = strings.Repeat(" ", begin) + line[at+1:]
	}
	return text + line
}

// explained says what is wrong with a command line in the words of whoever typed it: which flag may have been meant, or what
// kind of value one takes.
func explained(err error, flags *pflag.FlagSet) error {
	var unknown *pflag.NotExistError
	var lacking *pflag.ValueRequiredError
	var wrong *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		var names []string
		flags.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		return fmt.Errorf("%w%s", err, meant("--"+unknown.GetSpecifiedName(), names))
	case errors.As(err, &lacking):
		f := lacking.GetFlag()
		placeholder, _ := pflag.UnquoteUsage(f)
		return fmt.Errorf("--%s lacks its value: --%s %s", f.Name, f.Name, placeholder)
	case errors.As(err, &wrong):
		f := wrong.GetFlag()
		// A value of our own that may be left out is a bool to pflag, and says itself what it takes.
		kind, number := f.Value.Type(), new(*strconv.NumError)
		if want := wanted(kind); want != "" && (kind != "bool" || errors.As(wrong.Unwrap(), number)) {
			return fmt.Errorf("--%s is %q; use %s", f.Name, wrong.GetValue(), want)
		}
		return fmt.Errorf("--%s is %q; %w", f.Name, wrong.GetValue(), wrong.Unwrap())
	}
	return err
}

// wanted says what a flag of one of pflag's types takes; "" of other types, whose own errors say it.
func wanted(kind string) string {
	switch kind {
	case "int", "int64":
		return "a whole number"
	case "uint64":
		return "a whole number of 0 or more"
	case "float64":
		return "a number"
	case "duration":
		return "a time with its unit, such as 30s, 5m or 1h30m"
	case "bool":
		return "true or false"
	case "intSlice":
		return "whole numbers with commas between"
	}
	return ""
}
