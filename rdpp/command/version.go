package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Versions are the lines of Version: the program's and libtorch's version, and the commit where that is known.
func Versions(program, libtorch, commit string) string {
	text := fmt.Sprintf("rdpp %s, libtorch %s", program, libtorch)
	if commit != "" {
		text += "\ncommit " + commit
	}
	return text
}

// Build is Versions in a line. Programs of one Build have the same defaults, and compute the same on the same machine.
func Build(program, libtorch, commit string) string {
	return strings.ReplaceAll(Versions(program, libtorch, commit), "\n", ", ")
}

// Version is the command that names versions, by a line that text returns, and with --licenses prints notice.
func Version(program string, text func() (string, error), notice func() string) Command {
	help := Help{Text: "Usage: " + program + " version [--licenses]\n\nNames the versions of rdpp and of the libtorch that it runs on.\n\n"}
	return Command{Name: "version", Summary: "name versions; print licences",
		Run: func(_ context.Context, args []string, t *Terminal) (int, error) {
			flags := pflag.NewFlagSet("version", pflag.ContinueOnError)
			licenses := flags.Bool("licenses", false, "print licences and notices of what is inside")
			switch err := t.Parse(flags, args, help); {
			case err != nil:
				return 0, err
			case flags.NArg() > 0:
				return 0, Usagef("%q is one argument too many", flags.Arg(0))
			}
			line, err := text()
			if err == nil {
				_, err = fmt.Fprintln(t.Stdout, line)
			}
			if err == nil && *licenses {
				_, err = fmt.Fprint(t.Stdout, "\n", notice())
			}
			return Done, err
		}}
}
