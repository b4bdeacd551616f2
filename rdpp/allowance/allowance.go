// Package allowance tells how much of the machine this process may use: processors by its affinity and by the quotas of its
// control groups (cgroups), which is how containers and services are limited, and memory by their limits.
package allowance

import (
	"io/fs"
	"math"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// root is the file system that has /proc and the control groups.
func root() fs.FS { return os.DirFS("/") }

// CPUs is how many processors this process may keep busy, 1 or more: those that it may run on, or the smallest quota of its
// control groups where that is less, rounded up. A quota of 1.5 gives 2, as two threads use all of it and one does not.
func CPUs() int { return cpus(root(), runtime.NumCPU()) }

func cpus(root fs.FS, most int) int {
	return int(max(1, min(int64(most), read(root).cpus)))
}

// Memory is how many bytes of memory this process may have: the machine's, or the smallest limit of its control groups.
// Where neither can be told it is more than any machine has.
func Memory() int64 {
	total := int64(math.MaxInt64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		total = int64(info.Totalram) * int64(info.Unit)
	}
	return memory(root(), total)
}

func memory(root fs.FS, total int64) int64 { return min(total, read(root).memory) }

// MemoryDefault is a default for what one part of the program may take: most bytes, or a quarter of Memory where that is
// less.
func MemoryDefault(most int64) int64 { return min(most, Memory()/4) }

// LimitGo makes Go's runtime run no more goroutines at a time than CPUs allows, or 2: with one alone the collector would be
// in the way of everything else. The runtime itself follows the affinity and the innermost control group, and goes on doing
// so unless an outer group allows less. What the environment says in GOMAXPROCS stays.
func LimitGo() {
	if most := max(2, CPUs()); os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > most {
		runtime.GOMAXPROCS(most)
	}
}

// room counts as in use for Go's collector. Nothing is ever written to it, so it takes addresses and no memory.
var room []byte

// RelaxGo lets Go's collector wait until there is more garbage than it would wait for: 16 MiB more, or a hundredth of Memory
// where that is less. A detector leaves 5 MiB behind with an image and holds little more, so that it would be collected after
// every other one, by threads that take the processors from the networks. What the environment says in GOGC stays.
func RelaxGo() {
	if os.Getenv("GOGC") == "" && room == nil {
		room = make([]byte, min(16<<20, Memory()/100))
	}
}
