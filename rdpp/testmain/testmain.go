// Package testmain is what test programs have in common: the flag -slow, a folder that outlives single tests, image files
// that are odd, and being another program in a process of its own, to be killed or kept short of something.
package testmain

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Slow is the flag -slow: the tests that take minutes and gigabytes run too.
var Slow = flag.Bool("slow", false, "run the tests that take minutes and gigabytes")

// Run runs a package's tests once prepare has made what they share in dir, a folder that is removed at the end. Nil makes
// nothing. It returns the exit code for TestMain.
func Run(m *testing.M, prepare func(dir string) error) (code int) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "rdpp-test-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if prepare != nil {
		if err := prepare(dir); err != nil {
			return fail(err)
		}
	}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// Key is the environment variable that has the name of the program to be instead of running tests.
const Key = "RDPP_TEST_CHILD"

// Be ends the process as one of programs, by their names, where it was started as such. TestMain calls it first. args are
// the command line's; the exit code is 1 for an error, which is printed.
func Be(programs map[string]func(args []string) error) {
	name := os.Getenv(Key)
	if name == "" {
		return
	}
	program, found := programs[name]
	if !found {
		os.Exit(fail(fmt.Errorf("testmain: this test program cannot be %q", name)))
	}
	os.Unsetenv(Key) // which is not for what the program starts
	if err := program(os.Args[1:]); err != nil {
		os.Exit(fail(err))
	}
	os.Exit(0)
}

// Kill kills a child, which may have come to its end before. That it ended by itself otherwise, in an error, is returned.
func Kill(cmd *exec.Cmd) error {
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("testmain: %w", err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == -1 { // by a signal
		return nil
	}
	if err != nil {
		return fmt.Errorf("testmain: before it was killed, the child ended: %w", err)
	}
	return nil
}

// Child prepares the test program as one of those that it can be.
func Child(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), Key+"="+name)
	return cmd
}
