package server

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// asideNice is how much nicer than others the threads of large work are: beside a thread of the networks one gets a tenth of
// a processor, and all of it when those have nothing to do.
const asideNice = 10

// aside does work that takes n bytes. Large work has a thread of its own, of lower priority: the networks take every picture
// through hundreds of steps, at the end of each of which their threads wait for the slowest of them, which would be the one
// that shares its processor with a decoder.
func (s *Server) aside(n int64, work func() error) (err error) {
	if n <= s.memory.limit/smallPicture {
		return work()
	}
	nicer(func() {
		defer recovered(s.opt.Logger, &err)
		err = work()
	})
	return err
}

// nicer lets work be done by a thread of lower priority, where the system allows that, and waits for it.
func nicer(work func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		thread := unix.Gettid()
		if thread == unix.Getpid() { // the first thread does not end before the process
			nicer(work)
			runtime.UnlockOSThread()
			return
		}
		// Without being unlocked the thread ends with the goroutine: its priority cannot be raised again.
		if raised, err := unix.Getpriority(unix.PRIO_PROCESS, thread); err == nil {
			nice := 20 - raised // as the system call answers
			_ = unix.Setpriority(unix.PRIO_PROCESS, thread, min(nice+asideNice, 19))
		}
		work()
	}()
	<-done
}
