// Package atomicfile puts files into their place whole or not at all, says ahead whether there is room for them, and lets one
// process at a time write to a folder.
package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Write puts what write writes at path, so that at any moment, even after a power cut, either the old or the whole new
// content is there: it writes a file without a name in the same folder, syncs it, puts it in the place of path and syncs the
// folder. On an error nothing but what was at path stays, except that a failing sync of the folder, the last step, leaves
// the new content. Where the file system knows no files without a name, a killed process leaves a hidden one, which the next
// process that writes into the folder removes. An existing file's permissions are kept; a symbolic link at path is replaced, not
// followed. Several goroutines and processes may write, even to the same path: the last wins.
func Write(path string, write func(io.Writer) error) error {
	return WriteFile(path, func(file *os.File) error {
		buffer := bufio.NewWriterSize(file, 1<<16)
		if err := write(buffer); err != nil {
			return err
		}
		return buffer.Flush()
	})
}

// WriteFile is Write for what needs the file itself.
func WriteFile(path string, write func(*os.File) error) error {
	return writeBy(path, write, os.Rename)
}

// WriteNew is WriteFile where nothing is to be replaced: what is at path by the end stays, and the error is fs.ErrExist.
func WriteNew(path string, write func(*os.File) error) error {
	return writeBy(path, write, Rename)
}

func writeBy(path string, write func(*os.File) error, rename func(from, to string) error) error {
	if err := place(path, write, rename); err != nil {
		return fmt.Errorf("atomicfile: writing %s: %w", path, err)
	}
	return nil
}

// Rename moves a file within a file system, and replaces nothing: what is in its way is fs.ErrExist. Errors are those of os.Rename.
func Rename(from, to string) error {
	err := ignoringInterrupts(func() error { return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE) })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // shares do not know of that
		return renameByLink(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// renameByLink is Rename where the system has none. A second name for a file replaces nothing either, whichever machine is quicker;
// folders, and files on some shares, cannot have one.
func renameByLink(from, to string) error {
	switch err := os.Link(from, to); {
	case err == nil:
		return os.Remove(from)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: unix.EEXIST}
	}
	return os.Rename(from, to)
}

func place(path string, write func(*os.File) error, rename func(from, to string) error) (err error) {
	folder := filepath.Dir(path)
	file, name, err := newTemporary(folder, temporaryPrefix(path))
	if err != nil {
		return err
	}
	defer file.Close() // it has been synced where that matters
	placed := false
	defer func() {
		if !placed && name != "" {
			os.Remove(name)
		}
	}()
	if err := write(file); err != nil {
		return err
	}
	if old, err := os.Lstat(path); err == nil && old.Mode().IsRegular() {
		if err := file.Chmod(old.Mode().Perm()); err != nil {
			return err
		}
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if name == "" {
		if name, err = giveName(file, folder, temporaryPrefix(path)); err != nil {
			return err
		}
	}
	if err := rename(name, path); err != nil {
		return err
	}
	placed = true
	return SyncFolder(folder)
}

// Room says whether files of the given sizes, bytes, have room in a folder beside each other, and that it can be written to.
// It leaves nothing there.
func Room(folder string, sizes ...int64) error {
	var there unix.Statfs_t
	if err := unix.Statfs(folder, &there); err != nil {
		return fmt.Errorf("atomicfile: %s: %w", folder, err)
	}
	total := int64(0)
	for _, size := range sizes {
		total += size
	}
	if free := there.Bavail * uint64(there.Bsize); uint64(total) > free {
		return fmt.Errorf("atomicfile: %s has room for %d MiB, %d MiB are needed: %w", folder, free>>20, total>>20, unix.ENOSPC)
	}
	// The disk is not all: there are quotas and limits.
	for _, size := range sizes {
		file, name, err := newTemporary(folder, temporaryPrefix(""))
		if err != nil {
			return fmt.Errorf("atomicfile: %w", err)
		}
		defer file.Close()
		if name != "" {
			defer os.Remove(name)
		}
		err = ignoringInterrupts(func() error { return unix.Fallocate(int(file.Fd()), 0, 0, max(size, 1)) })
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("atomicfile: %s has no room for a file of %d MiB: %w", folder, size>>20, err)
		}
	}
	return nil
}

func ignoringInterrupts(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// SyncFolder sees to it that the names which a folder has, of files that came or went, outlast a power cut. Folders of network file
// systems that cannot be synced are no error.
func SyncFolder(folder string) error {
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	// They say so by EINVAL.
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// ErrLocked says that another process holds the lock of a folder.
var ErrLocked = errors.New("another process is writing there")

// Lock makes a folder, where it is missing, and locks it: no other process can until the file that it returns is closed, or
// this process ends. A folder that another process has locked is ErrLocked. Some network file systems have no locks: then
// unlocked says why, and the folder may be used all the same.
func Lock(folder string) (lock *os.File, unlocked, err error) {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return nil, nil, fmt.Errorf("atomicfile: %w", err)
	}
	if lock, err = os.Open(folder); err != nil {
		return nil, nil, fmt.Errorf("atomicfile: %w", err)
	}
	err = ignoringInterrupts(func() error { return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		lock.Close()
		return nil, nil, fmt.Errorf("atomicfile: %s: %w", folder, ErrLocked)
	}
	return lock, err, nil
}
