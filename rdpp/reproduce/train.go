package reproduce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"rdpp/rdpp/atomicfile"
)

// lockPatience is how long to wait for the trainings of a killed reproduction, which write a checkpoint first.
const lockPatience = 2 * time.Minute

// Train trains what is to do, on all devices side by side, and writes the results after every training. What fails is
// recorded, and the others go on. When ctx ends, the trainings are told to, which they do after a checkpoint.
func (r *Run) Train(ctx context.Context) error {
	err := r.begin(ctx)
	defer r.lock.Close() // which may be nil
	if err != nil {
		return err
	}
	all, done, todo, others := len(r.plan.Trainings), r.done(), len(r.todo), len(r.others)
	text, fields := fmt.Sprintf("%d trainings, %d done before, %d to do, %d without data", all, done, todo, all-done-todo-others),
		map[string]any{"of": all, "done": done, "todo": todo}
	if others > 0 {
		text += fmt.Sprintf(", %d of other shares", others)
		fields["others"] = others
	}
	r.tell("begin", text, fields)
	r.writeResults()
	if r.opt.Hand != nil {
		return r.handOut(ctx)
	}
	queue := make(chan Training, len(r.todo))
	for _, t := range r.todo {
		queue <- t
	}
	close(queue)
	var devices sync.WaitGroup
	for _, device := range r.opt.Devices {
		devices.Go(func() {
			// A training is told to stop when the thread ends that started it, so that one must stay.
			runtime.LockOSThread()
			for t := range queue {
				if ctx.Err() != nil {
					return
				}
				r.train(ctx, t, device)
			}
		})
	}
	devices.Wait()
	return r.end(ctx)
}

// handOut has the trainings done elsewhere.
func (r *Run) handOut(ctx context.Context) error {
	number := func(t Training) int { return slices.Index(r.plan.Trainings, t) + 1 }
	about := func(t Training, more map[string]any) map[string]any {
		more["training"], more["number"], more["of"] = t, number(t), len(r.plan.Trainings)
		return more
	}
	found := make([]bool, len(r.todo))
	err := r.opt.Hand(ctx, &Handed{Of: len(r.todo), There: filepath.Join(r.opt.Out, settingsFile),
		Args: func(i int) []string { return r.argsAnywhere(r.todo[i]) },
		Data: func(i int) string { return filepath.Join(r.source(r.todo[i])) },
		Done: func(i int) bool {
			t := r.todo[i]
			if found[i] {
				return true
			}
			if !exists(filepath.Join(r.folder(t), metricsFile)) {
				return false
			}
			result, err := r.result(t)
			if err != nil { // of older ones, which will be made again
				return false
			}
			found[i] = true
			r.outcomes[t], r.tried[t] = Outcome{Result: result}, true
			os.Remove(filepath.Join(r.folder(t), failureFile))
			r.tell("done", fmt.Sprintf("%d/%d %s: done, %s", number(t), len(r.plan.Trainings), t, result), about(t, map[string]any{"result": result}))
			r.writeResults()
			return true
		},
		Failed: func(i int, reason string) {
			t := r.todo[i]
			r.failed++
			r.outcomes[t], r.tried[t] = Outcome{Missing: failedText(reason)}, true
			failure := filepath.Join(r.folder(t), failureFile)
			err := os.MkdirAll(filepath.Dir(failure), 0o777)
			if err == nil {
				err = writeJSON(failure, map[string]string{"reason": reason})
			}
			if err != nil {
				r.opt.Complain(err)
			}
			r.tell("failed", fmt.Sprintf("%d/%d %s: failed: %s", number(t), len(r.plan.Trainings), t, reason), about(t, map[string]any{"reason": reason}))
			r.writeResults()
		}})
	waits := slices.ContainsFunc(r.todo, func(t Training) bool { return !r.tried[t] })
	if err != nil && ctx.Err() == nil && waits { // it is of the queue, and of no training
		return err
	}
	return r.end(ctx)
}

// begin makes the folder and keeps others out of it.
func (r *Run) begin(ctx context.Context) error {
	if err := r.lockPatiently(ctx); err != nil {
		return err
	}
	// Another reproduction may have worked here until now.
	if err := r.look(); err != nil {
		return err
	}
	for _, name := range []string{settingsFile, ResultsMarkdown, ResultsCSV, ResultsHTML, ResultsJSON} {
		if err := atomicfile.RemoveTemporary(filepath.Join(r.opt.Out, name)); err != nil {
			return elsewhere(err)
		}
	}
	if err := writeJSON(filepath.Join(r.opt.Out, settingsFile), r.plan.settings()); err != nil {
		return elsewhere(err)
	}
	return nil
}

// lockFolder is the folder that is locked: that of the results, or one for each share below it.
func (r *Run) lockFolder() string {
	if s := r.opt.Share; s.N > 1 {
		return filepath.Join(r.opt.Out, "shares", fmt.Sprintf("%d-of-%d", s.I, s.N))
	}
	return r.opt.Out
}

// lockPatiently makes the folder and locks it. Its trainings hold the lock too, so that a reproduction that was killed does not
// let the next one in before they have written their checkpoints.
func (r *Run) lockPatiently(ctx context.Context) error {
	began, said := time.Now(), false
	for {
		lock, unlocked, err := atomicfile.Lock(r.lockFolder())
		r.lock = lock
		switch {
		case unlocked != nil: // some network file systems
			r.opt.Complain(fmt.Errorf("%s cannot be locked (%w): take care that nothing else writes there", r.opt.Out, unlocked))
			return nil
		case err == nil:
			return nil
		case !errors.Is(err, atomicfile.ErrLocked):
			return elsewhere(fmt.Errorf("cannot write to the output folder: %w", err))
		case time.Since(began) > lockPatience:
			return elsewhere(fmt.Errorf("another reproduction, or a training of one that was killed, is writing to %s; wait for it", r.opt.Out))
		}
		if !said {
			said = true
			r.opt.Complain(fmt.Errorf("%s is in use, waiting for up to %v", r.opt.Out, lockPatience))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting for %s", ErrInterrupted, r.opt.Out)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func writeJSON(path string, value any) error {
	return atomicfile.Write(path, func(w io.Writer) error { return json.NewEncoder(w).Encode(value) })
}

// train carries out a training and notes what became of it.
func (r *Run) train(ctx context.Context, t Training, device string) {
	r.mutex.Lock()
	number := slices.Index(r.plan.Trainings, t) + 1
	r.running[t] = time.Now()
	where := fmt.Sprintf("%d/%d %s: %s", number, len(r.plan.Trainings), device, t)
	about := func(more map[string]any) map[string]any {
		more["training"], more["number"], more["of"], more["device"] = t, number, len(r.plan.Trainings), device
		return more
	}
	r.tell("start", where, about(map[string]any{}))
	r.mutex.Unlock()

	result, err := r.call(ctx, t, device)

	r.mutex.Lock()
	defer r.mutex.Unlock()
	seconds := time.Since(r.running[t])
	delete(r.running, t)
	r.tried[t] = true
	failure := filepath.Join(r.folder(t), failureFile)
	switch {
	case err == nil:
		r.outcomes[t] = Outcome{Result: result}
		r.took[t] = seconds
		// Neither plays a part beside metrics, and a checkpoint takes much room.
		os.Remove(failure)
		os.Remove(filepath.Join(r.folder(t), checkpointFile))
		r.tell("done", fmt.Sprintf("%s: done in %v, %s", where, seconds.Round(time.Second), result),
			about(map[string]any{"seconds": seconds.Seconds(), "result": result}))
	case ctx.Err() != nil:
		r.outcomes[t] = Outcome{Missing: "interrupted; the same command resumes it"}
		return
	default:
		r.failed++
		r.outcomes[t] = Outcome{Missing: failedText(err.Error())}
		if err := writeJSON(failure, map[string]string{"reason": err.Error()}); err != nil {
			r.opt.Complain(err)
		}
		r.tell("failed", fmt.Sprintf("%s: failed: %v", where, err), about(map[string]any{"reason": err.Error()}))
	}
	r.writeResults()
}

// call runs the program that trains, which writes to a log, and reads what it has measured.
func (r *Run) call(ctx context.Context, t Training, device string) (*Result, error) {
	if err := os.MkdirAll(r.folder(t), 0o777); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(r.folder(t), logFile), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, r.opt.Program, r.args(t, device)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{r.lock}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// A terminal's Ctrl-C is for this process alone, as a second signal would end a training without a checkpoint.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, lastLine(log, before))
	}
	return r.result(t)
}

// lastLine is the last line of what a training has written to its log, where it says why it failed.
func lastLine(log *os.File, from int64) string {
	const most = 4 << 10
	text, err := io.ReadAll(io.NewSectionReader(log, from, 1<<40))
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text[max(0, len(text)-most):])
	line := string(bytes.ToValidUTF8(text[bytes.LastIndexByte(text, '\n')+1:], []byte("\uFFFD")))
	if line == "" {
		return "it said nothing"
	}
	return strings.TrimPrefix(line, "train: ")
}

// end says how it went, as an error where it did not all go well.
func (r *Run) end(ctx context.Context) error {
	page := filepath.Join(r.opt.Out, ResultsHTML)
	left := 0 // without results, of those that were to do
	for _, t := range r.todo {
		if r.outcomes[t].Result == nil {
			left++
		}
	}
	r.writeResults()
	r.tell("end", fmt.Sprintf("%d of %d trainings done, %d failed; see %s", r.done(), len(r.plan.Trainings), r.failed, page),
		map[string]any{"done": r.done(), "failed": r.failed, "results": page})
	switch {
	case ctx.Err() != nil && left > r.failed:
		return fmt.Errorf("%w after %d of %d trainings; the same command resumes", ErrInterrupted, r.done(), len(r.plan.Trainings))
	case r.failed > 0:
		return fmt.Errorf("reproduce: %d of %d trainings failed; %s says why, and the same command tries them again", r.failed,
			len(r.plan.Trainings), page)
	}
	return r.writing
}

// writeResults writes the comparison as it stands. A full disk may have room again, so training goes on. As each share looks once
// more for what others have finished meanwhile, the last one to write has all.
func (r *Run) writeResults() {
	r.lookForOthers()
	for more := true; more; more = r.lookForOthers() {
		r.writeOnce()
	}
}

// lookForOthers finds what other shares have finished, and says whether there is something new.
func (r *Run) lookForOthers() (news bool) {
	r.others = slices.DeleteFunc(r.others, func(t Training) bool {
		if !exists(filepath.Join(r.folder(t), metricsFile)) {
			return false
		}
		result, err := r.result(t)
		if err == nil {
			r.outcomes[t], news = Outcome{Result: result}, true
		}
		return err == nil
	})
	return news
}

func (r *Run) writeOnce() {
	c := r.plan.Compare(r.outcomes)
	r.writing = errors.Join(
		atomicfile.Write(filepath.Join(r.opt.Out, ResultsMarkdown), c.WriteMarkdown),
		atomicfile.Write(filepath.Join(r.opt.Out, ResultsCSV), c.WriteCSV),
		atomicfile.Write(filepath.Join(r.opt.Out, ResultsJSON), c.WriteJSON),
		atomicfile.Write(filepath.Join(r.opt.Out, ResultsHTML), c.WriteHTML))
}

func (r *Run) tell(name, text string, fields map[string]any) {
	r.opt.OnEvent(Event{Name: name, Text: text, Fields: fields, Spent: time.Since(r.started), Left: r.left()})
}

// left estimates the time to the end, from the trainings of the same category where there are any, else from all;
// negative while none is finished.
func (r *Run) left() time.Duration {
	type key struct{ dataset, category string }
	sums, counts := map[key]time.Duration{}, map[key]time.Duration{}
	var sum, count time.Duration
	for t, o := range r.outcomes {
		if o.Result == nil {
			continue
		}
		d := max(r.took[t], time.Duration(o.Result.Seconds*float64(time.Second)))
		k := key{t.Dataset, t.Category}
		sums[k], counts[k] = sums[k]+d, counts[k]+1
		sum, count = sum+d, count+1
	}
	if count == 0 {
		return -1
	}
	var left time.Duration
	for _, t := range r.todo {
		began, runs := r.running[t]
		if r.tried[t] {
			continue
		}
		k := key{t.Dataset, t.Category}
		d := sum / count
		if counts[k] > 0 {
			d = sums[k] / counts[k]
		}
		if runs {
			d = max(0, d-time.Since(began))
		}
		left += d
	}
	return left / time.Duration(len(r.opt.Devices))
}
