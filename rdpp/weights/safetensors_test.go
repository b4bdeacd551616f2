package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"
)

// source is a tensor whose bytes are 0, 1, 2 and so on.
func source(name string, dtype DType, shape ...int) Source {
	return Source{name, dtype, shape, func() ([]byte, error) {
		n, _ := byteSize(dtype, shape)
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i)
		}
		return data, nil
	}}
}

var (
	someMetadata = map[string]string{"z": "last", "a": "first", "config": "{\"é\": \"<\\\"\\n\"}"}
	someSources  = []Source{
		source("decoder.weight", F32, 2, 3), source("bytes", U8, 3), source("half", F16, 2), source("bfloat", BF16, 2),
		source("scalar", I64), source("empty", F64, 0, 4), source("also empty <&>", I16, 0), source("flag", Bool, 1),
		source("bn\\\"1\"", I32, 1), source("int8", I8, 1), source("empty at the end", F32, 0),
	}
)

func written(t testing.TB, metadata map[string]string, sources []Source) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, metadata, sources); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestParseSafetensors(t *testing.T) {
	data := written(t, someMetadata, someSources)
	f, err := ParseSafetensors("inside", data)
	if err != nil {
		t.Fatal(err)
	}
	got, found := f.Lookup("bytes")
	if !found || f.Path != "inside" || !bytes.Equal(mustRead(t, got).Data, []byte{0, 1, 2}) || !maps.Equal(f.Metadata, someMetadata) {
		t.Errorf("got %v of %s, want what was written", got, f.Path)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if _, err := ParseSafetensors("inside", data[:len(data)-1]); err == nil || !strings.Contains(err.Error(), "inside") {
		t.Errorf("shortened: got %v, want an error that names it", err)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name     string
		metadata map[string]string
		sources  []Source
	}{
		{"all types", someMetadata, someSources},
		{"no metadata", nil, someSources[:1]},
		{"no tensors", someMetadata, nil},
		{"nothing", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			content := written(t, c.metadata, c.sources)
			if again := written(t, c.metadata, c.sources); !bytes.Equal(content, again) {
				t.Error("the same input gave other bytes")
			}
			size := binary.LittleEndian.Uint64(content)
			if size%8 != 0 || content[8] != '{' {
				t.Errorf("got a header of %d bytes from %q, want a multiple of 8 from '{'", size, content[8])
			}
			// The other reader is not ours, so shows that the file is in the format.
			theirs, err := safetensors.Deserialize(content)
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenSafetensors(temporary(t, content))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Format != "safetensors" || !maps.Equal(f.Metadata, c.metadata) {
				t.Errorf("got %s with metadata %q, want safetensors with %q", f.Format, f.Metadata, c.metadata)
			}
			if len(f.Tensors) != len(c.sources) || theirs.Len() != len(c.sources) {
				t.Fatalf("got %d tensors, the other reader %d, want %d", len(f.Tensors), theirs.Len(), len(c.sources))
			}
			for i, want := range c.sources {
				data, _ := want.Bytes()
				got := mustRead(t, f.Tensors[i])
				if got.Name != want.Name || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(got.Data, data) {
					t.Errorf("tensor %d: got %v, want %s %s%v %v", i, got, want.Name, want.DType, want.Shape, data)
				}
				other, _ := theirs.Tensor(want.Name)
				if other.DType().String() != want.DType.String() || !bytes.Equal(other.Data(), data) {
					t.Errorf("tensor %d: the other reader got %s %v, want %s %v", i, other.DType(), other.Data(), want.DType, data)
				}
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	failing := errors.New("the device is gone")
	for _, c := range []struct {
		name     string
		metadata map[string]string
		sources  []Source
		reason   string
	}{
		{"same name", nil, []Source{source("w", F32, 1), source("w", F32, 1)}, `"w"`},
		{"no name", nil, []Source{source("", F32, 1)}, "empty"},
		{"reserved name", nil, []Source{source("__metadata__", F32, 1)}, "reserved"},
		{"name not UTF-8", nil, []Source{source("\xff", F32, 1)}, "UTF-8"},
		{"metadata not UTF-8", map[string]string{"k": "\xff"}, nil, "UTF-8"},
		{"no bytes", nil, []Source{{Name: "w", DType: F32}}, "Bytes"},
		{"no type", nil, []Source{source("w", 0, 1)}, "no valid type"},
		{"unknown type", nil, []Source{source("w", 99, 1)}, "DType(99)"},
		{"negative shape", nil, []Source{source("w", F32, -1)}, "[-1]"},
		{"huge shape", nil, []Source{source("w", F32, 1<<40, 1<<40)}, "no valid"},
		{"huge sum", nil, []Source{source("v", U8, 1<<62), source("w", U8, 1<<62)}, `"w"`},
		{"fewer bytes", nil, []Source{{"w", F32, []int{2}, func() ([]byte, error) { return make([]byte, 7), nil }}}, "7 bytes, want 8"},
		{"failing source", nil, []Source{{"w", F32, []int{2}, func() ([]byte, error) { return nil, failing }}}, failing.Error()},
		{"huge header", map[string]string{"k": strings.Repeat("x", maxHeader)}, nil, "100 MB"},
	} {
		err := Write(io.Discard, c.metadata, c.sources)
		if err == nil || !strings.HasPrefix(err.Error(), "weights: ") || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: got error %v, want one from weights with %q", c.name, err, c.reason)
		}
	}
	err := Write(io.Discard, nil, []Source{{"w", F32, []int{2}, func() ([]byte, error) { return nil, failing }}})
	if !errors.Is(err, failing) {
		t.Errorf("got %v, which does not wrap %v", err, failing)
	}
}

// fileOf is a safetensors file with the given header and n bytes after it.
func fileOf(header string, n int) []byte {
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(file, header...), make([]byte, n)...)
}

func TestHostileHeaders(t *testing.T) {
	const a = `"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	for _, c := range []struct {
		name    string
		content []byte
		reason  string
	}{
		{"duplicate name", fileOf("{"+a+`,"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}`, 16), `two tensors named "a"`},
		{"duplicate empty tensors", fileOf(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0), "two tensors"},
		{"duplicate metadata", fileOf(`{"__metadata__":{},"__metadata__":{}}`, 0), "two entries"},
		{"no name", fileOf(`{"":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 0), "without a name"},
		{"text after", fileOf("{"+a+"}x", 8), "after the JSON"},
		{"object after", fileOf("{"+a+"}{}", 8), "after the JSON"},
		{"unfinished", fileOf("{"+a, 8), "JSON at byte"},
		{"no braces between", fileOf("{"+a+"]", 8), "JSON at byte"},
		{"key of no text", fileOf("{1:2}", 0), "JSON at byte"},
		{"not UTF-8", fileOf("{\"\xff\":1}", 0), "not UTF-8"},
		{"header too long", append(binary.LittleEndian.AppendUint64(nil, 1<<63), "{}"...), "no safetensors file"},
		{"hole", fileOf(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), "after byte 0"},
		{"overlap", fileOf("{"+a+`,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), "after byte 8"},
		{"bytes left", fileOf("{"+a+"}", 9), "1 bytes after the last tensor"},
		{"too few bytes", fileOf("{"+a+"}", 7), "of 7"},
		{"wrong size of type", fileOf(`{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,8]}}`, 8), "F64[2]"},
		{"end before begin", fileOf(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,-8]}}`, 8), "[0 -8]"},
		{"negative shapes", fileOf(`{"a":{"dtype":"F32","shape":[-2,-1],"data_offsets":[0,8]}}`, 8), "[-2 -1]"},
		{"shape overflows", fileOf(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, 0), "4611686018427387904"},
		{"shape beyond 64 bits", fileOf(`{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,0]}}`, 0), "tensor \"a\""},
		{"fractional shape", fileOf(`{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,6]}}`, 6), "tensor \"a\""},
		{"no shape", fileOf(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4), "lacks its shape"},
		{"three offsets", fileOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}`, 4), "data_offsets"},
		{"no offsets", fileOf(`{"a":{"dtype":"F32","shape":[1]}}`, 4), "data_offsets"},
		{"unsupported type", fileOf(`{"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}`, 8), `"F8_E4M3", which is not supported`},
		{"names of another case", fileOf(`{"a":{"dtype":"F32","shApe":[2],"data_offsets":[0,8]}}`, 8), "lacks its shape"},
		{"no type", fileOf(`{"a":{"shape":[8],"data_offsets":[0,8]}}`, 8), "not supported"},
		{"metadata of numbers", fileOf(`{"__metadata__":{"a":1}}`, 0), "__metadata__"},
		{"deep", fileOf(`{"a":`+strings.Repeat("[", 100_000), 0), "tensor \"a\""},
	} {
		t.Run(c.name, func(t *testing.T) { wantError(t, temporary(t, c.content), c.reason) })
	}
	// A file that does not even look like safetensors is refused by both ways of opening.
	for _, content := range []string{"", "short", "12345678[]"} {
		if f, err := OpenSafetensors(temporary(t, []byte(content))); err == nil {
			t.Errorf("%q: got %v, want an error", content, f)
		}
	}
}

// TestOrder gives tensors whose header is in another order than their bytes.
func TestOrder(t *testing.T) {
	const info = `{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`
	header := fmt.Sprintf(`{"last":`+info+`,"empty 2":`+info+`,"empty 1":`+info+`,"first":`+info+`}`, 1, 2, 3, 0, 2, 2, 0, 2, 2, 2, 0, 2)
	var got []string
	for _, tensor := range openTest(t, temporary(t, fileOf(header+"  ", 3))).Tensors {
		got = append(got, tensor.Name)
	}
	if want := []string{"first", "empty 2", "empty 1", "last"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// fullDisk takes so many bytes and no more.
type fullDisk int

var errFull = errors.New("no space left")

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) > int(*d) {
		return 0, errFull
	}
	*d -= fullDisk(len(p))
	return len(p), nil
}

func TestWriteToFullDisk(t *testing.T) {
	total := len(written(t, someMetadata, someSources))
	for size := range total {
		disk := fullDisk(size)
		if err := Write(&disk, someMetadata, someSources); !errors.Is(err, errFull) {
			t.Fatalf("on a disk of %d bytes: got error %v, want %v", size, err, errFull)
		}
	}
}

func TestTruncatedSafetensors(t *testing.T) {
	content := written(t, someMetadata, someSources)
	path := temporary(t, content)
	for n := len(content) - 1; n >= 0; n-- {
		if err := os.Truncate(path, int64(n)); err != nil {
			t.Fatal(err)
		}
		wantError(t, path, "")
	}
}

func TestFlippedSafetensors(t *testing.T) {
	content := written(t, someMetadata, someSources)
	header := 8 + int(binary.LittleEndian.Uint64(content))
	for i := range header {
		for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			content[i] ^= flip
			parseAny(t, content)
			content[i] ^= flip
		}
	}
}

// TestPyTorchToSafetensors converts a checkpoint and reads it back.
func TestPyTorchToSafetensors(t *testing.T) {
	var want []expected
	readJSON(t, "more.json", &want)
	f := openTest(t, filepath.Join("testdata", "more_zip.pth"))
	var sources []Source
	for _, tensor := range f.Tensors {
		sources = append(sources, Source{tensor.Name, tensor.DType, tensor.Shape, tensor.Bytes})
	}
	path := filepath.Join(t.TempDir(), "w.safetensors")
	if err := WriteFile(path, nil, sources); err != nil {
		t.Fatal(err)
	}
	compare(t, openTest(t, path), want)
}

// FuzzSafetensors also compares with a reader that is not ours: what ours accepts, that must accept and read alike.
func FuzzSafetensors(f *testing.F) {
	f.Add(written(f, someMetadata, someSources))
	f.Add(written(f, nil, someSources[:2]))
	f.Add(written(f, nil, []Source{source("m.conv1.weight", U8, 64, 3, 7, 7), source("m.layer1.0.conv1.weight", U8, 1)}))
	f.Add(fileOf(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 8))
	f.Fuzz(func(t *testing.T, content []byte) {
		ours := parseAny(t, content)
		if ours == nil || ours.Format != "safetensors" {
			return
		}
		theirs, err := safetensors.Deserialize(content)
		if err != nil {
			t.Fatalf("accepted what the other reader refuses: %v", err)
		}
		for _, tensor := range ours.Tensors {
			other, ok := theirs.Tensor(tensor.Name)
			if data := mustRead(t, tensor).Data; !ok || !bytes.Equal(other.Data(), data) {
				t.Errorf("%q: got %v, the other reader %v", tensor.Name, data, other)
			}
		}
	})
}

// TestOfficial reads a file that the official implementation wrote (testdata/make_safetensors.py).
func TestOfficial(t *testing.T) {
	f := openTest(t, filepath.Join("testdata", "official.safetensors"))
	if want := map[string]string{"format": "pt", "note": "<\"é\n\">"}; !maps.Equal(f.Metadata, want) {
		t.Errorf("got metadata %q, want %q", f.Metadata, want)
	}
	want := []struct {
		name  string
		dtype DType
		shape []int
	}{
		{"encoder.conv1.weight", F32, []int{2, 1, 3}}, {"half", F16, []int{3}}, {"bfloat", BF16, []int{2, 2}}, {"double", F64, []int{2}},
		{"count", I64, nil}, {"int32", I32, []int{1}}, {"int16", I16, []int{1}}, {"int8", I8, []int{5}}, {"uint8", U8, []int{3}},
		{"flag", Bool, []int{1}}, {"empty", F32, []int{0, 7}}, {`quoted "name" \ é`, U8, []int{1}},
	}
	if len(f.Tensors) != len(want) {
		t.Errorf("got %d tensors, want %d", len(f.Tensors), len(want))
	}
	for i, w := range want {
		n, _ := byteSize(w.dtype, w.shape)
		content := make([]byte, n)
		for k := range content {
			content[k] = byte(i + k)
		}
		got, ok := f.Lookup(w.name)
		if !ok || got.DType != w.dtype || !slices.Equal(got.Shape, w.shape) || !bytes.Equal(mustRead(t, got).Data, content) {
			t.Errorf("%s: got %v, want %s%v %v", w.name, got, w.dtype, w.shape, content)
		}
	}
}
