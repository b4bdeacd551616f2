package testmain

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Limited makes a control group that has so many hundredths of a processor and bytes of memory, and in it a group without
// limits. It returns the words before a program's name that start it there. Both groups end with the test; where none can be
// made, it is skipped.
func Limited(t testing.TB, percent int, bytes int64) (before []string) {
	t.Helper()
	period := 50_000 // microseconds
	quota, most := strconv.Itoa(percent*period/100), strconv.FormatInt(bytes, 10)
	cpu := [][2]string{{"cpu.cfs_period_us", strconv.Itoa(period)}, {"cpu.cfs_quota_us", quota}}
	enter := func(dir string) string { return fmt.Sprintf("echo $$ >%s/cgroup.procs", dir) }
	script := ""
	if dir, ok := makeGroups(t, "/sys/fs/cgroup/cpu", cpu); ok {
		script = enter(dir)
		if dir, ok = makeGroups(t, "/sys/fs/cgroup/memory", [][2]string{{"memory.limit_in_bytes", most}}); !ok {
			t.Fatal("groups can be made to limit processors, but not memory")
		}
		script += " && " + enter(dir)
	} else if dir, ok := makeGroups(t, "/sys/fs/cgroup", [][2]string{{"cpu.max", fmt.Sprint(quota, " ", period)}, {"memory.max", most}}); ok {
		script = enter(dir)
	} else {
		t.Skip("this system lets the test make no control groups, which takes root and a writable /sys/fs/cgroup")
	}
	return []string{"env", "GOMAXPROCS=", "sh", "-c", script + ` && exec "$@"`, "sh"}
}

// makeGroups makes a group with limits below parent, and one in it, whose folder it returns.
func makeGroups(t testing.TB, parent string, limits [][2]string) (inner string, ok bool) {
	outer := filepath.Join(parent, "rdpp-test-"+strconv.Itoa(os.Getpid()))
	inner = filepath.Join(outer, "inner")
	t.Cleanup(func() {
		os.Remove(inner)
		os.Remove(outer)
	})
	for _, dir := range []string{outer, inner} {
		if os.Mkdir(dir, 0o755) != nil {
			return "", false
		}
	}
	for _, l := range limits {
		if os.WriteFile(filepath.Join(outer, l[0]), []byte(l[1]), 0) != nil {
			return "", false
		}
	}
	return inner, true
}

// WantHelp wants what a program prints, its spaces and line ends taken for single spaces, to match expressions.
func WantHelp(t testing.TB, program string, before, args []string, wants ...string) {
	t.Helper()
	child := Child(program, args...)
	words := append(slices.Clone(before), child.Args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = child.Env
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range wants {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%v: got %s, want %s", args, text, want)
		}
	}
}
