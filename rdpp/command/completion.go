package command

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// shells writes completions, by the name of the shell. They are scripts of their own: asking the program at every press of
// a key would load libtorch each time.
var shells = map[string]func(p *Program, all []Description) string{"bash": bash, "zsh": zsh, "fish": fish}

const completionHelp = `Usage: %[1]s completion bash|zsh|fish

Prints what completes the commands and flags of %[1]s in a shell:

  bash   %[1]s completion bash >~/.local/share/bash-completion/completions/%[1]s
  zsh    %[1]s completion zsh >FOLDER/_%[1]s, with FOLDER in $fpath
  fish   %[1]s completion fish >~/.config/fish/completions/%[1]s.fish

`

// completion is the command that prints completions.
func (p *Program) completion() Command {
	names := []string{"bash", "zsh", "fish"}
	return Command{Name: "completion", Summary: "complete commands and flags in bash, zsh or fish", Args: None,
		Run: func(_ context.Context, args []string, t *Terminal) (int, error) {
			flags := pflag.NewFlagSet("completion", pflag.ContinueOnError)
			if err := t.Parse(flags, args, Help{Text: fmt.Sprintf(completionHelp, p.Name)}); err != nil {
				return 0, err
			}
			switch {
			case flags.NArg() != 1:
				return 0, Usagef("%d shells named; name one of %s", flags.NArg(), strings.Join(names, ", "))
			case shells[flags.Arg(0)] == nil:
				return 0, Usagef("%q is no shell known here%s; name one of %s", flags.Arg(0), meant(flags.Arg(0), names), strings.Join(names, ", "))
			}
			_, err := fmt.Fprint(t.Stdout, shells[flags.Arg(0)](p, p.Describe()))
			return Done, err
		}}
}

// namesOf are the names of commands.
func namesOf(all []Description) (names []string) {
	for _, d := range all {
		if d.Name != "" {
			names = append(names, d.Name)
		}
	}
	return names
}

// bashSource completes with what compgen finds, whatever characters names have.
const bashSource = `# Completes %[1]s in bash; made by "%[1]s completion bash".
_rdpp_%[1]s() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=
  local commands=%[2]q flags= words= kind=files
  [ "$cur" != = ] || cur= # bash takes --flag=value apart
  [ "$prev" != = ] || prev=${COMP_WORDS[COMP_CWORD - 2]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -gt 1 ]; then
    case " help $commands " in *" ${COMP_WORDS[1]} "*) command=${COMP_WORDS[1]} ;; esac
  fi
  case "$command:$prev" in
%[3]s  esac
  case "$command" in
%[4]s  esac
  if [ -n "$words" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    return
  fi
  case "$kind:$cur" in
  flags:* | files:-* | folders:-* | none:-*) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur") ;;
  files:*)
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    compopt -o filenames 2>/dev/null
    ;;
  folders:*)
    mapfile -t COMPREPLY < <(compgen -d -- "$cur")
    compopt -o filenames 2>/dev/null
    ;;
  esac
  if [ "$COMP_CWORD" = 1 ]; then
    mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W "help $commands" -- "$cur")
  fi
}
complete -F _rdpp_%[1]s %[1]s
`

var kinds = map[Argument]string{Files: "files", Folders: "folders", None: "none"}

func bash(p *Program, all []Description) string {
	var after, of strings.Builder
	for _, d := range all {
		var names []string
		for _, f := range d.flagsOf() {
			names = append(names, "--"+f.Name)
			if !takesValue(f) {
				continue
			}
			words, kind := values(f)
			pattern := d.Name + ":--" + f.Name
			if f.Shorthand != "" {
				pattern += " | " + d.Name + ":-" + f.Shorthand
			}
			set := "kind=" + kinds[kind]
			if words != nil {
				set = fmt.Sprintf("words=%q", strings.Join(words, " "))
			}
			fmt.Fprintf(&after, "  %s) %s ;;\n", pattern, set)
		}
		more := ""
		if d.Name == "completion" {
			more = ` words="bash zsh fish"`
		}
		fmt.Fprintf(&of, "  %q) flags=%q%s ;;\n", d.Name, strings.Join(names, " "), more)
	}
	of.WriteString("  help) words=$commands ;;\n")
	return fmt.Sprintf(bashSource, p.Name, strings.Join(namesOf(all), " "), after.String(), of.String())
}

// zshSource hands a command's flags to _arguments.
const zshSource = `#compdef %[1]s
# Completes %[1]s in zsh; made by "%[1]s completion zsh".
local -a commands
commands=(
  'help:explain a command'
%[2]s)
if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
  _describe command commands
  return
fi
case $words[2] in
%[3]sesac
`

// zshQuoted is a text within single quotes in which nothing is special for _arguments.
func zshQuoted(text string) string {
	return strings.NewReplacer(`'`, `'\''`, `\`, `\\`, `[`, `\[`, `]`, `\]`, `:`, `\:`).Replace(text)
}

func zsh(p *Program, all []Description) string {
	var commands, cases strings.Builder
	for _, d := range slices.Backward(all) { // the one without a name last, as it takes what is left
		if d.Name != "" {
			fmt.Fprintf(&cases, "%s)\n  shift words; (( CURRENT-- ))\n  _arguments -s", d.Name)
		} else {
			fmt.Fprintf(&cases, "*)\n  _arguments -s")
		}
		for _, f := range d.flagsOf() {
			spec := "--" + f.Name
			if takesValue(f) {
				words, kind := values(f)
				placeholder, _ := pflag.UnquoteUsage(f)
				action := map[Argument]string{Files: "_files", Folders: "_files -/", None: " "}[kind]
				if words != nil {
					action = "(" + strings.Join(words, " ") + ")"
				}
				spec = fmt.Sprintf("*%s=[%s]:%s:%s", spec, zshQuoted(told(f)), zshQuoted(placeholder), zshQuoted(action))
			} else {
				spec = fmt.Sprintf("*%s[%s]", spec, zshQuoted(told(f)))
			}
			fmt.Fprintf(&cases, " \\\n    '%s'", spec)
		}
		action := map[Argument]string{Files: "'*:file:_files'", Folders: "'*:folder:_files -/'", None: ""}[d.Args]
		if d.Name == "completion" {
			action = "'1:shell:(bash zsh fish)'"
		}
		if action != "" {
			action = " \\\n    " + action
		}
		fmt.Fprintf(&cases, "%s\n  ;;\n", action)
	}
	for _, d := range all {
		if d.Name != "" {
			fmt.Fprintf(&commands, "  '%s:%s'\n", d.Name, strings.ReplaceAll(d.Summary, `'`, `'\''`))
		}
	}
	text := fmt.Sprintf("help)\n  _describe command commands\n  ;;\n%s", cases.String())
	return fmt.Sprintf(zshSource, p.Name, commands.String(), text)
}

func fish(p *Program, all []Description) string {
	var s strings.Builder
	quoted := func(text string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
	}
	names := namesOf(all)
	fmt.Fprintf(&s, "# Completes %[1]s in fish; made by \"%[1]s completion fish\".\n", p.Name)
	first := "__fish_is_nth_token 1"
	fmt.Fprintf(&s, "complete -c %s -n %s -a help -d %s\n", p.Name, quoted(first), quoted("explain a command"))
	fmt.Fprintf(&s, "complete -c %s -n '__fish_seen_subcommand_from help' -x -a %s\n", p.Name, quoted(strings.Join(names, " ")))
	for _, d := range all {
		when := "__fish_seen_subcommand_from " + d.Name
		if d.Name == "" {
			when = "not __fish_seen_subcommand_from " + strings.Join(names, " ")
		} else {
			fmt.Fprintf(&s, "complete -c %s -n %s -a %s -d %s\n", p.Name, quoted(first), d.Name, quoted(d.Summary))
		}
		if d.Args == None && d.Name != "" {
			fmt.Fprintf(&s, "complete -c %s -n %s -f\n", p.Name, quoted(when))
		}
		if d.Name == "completion" {
			fmt.Fprintf(&s, "complete -c %s -n %s -a 'bash zsh fish'\n", p.Name, quoted(when))
		}
		for _, f := range d.flagsOf() {
			value := ""
			if takesValue(f) {
				switch words, kind := values(f); {
				case words != nil:
					value = " -x -a " + quoted(strings.Join(words, " "))
				case kind == Files:
					value = " -r -F"
				case kind == Folders:
					value = " -x -a '(__fish_complete_directories)'"
				default:
					value = " -x"
				}
			}
			if f.Shorthand != "" {
				value = " -s " + f.Shorthand + value
			}
			fmt.Fprintf(&s, "complete -c %s -n %s -l %s%s -d %s\n", p.Name, quoted(when), f.Name, value, quoted(told(f)))
		}
	}
	return s.String()
}
