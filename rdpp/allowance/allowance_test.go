package allowance

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"rdpp/rdpp/testmain"
)

func TestMain(m *testing.M) {
	testmain.Be(map[string]func([]string) error{"limits": func([]string) error {
		LimitGo()
		_, err := fmt.Println(CPUs(), Memory(), runtime.GOMAXPROCS(0))
		return err
	}, "garbage": func(args []string) error {
		if len(args) > 0 {
			RelaxGo()
		}
		for range 12 {
			kept = make([]byte, 1<<20)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		_, err := fmt.Println(m.NumGC)
		return err
	}})
	os.Exit(testmain.Run(m, nil))
}

// Lines of /proc/self/mountinfo.
const (
	v2       = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	v1CPU    = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
	v1Memory = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	other    = "22 29 0:21 / /proc rw,nosuid shared:12 - proc proc rw\nno mount\n"
)

// fileSystem is a file system with these files; of /proc/self/cgroup and mountinfo at least.
func fileSystem(groups, mounts string, files map[string]string) fs.FS {
	f := fstest.MapFS{"proc/self/cgroup": {Data: []byte(groups)}, "proc/self/mountinfo": {Data: []byte(mounts)}}
	for name, text := range files {
		f[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text)}
	}
	return f
}

func TestLimits(t *testing.T) {
	const most, total = 64, 256 << 30
	for name, c := range map[string]struct {
		groups, mounts string
		files          map[string]string
		cpus           int
		memory         int64
	}{
		"no files": {"", "", nil, most, total},
		"no limit": {"0::/\n", other + v2, map[string]string{
			"/sys/fs/cgroup/cpu.max": "max 100000\n", "/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.high": "max\n",
		}, most, total},
		"a container": {"0::/\n", other + v2, map[string]string{
			"/sys/fs/cgroup/cpu.max": "200000 100000\n", "/sys/fs/cgroup/memory.max": "1073741824\n",
		}, 2, 1 << 30},
		"half of a processor": {"0::/\n", v2, map[string]string{"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1, total},
		"one and a half":      {"0::/\n", v2, map[string]string{"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2, total},
		"a period of 10 ms":   {"0::/\n", v2, map[string]string{"/sys/fs/cgroup/cpu.max": "30000 10000\n"}, 3, total},
		"no period":           {"0::/\n", v2, map[string]string{"/sys/fs/cgroup/cpu.max": "400000\n"}, 4, total},
		"more than there is":  {"0::/\n", v2, map[string]string{"/sys/fs/cgroup/cpu.max": "9900000 100000\n", "/sys/fs/cgroup/memory.max": "9223372036854771712\n"}, most, total},
		"the outer group": {"0::/a.slice/b.service\n", v2, map[string]string{
			"/sys/fs/cgroup/a.slice/cpu.max": "300000 100000\n", "/sys/fs/cgroup/a.slice/b.service/cpu.max": "700000 100000\n",
			"/sys/fs/cgroup/a.slice/memory.max": "4096000\n", "/sys/fs/cgroup/a.slice/b.service/memory.max": "max\n",
		}, 3, 4096000},
		"the inner group": {"0::/a.slice/b.service\n", v2, map[string]string{
			"/sys/fs/cgroup/a.slice/cpu.max": "max 100000\n", "/sys/fs/cgroup/a.slice/b.service/cpu.max": "500000 100000\n",
			"/sys/fs/cgroup/a.slice/memory.max": "4096000\n", "/sys/fs/cgroup/a.slice/b.service/memory.max": "2048000\n",
		}, 5, 2048000},
		"another group":       {"0::/a\n", v2, map[string]string{"/sys/fs/cgroup/ab/cpu.max": "100000 100000\n"}, most, total},
		"where it slows down": {"0::/a\n", v2, map[string]string{"/sys/fs/cgroup/a/memory.max": "8192\n", "/sys/fs/cgroup/a/memory.high": "4096\n"}, most, 4096},
		"version 1": {"5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/\n", v1CPU + v1Memory, map[string]string{
			"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n", "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "536870912\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 3, 512 << 20},
		"version 1, no limit": {"5:memory:/\n4:cpu,cpuacct:/\n", v1CPU + v1Memory, map[string]string{
			"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, most, total},
		"version 1, the outer group": {"4:cpu,cpuacct:/a/b\n", v1CPU, map[string]string{
			"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "100000\n", "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
			"/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
		}, 1, total},
		"both versions": {"5:memory:/\n4:cpu,cpuacct:/\n0::/a\n", v1CPU + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", map[string]string{
			"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "600000\n", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
			"/sys/fs/cgroup/unified/a/memory.max": "65536\n",
		}, 6, 65536},
		"mounted from within": {"4:cpu:/docker/1f\n", "33 31 0:29 /docker/1f /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n", map[string]string{
			"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
		}, 2, total},
		"named from elsewhere": {"0::/../other\n", "33 31 0:29 /docker/1f /sys/fs/cgroup ro - cgroup2 cgroup rw\n", map[string]string{
			"/sys/fs/cgroup/cpu.max": "200000 100000\n",
		}, 2, total},
		"a name that begins alike": {"0::/docker/1f2\n", "33 31 0:29 /docker/1f /sys/fs/cgroup ro - cgroup2 cgroup rw\n", map[string]string{
			"/sys/fs/cgroup/2/cpu.max": "200000 100000\n",
		}, most, total},
		"a folder with a space": {"0::/a b\n", "33 31 0:29 / /sys/fs/c\\040group ro - cgroup2 cgroup rw\n", map[string]string{
			"/sys/fs/c group/a b/cpu.max": "200000 100000\n",
		}, 2, total},
		"a name with colons": {"0::/a:b:c\n", v2, map[string]string{"/sys/fs/cgroup/a:b:c/cpu.max": "200000 100000\n"}, 2, total},
		"nonsense": {"::\n0::/\n", v2 + " - cgroup2\n", map[string]string{
			"/sys/fs/cgroup/cpu.max": "0 0\n", "/sys/fs/cgroup/memory.max": "much\n", "/sys/fs/cgroup/memory.high": "-5\n",
		}, most, total},
		"negative": {"0::/\n", v2, map[string]string{"/sys/fs/cgroup/cpu.max": "-1 100000\n"}, most, total},
		"huge":     {"0::/\n", v2, map[string]string{"/sys/fs/cgroup/cpu.max": "9223372036854775807 9223372036854775806\n"}, 2, total},
	} {
		t.Run(name, func(t *testing.T) {
			root := fileSystem(c.groups, c.mounts, c.files)
			if got := cpus(root, most); got != c.cpus {
				t.Errorf("got %d processors, want %d", got, c.cpus)
			}
			if got := memory(root, total); got != c.memory {
				t.Errorf("got %d bytes of memory, want %d", got, c.memory)
			}
		})
	}
}

// limitsOf runs a process that tells what it may use, with words before its name that limit it.
func limitsOf(t *testing.T, before ...string) (cpus int, memory int64, goMaxProcs int) {
	t.Helper()
	child := testmain.Child("limits")
	words := append(before, child.Path)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(child.Env, "GOMAXPROCS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := fmt.Sscan(string(out), &cpus, &memory, &goMaxProcs); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return cpus, memory, goMaxProcs
}

func TestAffinity(t *testing.T) {
	cpus, _, goMaxProcs := limitsOf(t, "sh", "-c", `exec taskset -c $(taskset -p -c $$ | sed 's/.*: //; s/[,-].*//') "$@"`, "sh")
	if cpus != 1 || goMaxProcs != 1 {
		t.Errorf("bound to one processor: got %d, %d at a time in Go, want 1, 1", cpus, goMaxProcs)
	}
}

// TestRealGroup runs a process in a group without limits inside of one that has them.
func TestRealGroup(t *testing.T) {
	_, all, _ := limitsOf(t)
	limit := all / 4 >> 20 << 20
	if cpus, got, goMaxProcs := limitsOf(t, testmain.Limited(t, 80, limit)...); cpus != 1 || got != limit || goMaxProcs > 2 {
		t.Errorf("got %d processors, %d bytes, %d at a time in Go, want 1, %d, 2 at most", cpus, got, goMaxProcs, limit)
	}
}

func TestMemoryDefault(t *testing.T) {
	if got := MemoryDefault(1); got != 1 {
		t.Errorf("of at most one byte: got %d, want 1", got)
	}
	if got, want := MemoryDefault(math.MaxInt64), Memory()/4; got != want {
		t.Errorf("got %d, want a quarter of the memory, %d", got, want)
	}
}

func FuzzLimits(f *testing.F) {
	f.Add("0::/a/b\n", v2, "150000 100000\n", "1073741824\n")
	f.Add("4:cpu,cpuacct:/a\n5:memory:/a\n", v1CPU+v1Memory, "-1\n", "max\n")
	f.Add("0::/../..\n", `1 2 3 /\040 /sys/fs/cgroup/../x - cgroup2 c rw`, "", "")
	f.Fuzz(func(t *testing.T, groups, mounts, cpu, bytes string) {
		files := map[string]string{}
		for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/a", "/sys/fs/cgroup/cpu,cpuacct/a", "/sys/fs/cgroup/memory/a"} {
			files[dir+"/cpu.max"], files[dir+"/cpu.cfs_quota_us"], files[dir+"/cpu.cfs_period_us"] = cpu, cpu, "100000\n"
			files[dir+"/memory.max"], files[dir+"/memory.limit_in_bytes"] = bytes, bytes
		}
		root := fileSystem(groups, mounts, files)
		if got := cpus(root, 64); got < 1 || got > 64 {
			t.Errorf("got %d processors, want 1 to 64", got)
		}
		if got := memory(root, 1<<40); got < 1 || got > 1<<40 {
			t.Errorf("got %d bytes, want 1 to %d", got, 1<<40)
		}
	})
}

// kept is what was allocated last.
var kept []byte

// Garbage of a few images is left alone, and GOGC is obeyed.
func TestRelaxGo(t *testing.T) {
	if Memory() < 4<<30 {
		t.Skip("the limit of memory leaves no room")
	}
	collections := func(gogc string, args ...string) (n int) {
		cmd := testmain.Child("garbage", args...)
		cmd.Env = append(cmd.Env, "GOGC="+gogc)
		out, err := cmd.CombinedOutput()
		if err == nil {
			_, err = fmt.Sscan(string(out), &n)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return n
	}
	for _, c := range []struct {
		gogc string
		args []string
		some bool
	}{{"", nil, true}, {"", []string{"relaxed"}, false}, {"100", []string{"relaxed"}, true}} {
		if got := collections(c.gogc, c.args...); got > 1 != c.some { // making room may be one
			t.Errorf("GOGC=%q, %v: got %d collections, want more than one: %v", c.gogc, c.args, got, c.some)
		}
	}
}
