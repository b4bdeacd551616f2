package weights

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"rdpp/rdpp/regular"
)

// WriteFile writes a safetensors file as [Write] does, with a digest in its metadata that [File.Verify] checks, and puts it at path
// as [WriteFileAtomic] does.
func WriteFile(path string, metadata map[string]string, tensors []Source) error {
	return writeAtomic(path, func(file *os.File) error { return writeDigested(file, metadata, tensors) })
}

// WriteFileAtomic puts what write writes at path, so that at any moment, even after a power cut, either the old or the whole new
// content is there: it writes a file without a name in the same folder, syncs it, puts it in the place of path and syncs the
// folder. On an error nothing but what was at path stays, except that a failing sync of the folder, the last step, leaves
// the new content. Where the file system knows no files without a name, a killed process leaves a hidden one, which the next
// process that writes into the folder removes. An existing file's permissions are kept; a symbolic link at path is replaced, not
// followed. Several goroutines and processes may write, even to the same path: the last wins.
func WriteFileAtomic(path string, write func(io.Writer) error) error {
	return writeAtomic(path, func(file *os.File) error {
		buffer := bufio.NewWriterSize(file, 1<<16)
		if err := write(buffer); err != nil {
			return err
		}
		return buffer.Flush()
	})
}

// writeAtomic is WriteFileAtomic for what needs the file itself.
func writeAtomic(path string, write func(*os.File) error) error {
	if err := place(path, write); err != nil {
		return fmt.Errorf("weights: writing %s: %w", path, err)
	}
	return nil
}

func place(path string, write func(*os.File) error) (err error) {
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
	if err := os.Rename(name, path); err != nil {
		return err
	}
	placed = true
	return syncFolder(folder)
}

// Room says whether files of the given sizes, bytes, have room in a folder beside each other, and that it can be written to.
// It leaves nothing there.
func Room(folder string, sizes ...int64) error {
	var there unix.Statfs_t
	if err := unix.Statfs(folder, &there); err != nil {
		return fmt.Errorf("weights: %s: %w", folder, err)
	}
	total := int64(0)
	for _, size := range sizes {
		total += size
	}
	if free := there.Bavail * uint64(there.Bsize); uint64(total) > free {
		return fmt.Errorf("weights: %s has room for %d MiB, %d MiB are needed: %w", folder, free>>20, total>>20, unix.ENOSPC)
	}
	// The disk is not all: there are quotas and limits.
	for _, size := range sizes {
		file, name, err := newTemporary(folder, temporaryPrefix(""))
		if err != nil {
			return fmt.Errorf("weights: %w", err)
		}
		defer file.Close()
		if name != "" {
			defer os.Remove(name)
		}
		err = ignoringInterrupts(func() error { return unix.Fallocate(int(file.Fd()), 0, 0, max(size, 1)) })
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("weights: %s has no room for a file of %d MiB: %w", folder, size>>20, err)
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

func syncFolder(folder string) error {
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Some network file systems cannot sync a folder and say so by EINVAL.
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// SHA256 returns the SHA-256 of a file's content as 64 lower-case hexadecimal digits.
func SHA256(path string) (string, error) {
	file, err := regular.Open(path)
	if err != nil {
		return "", fmt.Errorf("weights: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("weights: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
