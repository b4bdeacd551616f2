package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

const manualHelp = `Usage: %[1]s man

Prints the manual page of %[1]s with all commands and flags, for man:
%[1]s man >%[1]s.1; man ./%[1]s.1

`

// manual is the command that prints the manual page.
func (p *Program) manual() Command {
	return Command{Name: "man", Summary: "print the manual page", Args: None,
		Run: func(_ context.Context, args []string, t *Terminal) (int, error) {
			flags := pflag.NewFlagSet("man", pflag.ContinueOnError)
			if err := t.Parse(flags, args, Help{Text: fmt.Sprintf(manualHelp, p.Name)}); err != nil {
				return 0, err
			}
			if flags.NArg() > 0 {
				return 0, Usagef("%q is one argument too many", flags.Arg(0))
			}
			_, err := fmt.Fprint(t.Stdout, p.page())
			return Done, err
		}}
}

// page is the manual page in troff's language, by man(7).
func (p *Program) page() string {
	var s strings.Builder
	upper := strings.ToUpper(p.Name)
	fmt.Fprintf(&s, ".TH %s 1 \"\" rdpp \"User Commands\"\n.SH NAME\n%s \\- %s\n", upper, roff(p.Name), roff(p.Summary))
	fmt.Fprintf(&s, ".SH SYNOPSIS\n.B %s\n.RI [ COMMAND ]\n.RI [ FLAGS ]\n", roff(p.Name))
	described := p.Describe()
	if p.Default == nil {
		fmt.Fprintf(&s, ".SH DESCRIPTION\n%s.SH COMMANDS\n", literal(p.Head+"\n"))
	} else {
		fmt.Fprintf(&s, ".SH DESCRIPTION\n%s.SH FLAGS\n", literal(described[0].Help.Text))
		flagsPage(&s, &described[0])
		s.WriteString(".SH COMMANDS\n")
		described = described[1:]
	}
	for _, d := range described {
		fmt.Fprintf(&s, ".SS %s %s\n%s.\n%s", roff(p.Name), roff(d.Name), roff(d.Summary), literal(d.Help.Text))
		flagsPage(&s, &d)
	}
	if p.Codes != "" {
		fmt.Fprintf(&s, ".SH \"EXIT STATUS\"\n%s", literal(p.Codes))
	}
	return s.String()
}

// flagsPage writes the flags of a command, and what --help-all says behind them.
func flagsPage(s *strings.Builder, d *Description) {
	for _, f := range d.flagsOf() {
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fR, ` + name
		}
		if takesValue(f) {
			placeholder, _ := pflag.UnquoteUsage(f)
			name += ` \fI` + roff(placeholder) + `\fR`
		}
		text := roff(told(f))
		if takesValue(f) && f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "0" {
			text += roff(" (default " + f.DefValue + ")")
		}
		fmt.Fprintf(s, ".TP\n%s\n%s\n", name, text)
	}
	if d.Help.More != "" {
		s.WriteString(literal(d.Help.More))
	}
}

// literal is a text with its lines as they are.
func literal(text string) string {
	return ".PP\n.nf\n" + roff(strings.TrimRight(text, "\n")) + "\n.fi\n"
}

// roff is a text in which nothing is a command of troff.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
