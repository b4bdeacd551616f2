package weights

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// WriteFile writes a safetensors file as [Write] does, and puts it at path as [WriteFileAtomic] does.
func WriteFile(path string, metadata map[string]string, tensors []Source) error {
	return WriteFileAtomic(path, func(w io.Writer) error { return Write(w, metadata, tensors) })
}

// WriteFileAtomic puts what write writes at path, so that at any moment, even after a power cut, either the old or the whole new
// content is there: it writes a temporary file in the same folder, syncs it, renames it over path and syncs the folder. On an
// error the temporary file is removed and what was at path stays, except that a failing sync of the folder, the last step, leaves
// the new content. What a killed process leaves behind, RemoveTemporary removes. An existing file's permissions are kept; a
// symbolic link at path is replaced, not followed. Several goroutines may write, even to the same path: the last wins.
func WriteFileAtomic(path string, write func(io.Writer) error) error {
	if err := writeFileAtomic(path, write); err != nil {
		return fmt.Errorf("weights: writing %s: %w", path, err)
	}
	return nil
}

// temporaryPrefix begins the names of path's temporary files, and of no other path's in its folder.
func temporaryPrefix(path string) string {
	hash := fnv.New64a()
	io.WriteString(hash, filepath.Base(path))
	return fmt.Sprintf(".rdpp-%016x-", hash.Sum64())
}

// RemoveTemporary removes what killed processes left of files on their way to path. Nobody may be writing there.
func RemoveTemporary(path string) error {
	folder, prefix := filepath.Dir(path), temporaryPrefix(path)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), ".tmp") {
			if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
				return fmt.Errorf("weights: %w", err)
			}
		}
	}
	return nil
}

func writeFileAtomic(path string, write func(io.Writer) error) (err error) {
	folder := filepath.Dir(path)
	// Not os.CreateTemp: it forbids reading by others whatever the umask says.
	name := filepath.Join(folder, fmt.Sprintf("%s%016x.tmp", temporaryPrefix(path), rand.Uint64()))
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	renamed := false
	defer func() {
		if !renamed {
			file.Close() // already closed when closing it or renaming has failed
			os.Remove(name)
		}
	}()

	buffer := bufio.NewWriterSize(file, 1<<16)
	if err := write(buffer); err != nil {
		return err
	}
	if err := buffer.Flush(); err != nil {
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
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		return err
	}
	renamed = true
	return syncFolder(folder)
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
	file, err := os.Open(path)
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
