package testmain

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"rdpp/rdpp/command"
)

// placeholders are what the values of flags are called: N is a whole number, X any, SHARE one from 0 to 1, NAME a word of a few.
var placeholders = regexp.MustCompile(`^(FILE|DIR|ADDR|URL|N([,/]N)?|N,\.\.\.|X(,X,X)?|SHARE|TIME|NAMES?|TEXT|W,H|X,Y,W,H|ID=NAME|NAME=X,\.\.\.)$`)

// WantFlags fails where a line of a command's help is longer than a terminal is wide, or a flag calls its value by no word that
// all flags share.
func WantFlags(t *testing.T, p *command.Program) {
	t.Helper()
	const columns = 80
	for _, d := range p.Describe() {
		d.Flags.VisitAll(func(f *pflag.Flag) {
			if name, _ := pflag.UnquoteUsage(f); f.NoOptDefVal == "" && !placeholders.MatchString(name) {
				t.Errorf("%s %s: --%s %s, want a placeholder like %v", p.Name, d.Name, f.Name, name, placeholders)
			}
		})
		for line := range strings.Lines(d.Help.Usage(d.Flags, true)) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("%s %s: got a line of %d characters, want at most %d: %s", p.Name, d.Name, n, columns, line)
			}
		}
	}
}
