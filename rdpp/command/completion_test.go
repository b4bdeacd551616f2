package command

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// printed is what a command line of the test's program prints.
func printed(t *testing.T, withDefault bool, args ...string) string {
	var stdout, stderr bytes.Buffer
	if code := program(withDefault).Run(t.Context(), args, nil, &stdout, &stderr); code != Done {
		t.Fatalf("%q: got code %d, %s", args, code, &stderr)
	}
	return stdout.String()
}

// folder is one with two files and a folder in it.
func folder(t *testing.T) string {
	dir := t.TempDir()
	for _, name := range []string{"part one.png", "part two.png"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "parts"), 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// program's completions in bash, as bash itself finds them.
func TestBash(t *testing.T) {
	const all = "--image-size --noise --out --odd --wait --kind --from --limits --even --help-all --help"
	for _, c := range []struct {
		withDefault bool
		words       []string // of the line, the last of them unfinished
		want        []string
	}{
		{false, []string{"dr"}, []string{"draw"}},
		{false, []string{"zzz"}, nil},
		{false, []string{"draw", "--im"}, []string{"--image-size"}},
		{false, []string{"draw", "--"}, strings.Fields(all)},
		{false, []string{"version", "--l"}, []string{"--licenses"}},
		{true, []string{"--n"}, []string{"--noise"}},
		{false, []string{"draw", "--kind", ""}, []string{"round", "square"}},
		{false, []string{"draw", "--kind", "=", "sq"}, []string{"square"}},
		{false, []string{"draw", "--kind", "="}, []string{"round", "square"}},
		{false, []string{"draw", "--noise", ""}, nil},
		{false, []string{"draw", "--from", "part"}, []string{"part one.png", "part two.png", "parts"}},
		{false, []string{"draw", "-f", "part "}, []string{"part one.png", "part two.png"}},
		{false, []string{"draw", "--out", "part"}, []string{"parts"}},
		{false, []string{"draw", "--odd", "part"}, []string{"part one.png", "part two.png", "parts"}},
		{true, []string{"part"}, []string{"part one.png", "part two.png", "parts"}},
		{false, []string{"completion", ""}, []string{"bash", "zsh", "fish"}},
		{false, []string{"help", "com"}, []string{"completion"}},
	} {
		script := printed(t, c.withDefault, "completion", "bash") +
			"COMP_WORDS=(prog \"$@\") COMP_CWORD=$#\n_rdpp_prog\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
		bash := exec.Command("bash", append([]string{"--norc", "-uc", script, "bash"}, c.words...)...)
		bash.Dir = folder(t)
		out, err := bash.CombinedOutput()
		got := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
		slices.Sort(got)
		want := slices.Sorted(slices.Values(c.want))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", c.words, got, err, want)
		}
	}
}

// zsh and fish read what is made for them, and fish completes by it.
func TestOtherShells(t *testing.T) {
	for _, withDefault := range []bool{false, true} {
		for _, shell := range []string{"zsh", "fish"} {
			text := printed(t, withDefault, "completion", shell)
			for _, want := range []string{"image-size", "round square", "licenses", "draw", "bash zsh fish"} {
				if !strings.Contains(text, want) {
					t.Errorf("%s: got no %q in %s", shell, want, text)
				}
			}
			if _, err := exec.LookPath(shell); err != nil {
				continue // only its reader is missing
			}
			file := filepath.Join(t.TempDir(), "completions")
			if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(shell, "-n", file).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: got %v: %s", shell, err, out)
			}
		}
	}
	if _, err := exec.LookPath("fish"); err != nil {
		t.Skip("no fish here")
	}
	for line, want := range map[string]string{"prog draw --ki": "--kind", "prog draw --kind s": "square", "prog dr": "draw",
		"prog draw --out par": "parts/", "prog completion z": "zsh"} {
		fish := exec.Command("fish", "--no-config", "-c", printed(t, false, "completion", "fish")+fmt.Sprintf("complete -C %q\n", line))
		fish.Dir = folder(t)
		out, err := fish.CombinedOutput()
		if first, _, _ := strings.Cut(string(out), "\t"); err != nil || strings.TrimSpace(first) != want {
			t.Errorf("%s: got %q, %v, want %s", line, out, err, want)
		}
	}
}

// The manual page has every command and flag, and groff has nothing to say about it.
func TestManual(t *testing.T) {
	for _, withDefault := range []bool{false, true} {
		page := printed(t, withDefault, "man")
		for _, want := range []string{".TH PROG 1", `\fB\-\-image\-size\fR \fIN\fR`, `\fB\-f\fR, \fB\-\-from\fR \fIFILE\fR`, "FILE to read", `it's \e[odd]`, ".SS prog version", "More.", `\-\-licenses`} {
			if !strings.Contains(page, want) {
				t.Errorf("got no %q in %s", want, page)
			}
		}
		if _, err := exec.LookPath("groff"); err != nil {
			continue
		}
		groff := exec.Command("groff", "-man", "-ww", "-Tutf8")
		groff.Stdin = strings.NewReader(page)
		var warnings bytes.Buffer
		groff.Stderr = &warnings
		if out, err := groff.Output(); err != nil || warnings.Len() > 0 || !strings.Contains(string(out), "N pixels (default 1)") {
			t.Errorf("groff: got %v, %s", err, &warnings)
		}
	}
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{"": "", "a-b": `a\-b`, `\n`: `\en`, ".TH\nx\n'y": "\\&.TH\nx\n\\&'y"} {
		if got := roff(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
