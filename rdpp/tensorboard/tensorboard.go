// Package tensorboard writes curves as TensorBoard reads them: event files of scalars. No library for Go that is kept writes them.
//
// A file is TensorFlow's records (tensorflow/core/lib/io/record_writer.h): per record the length in 8 bytes, its check sum in 4,
// the data and its check sum, all little-endian. The data is a message Event (tensorflow/core/util/event.proto).
package tensorboard

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// prefix is what the names of event files begin with, and suffix what those of ours end with.
const (
	prefix = "events.out.tfevents."
	suffix = ".rdpp"
)

// version is the file_version that a file's first event tells. From 2 on a start drops the steps after it.
const version = "brain.Event:2"

// Fields of Event, Summary, Summary.Value and SessionLog, and the status START of the latter.
const (
	eventTime, eventStep, eventVersion, eventSummary, eventSession = 1, 2, 3, 5, 7
	summaryValue                                                   = 1
	valueTag, valueSimple                                          = 1, 2
	sessionStatus                                                  = 1
	statusStart                                                    = 1
)

// Scalar is a point of a curve at a step.
type Scalar struct {
	Tag   string // of the curve; what stands before a slash is its group. UTF-8
	Value float64
}

// Writer appends to an event file, which TensorBoard may read at any time. It is not safe for concurrent use.
type Writer struct{ file *os.File }

// Create makes an event file in a folder, which is made where missing. What other files of the folder have at the step first and
// later is taken back: a training that goes on from a checkpoint has done it again. Where first is 0 those that a Writer has made go.
func Create(folder string, first int64) (*Writer, error) {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return nil, fmt.Errorf("tensorboard: %w", err)
	}
	if first == 0 {
		if err := Remove(folder); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	// TensorBoard reads a folder's files in the order of their names, of which nanoseconds have one length.
	path := filepath.Join(folder, fmt.Sprintf("%s%d%s", prefix, now.UnixNano(), suffix))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return nil, fmt.Errorf("tensorboard: %w", err)
	}
	w := &Writer{file}
	if err := w.write(head(now, first)); err != nil {
		file.Close()
		return nil, err
	}
	return w, nil
}

// Remove removes the event files of a folder that Writers have made.
func Remove(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("tensorboard: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), suffix) {
			if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
				return fmt.Errorf("tensorboard: %w", err)
			}
		}
	}
	return nil
}

// Add appends the points of curves at a step, which must not be below that of Create.
func (w *Writer) Add(step int64, points ...Scalar) error {
	return w.write(scalars(time.Now(), step, points))
}

// Close closes the file.
func (w *Writer) Close() error {
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("tensorboard: %w", err)
	}
	return nil
}

// write appends whole records by one call, so that no reader sees a part of one for long.
func (w *Writer) write(records []byte) error {
	if _, err := w.file.Write(records); err != nil {
		return fmt.Errorf("tensorboard: %w", err)
	}
	return nil
}

// head is the first two records of a file.
func head(at time.Time, first int64) []byte {
	told := protowire.AppendString(protowire.AppendTag(event(at, 0), eventVersion, protowire.BytesType), version)
	status := protowire.AppendVarint(protowire.AppendTag(nil, sessionStatus, protowire.VarintType), statusStart)
	start := protowire.AppendBytes(protowire.AppendTag(event(at, first), eventSession, protowire.BytesType), status)
	return append(record(told), record(start)...)
}

// scalars is the record of points.
func scalars(at time.Time, step int64, points []Scalar) []byte {
	var summary []byte
	for _, p := range points {
		value := protowire.AppendString(protowire.AppendTag(nil, valueTag, protowire.BytesType), p.Tag)
		value = protowire.AppendFixed32(protowire.AppendTag(value, valueSimple, protowire.Fixed32Type), math.Float32bits(float32(p.Value)))
		summary = protowire.AppendBytes(protowire.AppendTag(summary, summaryValue, protowire.BytesType), value)
	}
	return record(protowire.AppendBytes(protowire.AppendTag(event(at, step), eventSummary, protowire.BytesType), summary))
}

// event is the beginning of an Event.
func event(at time.Time, step int64) []byte {
	seconds := float64(at.UnixNano()) / float64(time.Second)
	e := protowire.AppendFixed64(protowire.AppendTag(nil, eventTime, protowire.Fixed64Type), math.Float64bits(seconds))
	if step == 0 { // proto3 leaves it out
		return e
	}
	return protowire.AppendVarint(protowire.AppendTag(e, eventStep, protowire.VarintType), uint64(step))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is the check sum of records: CRC-32C, turned and moved, so that that of a text with check sums in it is not one of them.
func masked(data []byte) uint32 {
	sum := crc32.Checksum(data, castagnoli)
	return (sum>>15 | sum<<17) + 0xa282ead8
}

func record(data []byte) []byte {
	r := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	r = binary.LittleEndian.AppendUint32(r, masked(r))
	r = append(r, data...)
	return binary.LittleEndian.AppendUint32(r, masked(data))
}
