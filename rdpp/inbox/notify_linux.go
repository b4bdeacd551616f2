package inbox

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// event is what the kernel tells of a name in a folder.
type event struct {
	dir, name string
	folder    bool // the name is a folder's, which came or went
	whole     bool // a file was closed after writing, or renamed into place
	written   bool // a file is being written to
	gone      bool // it has left
	lost      bool // events were lost, or a folder was: nothing else is known
}

// notifier tells what happens in folders. fsnotify, which is a library for it, does not tell that a file is closed after writing.
type notifier struct {
	file   *os.File
	events chan []event

	mu   sync.Mutex
	dirs map[int32]string
	ends chan struct{}
	once sync.Once
}

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	n := &notifier{file: os.NewFile(uintptr(fd), "inotify"), events: make(chan []event, 16), dirs: map[int32]string{}, ends: make(chan struct{})}
	go n.read()
	return n, nil
}

func (n *notifier) close() {
	n.once.Do(func() {
		close(n.ends)
		n.file.Close()
	})
}

// add watches a folder. It may be called again, and follows where another folder has taken the place of the first.
func (n *notifier) add(dir string) {
	connection, err := n.file.SyscallConn()
	if err != nil {
		return
	}
	// Where there are no more watches, looking through the folders does the same later.
	_ = connection.Control(func(fd uintptr) {
		wd, err := unix.InotifyAddWatch(int(fd), dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_DELETE|unix.IN_CREATE|
			unix.IN_MODIFY|unix.IN_ONLYDIR|unix.IN_EXCL_UNLINK)
		if err == nil {
			n.mu.Lock()
			n.dirs[int32(wd)] = dir
			n.mu.Unlock()
		}
	})
}

// read hands over events until the notifier is closed.
func (n *notifier) read() {
	defer close(n.events)
	buffer := make([]byte, 64<<10)
	for {
		size, err := n.file.Read(buffer)
		if err != nil || size < unix.SizeofInotifyEvent {
			return
		}
		if batch := n.parse(buffer[:size]); len(batch) > 0 {
			select {
			case n.events <- batch: // while it waits the kernel keeps events, or says that some were lost
			case <-n.ends:
				return
			}
		}
	}
}

// parse reads events as the kernel writes them; what comes twice in a row it gives once.
func (n *notifier) parse(data []byte) (batch []event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(data) >= unix.SizeofInotifyEvent {
		wd, mask := int32(binary.NativeEndian.Uint32(data)), binary.NativeEndian.Uint32(data[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(data[12:]))
		if end > len(data) {
			break
		}
		name, _, _ := bytes.Cut(data[unix.SizeofInotifyEvent:end], []byte{0})
		data = data[end:]
		dir, known := n.dirs[wd]
		e := event{dir: dir, name: string(name)}
		has := func(bits uint32) bool { return mask&bits != 0 }
		switch {
		case has(unix.IN_Q_OVERFLOW | unix.IN_UNMOUNT):
			e = event{lost: true}
		case has(unix.IN_IGNORED):
			delete(n.dirs, wd)
			continue
		case !known || e.name == "":
			continue
		case has(unix.IN_ISDIR):
			e.folder = true
			if has(unix.IN_MOVED_FROM) {
				n.forget(filepath.Join(dir, e.name))
			}
		case has(unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO):
			e.whole = true
		case has(unix.IN_DELETE | unix.IN_MOVED_FROM):
			e.gone = true
		default:
			e.written = has(unix.IN_MODIFY)
		}
		if len(batch) == 0 || batch[len(batch)-1] != e {
			batch = append(batch, e)
		}
	}
	return batch
}

// forget drops the watches of a folder that has another name from now on, and of those below.
func (n *notifier) forget(dir string) {
	for wd, path := range n.dirs {
		if path == dir || strings.HasPrefix(path, dir+string(filepath.Separator)) {
			delete(n.dirs, wd)
		}
	}
}
