package testmain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var shared string // what prepare has made

func TestMain(m *testing.M) {
	Be(map[string]func(args []string) error{
		"echo":    func(args []string) error { _, err := fmt.Println(strings.Join(args, " "), os.Getenv(Key)); return err },
		"broken":  func([]string) error { return errors.New("it is broken") },
		"lasting": func([]string) error { time.Sleep(time.Hour); return nil },
	})
	code := Run(m, func(dir string) error {
		shared = filepath.Join(dir, "shared")
		return os.WriteFile(shared, nil, 0o600)
	})
	if _, err := os.Stat(shared); !os.IsNotExist(err) {
		fmt.Fprintf(os.Stderr, "after the tests: got %v for %s, want it gone\n", err, shared)
		code = 1
	}
	os.Exit(code)
}

func TestRun(t *testing.T) {
	if _, err := os.Stat(shared); err != nil {
		t.Errorf("got %v, want what prepare has made", err)
	}
	if code := Run(nil, func(string) error { return errors.New("not to be made") }); code != 1 {
		t.Errorf("nothing prepared: got code %d, want 1", code)
	}
}

func TestKill(t *testing.T) {
	for _, c := range []struct {
		name string
		fine bool
	}{{"echo", true}, {"broken", false}, {"lasting", true}} {
		cmd := Child(c.name)
		err := cmd.Start()
		if err == nil && c.name != "lasting" {
			err = unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) // Kill is to wait too
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := Kill(cmd); (err == nil) != c.fine {
			t.Errorf("%s: got %v, want an error: %v", c.name, err, !c.fine)
		}
	}
}

func TestChild(t *testing.T) {
	for _, c := range []struct {
		name, want string
		code       int
	}{{"echo", "a b \n", 0}, {"broken", "it is broken\n", 1}, {"other", "testmain: this test program cannot be \"other\"\n", 1}} {
		cmd := Child(c.name, "a", "b")
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.code || string(out) != c.want {
			t.Errorf("%s: got code %d, %q, %v, want %d, %q", c.name, got, out, err, c.code, c.want)
		}
	}
}
