package watch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/history"
)

// folder is where files of a verdict go; "": they stay.
func (w *watch) folder(v history.Verdict) string {
	return map[history.Verdict]string{history.Good: w.MoveGood, history.Anomalous: w.MoveBad, history.Broken: w.MoveBroken}[v]
}

// destination is where a file of a verdict goes; "": it stays. A link does, which may lead nowhere from another folder.
func (w *watch) destination(path string, v history.Verdict) (string, error) {
	dir := w.folder(v)
	if dir == "" {
		return "", nil
	}
	if info, err := os.Lstat(filepath.Join(w.root, path)); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return "", nil
	}
	return vacant(filepath.Join(dir, path))
}

// vacant is a path at which there is nothing: the one that is given or, where that is taken, one with a number, NAME_2 and so on.
// As long as none of the numbers is left out it is the next one.
func vacant(path string) (string, error) {
	free := func(n int) (bool, error) {
		_, err := os.Lstat(numbered(path, n))
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		return false, err
	}
	taken, end := 0, 1
	for {
		if there, err := free(end); err != nil {
			return "", err
		} else if there {
			break
		}
		taken, end = end, 2*end
	}
	for end-taken > 1 {
		middle := (taken + end) / 2
		there, err := free(middle)
		switch {
		case err != nil:
			return "", err
		case there:
			end = middle
		default:
			taken = middle
		}
	}
	return numbered(path, end), nil
}

// longestName is how many bytes a file's name may have on Linux.
const longestName = 255

// numbered is a path with a number from 2 on, for which a long name is cut.
func numbered(path string, n int) string {
	if n == 1 {
		return path
	}
	dir, name := filepath.Split(path)
	extension := filepath.Ext(name)
	end := fmt.Sprintf("_%d%s", n, extension)
	name = strings.TrimSuffix(name, extension)
	cut := min(len(name), max(longestName-len(end), 0))
	for cut > 0 && cut < len(name) && !utf8.RuneStart(name[cut]) {
		cut--
	}
	return dir + name[:cut] + end
}

// is says whether a file, not a link to it, is as it arrived.
func is(info fs.FileInfo, a *history.Arrival) bool {
	return info.Mode().IsRegular() && info.Size() == a.Size && info.ModTime().Equal(a.Time)
}

// move moves an arrival's file to where its record says. It may have been moved before. What is in its place now, if anything, is
// another image, and stays.
func (w *watch) move(ctx context.Context, a history.Arrival, r *history.Record) (gone bool, err error) {
	from := filepath.Join(w.root, a.Path)
	if err := os.MkdirAll(filepath.Dir(r.Moved), 0o777); err != nil {
		return false, err
	}
	for {
		info, err := os.Lstat(from)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !is(info, &a) {
			return true, w.settle(ctx, a, r)
		}
		if err != nil {
			return false, err
		}
		carried := false
		err = atomicfile.Rename(from, r.Moved)
		if errors.Is(err, unix.EXDEV) {
			carried, err = true, carry(from, r.Moved, &a)
		}
		if errors.Is(err, fs.ErrExist) {
			if r.Moved, err = vacant(r.Moved); err == nil {
				err = w.journal.Move(ctx, r.ID, r.Moved)
			}
			if err != nil {
				return false, err
			}
			continue
		}
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errChanged):
			continue
		case err != nil:
			return false, err
		case !carried:
			err = w.putBack(r.Moved, from, &a)
		}
		return true, errors.Join(err, syncFolders(r.Moved, from))
	}
}

// redirect has the image of a record, which a watch before was to move and has not, go where images of its verdict go now: the folder
// that was named then may be full or gone. A copy of it that is there already is to be the one.
func (w *watch) redirect(ctx context.Context, a history.Arrival, r *history.Record) error {
	dir := w.folder(r.Verdict)
	if r.Moved == "" || dir != "" && filepath.Dir(r.Moved) == filepath.Dir(filepath.Join(dir, a.Path)) {
		return nil
	}
	if info, err := os.Lstat(filepath.Join(w.root, a.Path)); err != nil || !is(info, &a) { // it has gone, perhaps to where it was to go
		return nil
	}
	if sum, err := digest(r.Moved); err == nil && (sum == a.SHA256 || a.SHA256 == "") {
		return nil
	}
	to, err := w.destination(a.Path, r.Verdict)
	if err != nil {
		return err
	}
	r.Moved = to
	return w.journal.Move(ctx, r.ID, to)
}

// discard removes an arrival's file, unless another one is in its place. It may have been removed before. Its end outlasts a power cut
// before the journal forgets it.
func (w *watch) discard(a history.Arrival) error {
	path := filepath.Join(w.root, a.Path)
	info, err := os.Lstat(path)
	if err == nil && is(info, &a) {
		err = os.Remove(path)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = syncFolder(path)
	}
	return err
}

// syncFolders sees to it that a file which was moved is where it went, and there alone, also after a power cut, before the journal
// says so.
func syncFolders(to, from string) error {
	if err := atomicfile.SyncFolder(filepath.Dir(to)); err != nil {
		return err
	}
	return syncFolder(from)
}

// syncFolder sees to it that a file which has gone from its folder does not come back.
func syncFolder(from string) error {
	err := atomicfile.SyncFolder(filepath.Dir(from))
	if errors.Is(err, fs.ErrNotExist) { // somebody removed it, since it was empty
		return nil
	}
	return err
}

// settle sees to it that the record of an image that is no longer there does not say that it was moved, unless it was.
func (w *watch) settle(ctx context.Context, a history.Arrival, r *history.Record) error {
	if sum, err := digest(r.Moved); err == nil && (sum == a.SHA256 || a.SHA256 == "") {
		return syncFolders(r.Moved, filepath.Join(w.root, a.Path))
	}
	w.Complain(fmt.Errorf("%s: it was gone or replaced before it could be moved; its verdict is recorded", filepath.Join(w.Dir, a.Path)))
	r.Moved = ""
	return w.journal.Move(ctx, r.ID, "")
}

// putBack gives a file its place back that is not the one that was judged: another one came between the last look and the move.
func (w *watch) putBack(at, from string, a *history.Arrival) error {
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist): // whoever waits for images there has it
		return nil
	case err != nil || is(info, a):
		return err
	}
	err = atomicfile.Rename(at, from)
	for errors.Is(err, fs.ErrExist) {
		if from, err = vacant(from); err == nil {
			err = atomicfile.Rename(at, from)
		}
	}
	return err
}

// carry moves a file to another file system, with its mode and time, and nothing that is in its way: that is fs.ErrExist. A copy
// that is there is taken for one that a process which died has left, if its content is the same.
func carry(from, to string, a *history.Arrival) error {
	if sum, err := digest(to); err == nil {
		content := a.SHA256
		if content == "" { // it was refused unread
			if content, err = digest(from); err != nil {
				return err
			}
		}
		if sum != content {
			return &os.LinkError{Op: "copy", Old: from, New: to, Err: unix.EEXIST}
		}
		return os.Remove(from)
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	err = atomicfile.WriteNew(to, func(f *os.File) error {
		info, err := source.Stat()
		if err == nil {
			err = f.Chmod(info.Mode().Perm())
		}
		if err == nil {
			_, err = io.Copy(f, source)
		}
		if err != nil {
			return err
		}
		// Another image may have taken its place, which is not to go.
		if now, err := os.Lstat(from); err != nil || !is(now, a) {
			return errChanged
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.Chtimes(to, a.Time, a.Time); err != nil {
		return err
	}
	return os.Remove(from)
}

// digest is the SHA-256 of a file.
func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
