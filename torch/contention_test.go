package torch_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

const asCrowded = "crowded"

// crowdedPasses are many more than it takes to notice a queue.
const crowdedPasses = 400

// computeCrowded computes until it is noticed that threads queue for processors, or all passes are done, and prints which
// it was.
func computeCrowded([]string) error {
	runtime.LockOSThread() // what has been seen so far is the thread's
	if err := torch.SetThreads(4); err != nil {
		return err
	}
	var f torch.Features
	for k := range f {
		x, err := torch.FromSlice(make([]float32, 1<<20), 1, 64, 128, 128)
		if err != nil {
			return err
		}
		defer x.Close()
		f[k] = x
	}
	yes := false
	if crowd() {
		return errors.New("threads are gathered before anything is computed")
	}
	for pass := 0; pass < crowdedPasses && !yes; pass++ {
		loss, err := torch.LossRecon(f, f)
		if err != nil {
			return err
		}
		loss.Close()
		if yes, err = torch.Contended(); err != nil {
			return err
		}
	}
	came, went := until(yes, crowd), until(yes, func() bool { return !crowd() }) // in its own time, and when nothing is computed any more
	_, err := fmt.Println(yes, came, went)
	return err
}

// until waits for what is to come, if it is to come at all, and says whether it has.
func until(expected bool, come func() bool) bool {
	for deadline := time.Now().Add(time.Minute); expected && !come(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return expected
}

// crowd says whether this process has the sleeping threads.
func crowd() bool {
	names, _ := filepath.Glob("/proc/self/task/*/comm")
	return slices.ContainsFunc(names, func(name string) bool {
		text, _ := os.ReadFile(name)
		return string(text) == "rdpp-crowd\n"
	})
}

// TestContention binds four threads to one processor, where they queue for it whatever else the machine does.
func TestContention(t *testing.T) {
	if _, err := os.Stat("/proc/thread-self/schedstat"); err != nil {
		t.Skip("this kernel does not tell how long threads queue for processors: ", err)
	}
	for _, c := range []struct{ policy, want string }{
		{"RDPP_NOTHING=", "true true true\n"},
		{"OMP_WAIT_POLICY=passive", "false false false\n"},
		{"GOMP_SPINCOUNT=1000", "false false false\n"},
	} {
		cmd := testmain.Child(asCrowded)
		cmd.Args = []string{"sh", "-c", `taskset -p -c $(taskset -p -c $$ | sed 's/.*: //; s/[,-].*//') $$ >/dev/null && exec "$0"`, cmd.Path}
		var err error
		if cmd.Path, err = exec.LookPath("sh"); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(slices.DeleteFunc(cmd.Env, func(v string) bool {
			return strings.HasPrefix(v, "OMP_WAIT_POLICY=") || strings.HasPrefix(v, "GOMP_SPINCOUNT=")
		}), c.policy)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.policy, out, err, c.want)
		}
	}
}
