package watch

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"rdpp/rdpp/history"
)

// table is a file of CSV that gets a row for each record. A row's first field is the record's number, so that after a crash the
// file itself says whether the last one was written. Another file may take its place, as when logs are rotated.
type table struct {
	path string
	file *os.File
	size int64
	last int64 // record that has the last row; 0: there is none
}

func openTable(path string) (*table, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	t := &table{path: full}
	return t, t.open()
}

// open opens the file and makes it whole.
func (t *table) open() (err error) {
	if info, err := os.Stat(t.path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: is no regular file; choose another", t.path)
	}
	if t.file, err = os.OpenFile(t.path, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return err
	}
	if t.last, err = t.mend(); err != nil {
		t.file.Close()
		return fmt.Errorf("%s: %w", t.path, err)
	}
	return nil
}

// mend cuts off a row that was not written to its end, and writes the header of an empty file. It returns the last row's record.
func (t *table) mend() (last int64, err error) {
	info, err := t.file.Stat()
	if err != nil {
		return 0, err
	}
	header, err := line(history.TableHeader)
	if err != nil {
		return 0, err
	}
	start := make([]byte, min(info.Size(), int64(len(header))))
	if _, err := t.file.ReadAt(start, 0); err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(header, start) {
		return 0, errors.New("begins otherwise than the tables of this program; choose another file")
	}
	t.size = int64(len(header))
	if len(start) < len(header) {
		return 0, t.write(0, header)
	}
	tail, at, err := lastLines(t.file, info.Size())
	if err != nil {
		return 0, err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	t.size = at + int64(end)
	if err := t.file.Truncate(t.size); err != nil {
		return 0, err
	}
	lines := bytes.Split(bytes.TrimSuffix(tail[:end], []byte("\n")), []byte("\n"))
	id, _, _ := bytes.Cut(lines[len(lines)-1], []byte(","))
	if t.size == int64(len(header)) {
		return 0, nil
	}
	if last, err = strconv.ParseInt(string(id), 10, 64); err != nil {
		return 0, fmt.Errorf("its last row begins with %.40q, not with a record's number; choose another file", id)
	}
	return last, nil
}

// lastLines reads the end of a file, with at least one whole line, and where it begins.
func lastLines(f io.ReaderAt, size int64) (tail []byte, at int64, err error) {
	for n := int64(64 << 10); ; n *= 2 {
		at = max(size-n, 0)
		tail = make([]byte, size-at)
		if _, err := f.ReadAt(tail, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		if at == 0 || bytes.Count(tail, []byte("\n")) > 1 {
			return tail, at, nil
		}
	}
}

// line is a row as CSV.
func line(fields []string) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.Write(fields); err != nil {
		return nil, err
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

// write puts data at an offset and on the disk. What could not be written wholly is cut off again.
func (t *table) write(at int64, data []byte) error {
	_, err := t.file.WriteAt(data, at)
	if err == nil {
		err = t.file.Sync()
	}
	if err != nil {
		return errors.Join(err, t.file.Truncate(at))
	}
	t.size = at + int64(len(data))
	return nil
}

// add adds a record's row; again says that the table may have it.
func (t *table) add(r *history.Record, again bool) error {
	if err := t.follow(); err != nil {
		return err
	}
	if again && r.ID == t.last {
		return nil
	}
	row, err := line(r.Row())
	if err != nil {
		return err
	}
	if err := t.write(t.size, row); err != nil {
		return fmt.Errorf("%s: %w", t.path, err)
	}
	t.last = r.ID
	return nil
}

// follow opens the file anew where another one has taken its place, or it is not as this table has left it.
func (t *table) follow() error {
	open, err := t.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(t.path)
	if err == nil && os.SameFile(open, there) && there.Size() == t.size {
		return nil
	}
	t.file.Close()
	return t.open()
}

func (t *table) close() { t.file.Close() }
