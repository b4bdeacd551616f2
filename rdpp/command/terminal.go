package command

import (
	"errors"
	"fmt"
	"io"
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
	Rare []string // flags that --help leaves out, and --help-all prints; none: there is no --help-all
	More string   // behind the flags of --help-all
}

// Parse reads a command's flags. Asked for help it prints that, and returns pflag.ErrHelp.
func (t *Terminal) Parse(flags *pflag.FlagSet, args []string, help Help) error {
	t.flags = flags
	flags.SortFlags = false
	flags.Usage = func() {}
	all := false
	if len(help.Rare) > 0 {
		flags.BoolVar(&all, "help-all", false, "all flags")
	}
	err := flags.Parse(args)
	if err == nil && !all {
		return nil
	}
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		return usageError{withMeant(err, flags)}
	}
	text := help.Text
	for _, name := range help.Rare {
		flags.Lookup(name).Hidden = !all
	}
	text += flags.FlagUsages()
	if all {
		text += help.More
	}
	if _, err := fmt.Fprint(t.Stdout, text); err != nil {
		return err
	}
	return pflag.ErrHelp
}

// withMeant adds to the error about an unknown flag which one may have been meant.
func withMeant(err error, flags *pflag.FlagSet) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return fmt.Errorf("%w%s", err, meant("--"+unknown.GetSpecifiedName(), names))
}
