package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pythons are the interpreters to try: Debian's, which may have numpy, and the one that the path leads to.
func pythons(t *testing.T) (found []string) {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Skip("no python3 is installed")
	}
	return found
}

// TestPython: rdpp.py gives what Go gives, to the last bit, of files, bytes and numpy's arrays, and its errors say what they should.
func TestPython(t *testing.T) {
	var one strings.Builder
	show := func(name string, score float64) {
		fmt.Fprintf(&one, "%s %.17g %d", name, score, map[bool]int{true: 1}[score > results[0].Threshold])
	}
	lines := map[string]string{}
	for _, name := range []string{"plain", "file", "own", "bgr", "numpy"} {
		one.Reset()
		show(name, results[0].Score)
		lines[name] = one.String()
	}
	one.Reset()
	show("ignoring", ignoringUpperHalf(t, images[0]))
	lines["ignoring"] = one.String()
	withNumpy := false
	for _, python := range pythons(t) {
		cmd := exec.Command(python, "testdata/check.py", modelFile, frameFile, images[0])
		cmd.Env = append(os.Environ(), "PYTHONPATH=.", "PYTHONDONTWRITEBYTECODE=1", "RDPP_LIBRARY="+filepath.Join(library, "librdpp.so"))
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", python, err, text)
		}
		counts := map[string]int{}
		for line := range strings.Lines(string(text)) {
			name, _, _ := strings.Cut(line, " ")
			counts[name]++
			if want, is := lines[name]; is && !strings.HasPrefix(line, want) {
				t.Errorf("%s: got %q, want %q", python, line, want)
			}
		}
		numpy := counts["with"] == 1
		withNumpy = withNumpy || numpy
		if counts["plain"] != 1 || counts["file"] != 1 || counts["own"] != 1 || counts["bgr"] != 1 || counts["ignoring"] < 2 || numpy && counts["numpy"] != 3 {
			t.Errorf("%s: got\n%s", python, text)
		}
	}
	if !withNumpy {
		t.Log("no python3 here has numpy: its arrays were not tried; python3-numpy has it")
	}
}
