package command

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Argument is what a flag or an argument names, as far as a shell can complete it.
type Argument int

// The kinds of arguments.
const (
	Files   Argument = iota
	Folders          // and no files
	None             // nothing that a shell knows
)

// Description is what is known of a command without running it.
type Description struct {
	Name, Summary string // "" for what a command line without a command's name is for
	Args          Argument
	Flags         *pflag.FlagSet
	Help          Help
}

// Describe lists the commands of a program, Default first.
func (p *Program) Describe() []Description {
	commands := p.all()
	if p.Default != nil {
		commands = slices.Insert(commands, 0, *p.Default)
	}
	var described []Description
	for _, c := range commands {
		d := Description{Name: c.Name, Summary: c.Summary, Args: c.Args}
		t := &Terminal{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, name: p.Name, short: p.Short, about: &d}
		_, _ = c.Run(context.Background(), nil, t) // which ends in Parse
		described = append(described, d)
	}
	return described
}

// wordsOf is the annotation of a flag with the words that it takes.
const wordsOf = "command_words"

// Words says which words a flag takes, beside what else it may take, for the completions of shells.
func Words(flags *pflag.FlagSet, flag string, words ...string) {
	if err := flags.SetAnnotation(flag, wordsOf, words); err != nil {
		panic("command: " + err.Error()) // the flag is named where it is made
	}
}

// values says how the value of a flag is completed: by words, by names of files or folders, or not at all.
func values(f *pflag.Flag) (words []string, kind Argument) {
	placeholder, _ := pflag.UnquoteUsage(f)
	switch {
	case f.Annotations[wordsOf] != nil:
		return f.Annotations[wordsOf], None
	case strings.HasPrefix(placeholder, "FILE"):
		return nil, Files
	case placeholder == "DIR":
		return nil, Folders
	}
	return nil, None
}

// takesValue says whether a flag stands before a value.
func takesValue(f *pflag.Flag) bool { return f.NoOptDefVal == "" }

// told is what a flag does, on one line.
func told(f *pflag.Flag) string {
	_, usage := pflag.UnquoteUsage(f)
	return strings.ReplaceAll(usage, "\n", " ")
}

// flagsOf are a description's flags in the order of --help, --help among them.
func (d *Description) flagsOf() (all []*pflag.Flag) {
	d.Flags.VisitAll(func(f *pflag.Flag) { all = append(all, f) })
	help := pflag.NewFlagSet("", pflag.ContinueOnError) // which pflag answers without there being a flag
	help.BoolP("help", "h", false, "what the command does, and its flags")
	return append(all, help.Lookup("help"))
}
