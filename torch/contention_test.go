package torch_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
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
	if yes {
		time.Sleep(10 * time.Millisecond) // the crowd comes in its own time, also to a process that ends
	}
	_, err := fmt.Println(yes)
	return err
}

// TestContention binds four threads to one processor, where they queue for it whatever else the machine does.
func TestContention(t *testing.T) {
	if _, err := os.Stat("/proc/thread-self/schedstat"); err != nil {
		t.Skip("this kernel does not tell how long threads queue for processors: ", err)
	}
	for _, c := range []struct{ policy, want string }{
		{"RDPP_NOTHING=", "true\n"},
		{"OMP_WAIT_POLICY=passive", "false\n"},
		{"GOMP_SPINCOUNT=1000", "false\n"},
	} {
		cmd := testmain.Child(asCrowded)
		cmd.Args = []string{"sh", "-c", `taskset -p -c $(taskset -p -c $$ | sed 's/.*: //; s/[,-].*//') $$ >/dev/null && exec "$0"`, cmd.Path}
		var err error
		if cmd.Path, err = exec.LookPath("sh"); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, c.policy)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.policy, out, err, c.want)
		}
	}
}
