package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/testmain"
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

// wantLines are the beginnings of what the checks of the bindings print, by their first words.
func wantLines(t *testing.T) map[string]string {
	t.Helper()
	line := func(name string, score float64) string {
		return fmt.Sprintf("%s %.17g %d ", name, score, map[bool]int{true: 1}[score > results[0].Threshold])
	}
	lines := map[string]string{"ignoring": line("ignoring", ignoringUpperHalf(t, images[0]))}
	for _, name := range []string{"plain", "file", "own", "bgr", "numpy"} {
		lines[name] = line(name, results[0].Score)
	}
	return lines
}

// checked runs a check and holds what it prints against Go. It returns how many lines there are of each first word.
func checked(t *testing.T, program ...string) map[string]int {
	t.Helper()
	want, counts := wantLines(t), map[string]int{}
	cmd := exec.Command(program[0], append(program[1:], modelFile, frameFile, images[0])...)
	cmd.Env = bindingEnv()
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", program, err, text)
	}
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		counts[name]++
		if !strings.HasPrefix(line, want[name]) {
			t.Errorf("%q: got %q, want %q", program, line, want[name])
		}
	}
	for _, name := range []string{"plain", "file", "own", "bgr"} {
		if counts[name] != 1 || counts["ignoring"] < 2 {
			t.Fatalf("%q: got\n%s", program, text)
		}
	}
	return counts
}

// bindingEnv lets bindings find the library.
func bindingEnv() []string {
	return append(os.Environ(), "PYTHONPATH=.", "PYTHONDONTWRITEBYTECODE=1", "RDPP_LIBRARY="+filepath.Join(library, "librdpp.so"),
		"LD_LIBRARY_PATH="+library+":"+os.Getenv("LD_LIBRARY_PATH"), "DOTNET_CLI_TELEMETRY_OPTOUT=1", "DOTNET_NOLOGO=1")
}

// TestPython: rdpp.py gives what Go gives, to the last bit, of files, bytes and numpy's arrays, and its errors say what they should.
func TestPython(t *testing.T) {
	withNumpy := false
	for _, python := range pythons(t) {
		counts := checked(t, python, "testdata/check.py")
		withNumpy = withNumpy || counts["with"] == 1
		if counts["with"]+counts["without"] != 1 || counts["with"] == 1 && counts["numpy"] != 3 {
			t.Errorf("%s: got %v", python, counts)
		}
	}
	if !withNumpy {
		t.Skip("no python3 here has numpy: its arrays were not tried; python3-numpy has it")
	}
}

// csharp compiles a program of C# beside Rdpp.cs and returns how to run it, by .NET and by Mono, as far as they are here.
func csharp(t *testing.T, source string) (programs map[string][]string) {
	t.Helper()
	dir := t.TempDir()
	project := filepath.Join(dir, "examples", "csharp")
	for from, to := range map[string]string{"Rdpp.cs": dir, source: project, "examples/csharp/Detect.csproj": project} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(to, 0o777)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(from)), text, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	compile := func(args ...string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = project, bindingEnv()
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, text)
		}
	}
	programs = map[string][]string{}
	if path, err := exec.LookPath("dotnet"); err == nil {
		compile(path, "build", "-warnaserror", "-o", "out")
		programs[".NET"] = []string{path, filepath.Join(project, "out", "Detect.dll")}
	}
	if path, err := exec.LookPath("mcs"); err == nil {
		compile(path, "-warnaserror", "-out:program.exe", filepath.Base(source), "../../Rdpp.cs")
		programs["Mono"] = []string{"mono", filepath.Join(project, "program.exe")}
	}
	if len(programs) == 0 {
		t.Skip("neither dotnet nor mcs is installed: Rdpp.cs was not compiled")
	}
	return programs
}

// TestCSharp: Rdpp.cs and its example give what Go gives, to the last bit, and its errors say of what kind they are.
func TestCSharp(t *testing.T) {
	for name, program := range csharp(t, "testdata/Check.cs") {
		t.Run(name, func(t *testing.T) { checked(t, program...) })
	}
	for name, program := range csharp(t, "examples/csharp/Detect.cs") {
		cmd := exec.Command(program[0], append(program[1:], modelFile, images[0], modelFile)...)
		cmd.Env = bindingEnv()
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 || stdout.String() != wantLine(results[0], images[0]) || !strings.Contains(stderr.String(), "not an image") {
			t.Errorf("%s: got %v, %q, %q, want a line, an error and code 1", name, err, &stdout, &stderr)
		}
	}
}

// TestPkgConfig: a program is compiled with what pkg-config says, wherever the folder lies.
func TestPkgConfig(t *testing.T) {
	pkgConfig, err := exec.LookPath("pkg-config")
	if err != nil {
		t.Skip("no pkg-config is installed")
	}
	template, err := os.ReadFile("../../scripts/rdpp.pc.in")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "moved")
	file := filepath.Join(dir, "lib", "pkgconfig", "rdpp.pc")
	text := strings.ReplaceAll(string(template), "@RDPP_VERSION@", rdpp.Version)
	for _, err := range []error{os.MkdirAll(filepath.Dir(file), 0o777), os.WriteFile(file, []byte(text), 0o666),
		os.Symlink(filepath.Join(library, "librdpp.so"), filepath.Join(dir, "lib", "librdpp.so")), os.Symlink(absolute(t, "."), filepath.Join(dir, "include"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(args ...string) []string {
		t.Helper()
		cmd := exec.Command(pkgConfig, append(args, "rdpp")...)
		cmd.Env = append(os.Environ(), "PKG_CONFIG_PATH="+filepath.Dir(file))
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("pkg-config %q: %v\n%s", args, err, text)
		}
		return strings.Fields(string(text))
	}
	if got := ask("--modversion"); len(got) != 1 || got[0] != rdpp.Version {
		t.Errorf("got version %q, want %s", got, rdpp.Version)
	}
	program := filepath.Join(t.TempDir(), "program")
	args := append([]string{"-std=c11", "examples/detect.c", "-o", program, "-Wl,--allow-shlib-undefined"}, ask("--cflags", "--libs")...)
	if text, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("cc %q: %v\n%s", args, err, text)
	}
	cmd := exec.Command(program, modelFile, images[0])
	cmd.Env = bindingEnv()
	if line, err := cmd.Output(); err != nil || string(line) != wantLine(results[0], images[0]) {
		t.Errorf("got %q, %v, want %q", line, err, wantLine(results[0], images[0]))
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	full, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return full
}

// TestLimits: the library computes with as many threads as a control group allows.
func TestLimits(t *testing.T) {
	python := pythons(t)[0]
	for _, c := range []struct {
		before []string
		want   string
	}{{[]string{"env"}, fmt.Sprint(allowance.CPUs())}, {testmain.Limited(t, 80, 1<<30), "1"}} {
		words := append(c.before, python, "testdata/threads.py", modelFile, images[0])
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Env = bindingEnv()
		if text, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(text)) != c.want {
			t.Errorf("%q: got %v, %s, want %s threads", words, err, text, c.want)
		}
	}
}
