package atomicfile

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A file on its way to its place has no name, where the file system knows such files (O_TMPFILE): it ends with its process. It
// gets one for the moment between its end and its place. Elsewhere it has one from the start. Whoever has made a temporary file
// with a name keeps a lock on it (flock), which ends with the process, so one that can be locked is nobody's any more.

// temporaryName is what these names look like.
var temporaryName = regexp.MustCompile(`^\.rdpp-[0-9a-f]{16}-[0-9a-f]{16}\.tmp$`)

// temporaryPrefix begins the names of path's temporary files, and of no other path's in its folder.
func temporaryPrefix(path string) string {
	hash := fnv.New64a()
	io.WriteString(hash, filepath.Base(path))
	return fmt.Sprintf(".rdpp-%016x-", hash.Sum64())
}

func newName(folder, prefix string) string {
	return filepath.Join(folder, fmt.Sprintf("%s%016x.tmp", prefix, rand.Uint64()))
}

// namedAlone is for tests: it stands for a file system that knows no files without a name.
var namedAlone = false

// newTemporary makes a file to write in a folder. Its name is "" where it has none yet.
func newTemporary(folder, prefix string) (file *os.File, name string, err error) {
	cleanOnce(folder)
	if !namedAlone {
		if file, err = os.OpenFile(folder, unix.O_TMPFILE|os.O_WRONLY, 0o666); err == nil {
			_, err = os.Stat(nameless(file))
			if err == nil {
				lock(file)
				return file, "", nil
			}
			file.Close() // it could not be named later
		}
	}
	for {
		name = newName(folder, prefix)
		// Not os.CreateTemp: it forbids reading by others whatever the umask says.
		if file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
			return nil, "", err
		}
		lock(file)
		// Another process may have locked it first, and taken it for one that was left behind.
		if opened, err := file.Stat(); err == nil {
			if there, err := os.Stat(name); err == nil && os.SameFile(opened, there) {
				return file, name, nil
			}
		}
		file.Close()
		if _, err := os.Stat(folder); err != nil {
			return nil, "", err
		}
	}
}

// nameless is a path to an open file that has no name.
func nameless(file *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", file.Fd()) }

// giveName names a file that has no name, and returns the name.
func giveName(file *os.File, folder, prefix string) (string, error) {
	for {
		name := newName(folder, prefix)
		err := unix.Linkat(unix.AT_FDCWD, nameless(file), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
		if !errors.Is(err, fs.ErrExist) {
			return name, err
		}
	}
}

// lock says that the file has an owner. Some network file systems have no locks; what is left behind there stays.
func lock(file *os.File) {
	_ = ignoringInterrupts(func() error { return unix.Flock(int(file.Fd()), unix.LOCK_EX) })
}

// cleaned are the folders that this process has cleaned.
var cleaned sync.Map

// cleanOnce removes what killed processes have left in a folder, the first time that it is written to.
func cleanOnce(folder string) {
	if _, before := cleaned.LoadOrStore(folder, true); before {
		return
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return // writing will say what is wrong
	}
	for _, e := range entries {
		if temporaryName.MatchString(e.Name()) && e.Type().IsRegular() {
			removeIfLeft(filepath.Join(folder, e.Name()))
		}
	}
}

// removeIfLeft removes a temporary file that has no owner.
func removeIfLeft(name string) {
	file, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer file.Close()
	if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		os.Remove(name)
	}
}

// RemoveTemporary removes what killed processes left of files on their way to path. Nobody may be writing there.
func RemoveTemporary(path string) error {
	folder, prefix := filepath.Dir(path), temporaryPrefix(path)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("atomicfile: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), ".tmp") {
			if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
				return fmt.Errorf("atomicfile: %w", err)
			}
		}
	}
	return nil
}
