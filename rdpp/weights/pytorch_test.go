package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// expected is a tensor as the PyTorch that made a file reads it.
type expected struct {
	Name   string
	DType  string
	Shape  []int
	Values []float64
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

// compare holds every value of f equal to want, bit for bit: all are exact in float64.
func compare(t *testing.T, f *File, want []expected) {
	t.Helper()
	if got := len(f.Tensors); got != len(want) {
		t.Errorf("got %d tensors, want %d", got, len(want))
	}
	for _, w := range want {
		stored, ok := f.Lookup(w.Name)
		if !ok {
			t.Errorf("no tensor %q", w.Name)
			continue
		}
		got := mustRead(t, stored)
		if got.DType.String() != w.DType || !slices.Equal(got.Shape, w.Shape) || got.Len() != len(w.Values) {
			t.Errorf("%s: got %s%v, want %s%v", w.Name, got.DType, got.Shape, w.DType, w.Shape)
			continue
		}
		for i, v := range got.Float64() {
			if math.Float64bits(v) != math.Float64bits(w.Values[i]) {
				t.Errorf("%s[%d]: got %v, want %v", w.Name, i, v, w.Values[i])
				break
			}
		}
		for i, v := range got.Float32() {
			if math.Float32bits(v) != math.Float32bits(float32(w.Values[i])) {
				t.Errorf("%s[%d] in float32: got %v, want %v", w.Name, i, v, float32(w.Values[i]))
				break
			}
		}
	}
}

func mustRead(t *testing.T, s Stored) Tensor {
	t.Helper()
	tensor, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	return tensor
}

func openTest(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// temporary writes a file of the test's own and returns its path.
func temporary(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weights")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGolden(t *testing.T) {
	type entry struct {
		DType  string
		Shape  []int
		Values []float64
	}
	var values struct {
		ZipAndLegacy map[string]entry            `json:"zip_and_legacy"`
		Nested       map[string]map[string]entry `json:"nested_checkpoint"`
	}
	readJSON(t, "values.json", &values)
	names := map[string]string{"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
	var flat, nested []expected
	for name, e := range values.ZipAndLegacy {
		flat = append(flat, expected{name, names[e.DType], e.Shape, e.Values})
	}
	for part, entries := range values.Nested {
		for name, e := range entries {
			nested = append(nested, expected{part + "." + name, names[e.DType], e.Shape, e.Values})
		}
	}
	for _, c := range []struct {
		file, format string
		want         []expected
	}{
		{"zip.pth", "pytorch-zip", flat},
		{"legacy.pth", "pytorch-legacy", flat},
		{"nested_checkpoint.pth", "pytorch-zip", nested},
	} {
		t.Run(c.file, func(t *testing.T) {
			f := openTest(t, filepath.Join("testdata", c.file))
			if f.Format != c.format {
				t.Errorf("got format %q, want %q", f.Format, c.format)
			}
			compare(t, f, c.want)
		})
	}
}

func TestMore(t *testing.T) {
	var want []expected
	readJSON(t, "more.json", &want)
	for _, name := range []string{"more_zip.pth", "more_legacy.pth"} {
		t.Run(name, func(t *testing.T) {
			f := openTest(t, filepath.Join("testdata", name))
			compare(t, f, want)
			for i, tensor := range f.Tensors {
				if tensor.Name != want[i].Name {
					t.Errorf("tensor %d: got %q, want %q, the order of saving", i, tensor.Name, want[i].Name)
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ file, reason string }{
		{"refuse_code_legacy.pth", "posix.system"},
		{"refuse_code_zip.pth", "posix.system"},
		{"refuse_not_weights.pth", "neither a PyTorch nor a safetensors file"},
		{"refuse_truncated_legacy.pth", "truncated"},
		{"refuse_truncated_zip.pth", "truncated"},
	} {
		path := filepath.Join("testdata", c.file)
		wantError(t, path, c.reason)
		for _, trace := range []string{"rdpp-pwned", "testdata/rdpp-pwned"} {
			if _, err := os.Stat(trace); err == nil {
				t.Fatalf("%s: its code was executed", c.file)
			}
		}
	}
}

// wantError opens a file and wants a one-line error with the package's name, the path and the reason, and that no more than
// 4 MiB, which covers what the budget grants the smallest file, and 100 times the file's size were allocated on the way to it.
func wantError(t *testing.T, path, reason string) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := Open(path)
	runtime.ReadMemStats(&after)
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		if got, want := after.TotalAlloc-before.TotalAlloc, uint64(4<<20+100*info.Size()); got > want {
			t.Errorf("%s: got %d bytes allocated, want at most %d", path, got, want)
		}
	}
	if err == nil {
		f.Close()
		t.Errorf("%s: got no error, want one with %q", path, reason)
		return
	}
	got := err.Error()
	if !strings.HasPrefix(got, "weights: ") || strings.Contains(got, "\n") || !strings.Contains(got, path) || !strings.Contains(got, reason) {
		t.Errorf("got error %q, want one line from weights with the path %s and %q", got, path, reason)
	}
}

// entry is a member of a zip archive made by zipped.
type entry struct {
	name   string
	method uint16
	data   []byte
}

func zipped(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range entries {
		part, err := w.CreateHeader(&zip.FileHeader{Name: e.name, Method: e.method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// repacked is more_zip.pth, every entry changed by change.
func repacked(t *testing.T, change func(entry) entry) []byte {
	t.Helper()
	archive, err := zip.OpenReader("testdata/more_zip.pth")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	var entries []entry
	for _, e := range archive.File {
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		var data bytes.Buffer
		if _, err := data.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, change(entry{e.Name, e.Method, data.Bytes()}))
	}
	return zipped(t, entries...)
}

func TestDeflated(t *testing.T) {
	var want []expected
	readJSON(t, "more.json", &want)
	packed := repacked(t, func(e entry) entry { return entry{e.name, zip.Deflate, e.data} })
	compare(t, openTest(t, temporary(t, packed)), want)
}

// The pieces of hand-made pickles.

func text(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func long1(n int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func ints(values ...int64) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(long1(v))
	}
	return "(" + b.String() + "t"
}

func storageOf(kind string, n int64) string {
	return "(" + text("storage") + "ctorch\n" + kind + "\n" + text("0") + text("cpu") + long1(n) + "tQ"
}

// view is a tensor of a FloatStorage of n elements.
func view(n, offset int64, shape, stride string) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n(" + storageOf("FloatStorage", n) + long1(offset) + shape + stride + "\x89NtR"
}

// saved is a checkpoint {"w": value} over the 4 floats 0, 1, 2, 3.
func saved(value string) string { return "\x80\x02}" + text("w") + value + "s." }

var fourFloats = []byte{0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40}

func zipOf(t testing.TB, pickle string) []byte {
	return zipped(t, entry{"x/data.pkl", zip.Store, []byte(pickle)}, entry{"x/data/0", zip.Store, fourFloats})
}

// legacyOf is the older format around a checkpoint's pickle; stated is the storage's length before its elements.
func legacyOf(pickle, machine string, stated int64) []byte {
	head := legacyMagic + ".\x80\x02M\xe9\x03.\x80\x02}(" + machine + "u." + pickle + "\x80\x02](" + text("0") + "e."
	return append(binary.LittleEndian.AppendUint64([]byte(head), uint64(stated)), fourFloats...)
}

var littleEndian = text("little_endian") + "\x88"

func TestHandmade(t *testing.T) {
	want := []expected{{"w", "F32", []int{2, 2}, []float64{0, 2, 1, 3}}}
	pickle := saved(view(4, 0, ints(2, 2), ints(1, 2)))
	python2 := "\x80\x02ccollections\nOrderedDict\n](](U\x01w" + view(4, 0, ints(2, 2), ints(1, 2)) + "ee\x85R."
	for name, content := range map[string][]byte{
		"zip":                      zipOf(t, pickle),
		"legacy":                   legacyOf(pickle, littleEndian, 4),
		"first rebuild function":   zipOf(t, strings.Replace(pickle, "_v2", "", 1)),
		"ordered dict of Python 2": zipOf(t, python2),
		"no folder":                zipped(t, entry{"data.pkl", zip.Store, []byte(pickle)}, entry{"data/0", zip.Store, fourFloats}),
		"little-endian": zipped(t, entry{"x/data.pkl", zip.Store, []byte(pickle)}, entry{"x/data/0", zip.Store, fourFloats},
			entry{"x/byteorder", zip.Store, []byte("little")}),
	} {
		t.Run(name, func(t *testing.T) { compare(t, openTest(t, temporary(t, content)), want) })
	}
}

func TestHostilePickles(t *testing.T) {
	ok := view(4, 0, ints(4), ints(1))
	deep := strings.Repeat("]", 100) + ok + strings.Repeat("a", 100)
	// Lists that name the one before twice: 2^40 leaves from a few bytes.
	laughs := "]" + ok + "aq\x00"
	for range 40 {
		laughs += "](h\x00h\x00eq\x00"
	}
	for _, c := range []struct{ name, pickle, reason string }{
		{"end", "", "ends too early"},
		{"no value", "\x80\x02.", "nothing on the stack"},
		{"value below a mark", "N(.", "nothing on the stack"},
		{"protocol 4", "\x80\x04N.", "protocol 4"},
		{"INST", "(iposix\nsystem\n.", "opcode 0x69"},
		{"NEWOBJ", "ctorch\nSize\n)\x81.", "opcode 0x81"},
		{"STACK_GLOBAL", text("posix") + text("system") + "\x93.", "opcode 0x93"},
		{"EXT1", "\x82\x01.", "opcode 0x82"},
		{"global", saved("c__builtin__\neval\n" + text("1") + "\x85R"), "__builtin__.eval"},
		{"global by a longer module", saved("ctorch._utils.x\n_rebuild_tensor_v2\n)R"), "torch._utils.x._rebuild_tensor_v2"},
		{"unfinished global", "cposix", "ends within a name"},
		{"long global", "c" + strings.Repeat("x", 1000) + "\ny\n.", "not allowed"},
		{"storage called", saved("ctorch\nFloatStorage\n)R"), "is called"},
		{"text called", saved(text("posix.system") + ")R"), "is due"},
		{"build on a tensor", saved(ok + "}b"), "is due"},
		{"few arguments", saved("ctorch._utils\n_rebuild_tensor_v2\n)R"), "0 arguments"},
		{"parameter of nothing", saved("ctorch._utils\n_rebuild_parameter\nN\x85R"), "is due"},
		{"text longer than the file", "X\xff\xff\xff\xffabc.", "ends too early"},
		{"text not UTF-8", "U\x01\xff.", "not UTF-8"},
		{"unknown memo", "h\x07.", "remembered as 7"},
		{"key without a value", "}(Nu.", "a key without a value"},
		{"no mark", "t.", "no mark"},
		{"odd item of Python 2", "ccollections\nOrderedDict\n]]a\x85R.", "an item of 0 values"},
		{"contains itself", "]q\x00h\x00a.", "nested more than 64 deep"},
		{"deep", deep + ".", "nested more than 64 deep"},
		{"billion laughs", laughs + ".", "more than 16 times its size"},
		{"many opcodes", strings.Repeat("N", maxOps) + ".", "opcodes"},
		{"same items again and again", python2Again(), "more than 16 times its size"},
		{"long names", repeatedNames(ok), "more than 16 times its size"},
		{"bare tensor", ok + ".", "without a name"},
		{"same name", "}(" + text("w") + ok + text("w") + ok + "u.", "two tensors named"},
		{"odd key", "}N" + ok + "s.", "neither text nor a number"},

		{"negative storage", saved(view(-1, 0, ints(4), ints(1))), `storage "0" is -1`},
		{"storage too long", saved(view(5, 0, ints(4), ints(1))), `storage "0" is 5`},
		{"storage too short", saved(view(3, 0, ints(3), ints(1))), `storage "0" is 3`},
		{"huge storage", saved(view(math.MaxInt64, 0, ints(4), ints(1))), `storage "0" is 9223372036854775807`},
		{"storage of two lengths", "}(" + text("w") + ok + text("v") + view(5, 0, ints(1), ints(1)) + "u.", "is both 4"},
		{"storage of no type", saved(storageOf("Size", 4)), "no type of storage"},
		{"complex", saved(storageOf("ComplexFloatStorage", 4)), "torch.ComplexFloatStorage"},
		{"other persistent id", "(" + text("module") + "NNNNtQ.", `kind "module"`},
		{"view of a storage", "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "K\x04)tQ.", "view of a part"},
		{"negative offset", saved(view(4, -1, ints(1), ints(1))), "does not fit"},
		{"offset at the end", saved(view(4, 4, ints(1), ints(1))), "does not fit"},
		{"offset too far", saved(view(4, 1, ints(4), ints(1))), "does not fit"},
		{"stride too far", saved(view(4, 0, ints(2, 2), ints(3, 1))), "does not fit"},
		{"stride overflows", saved(view(4, 0, ints(3, 1), ints(math.MaxInt64, 1))), "does not fit"},
		{"negative stride", saved(view(4, 3, ints(2), ints(-1))), "does not fit"},
		{"negative shape", saved(view(4, 0, ints(-4), ints(1))), "shape [-4]"},
		{"negative shapes", saved(view(4, 0, ints(-2, -2), ints(2, 1))), "shape [-2 -2]"},
		{"shape overflows", saved(view(4, 0, ints(1<<62, 4), ints(0, 0))), "shape [4611686018427387904 4]"},
		{"shape overflows beside 0", saved(view(4, 0, ints(0, 1<<62, 4), ints(0, 0, 0))), "shape [0 "},
		{"expanded far", saved(view(4, 0, ints(1<<40), ints(0))), "more than 16 times its size"},
		{"fewer strides", saved(view(4, 0, ints(2, 2), ints(1))), "strides [1]"},
		{"many dimensions", saved(view(4, 0, ints(make([]int64, 65)...), ints(make([]int64, 65)...))), "65 dimensions"},
		{"shape of text", saved(view(4, 0, text("4"), ints(1))), "is due"},
		{"huge dimension", saved(view(4, 0, "\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01\x85", ints(1))), "is due"},
	} {
		t.Run(c.name, func(t *testing.T) { wantError(t, temporary(t, zipOf(t, c.pickle)), c.reason) })
	}
}

// python2Again makes a dictionary of the same 1000 items 1000 times.
func python2Again() string {
	items := "](" + strings.Repeat("]NaNa", 1000) + "eq\x00"
	return items + "ccollections\nOrderedDict\nq\x01" + strings.Repeat("h\x01h\x00\x85R", 1000) + "."
}

// repeatedNames is a checkpoint that names one list of 1000 tensors 1000 times, each below a long key.
func repeatedNames(tensor string) string {
	var b strings.Builder
	b.WriteString("](" + tensor + "q\x00" + strings.Repeat("h\x00", 999) + "eq\x01}q\x02")
	for i := range 1000 {
		b.WriteString(text(fmt.Sprintf("%d%s", i, strings.Repeat("x", 100))) + "h\x01s")
	}
	return b.String() + "."
}

func TestHostileContainers(t *testing.T) {
	pickle := saved(view(4, 0, ints(4), ints(1)))
	data := entry{"x/data.pkl", zip.Store, []byte(pickle)}
	storage := entry{"x/data/0", zip.Store, fourFloats}
	// raw writes an entry whose header states other sizes than the content has.
	raw := func(h zip.FileHeader, content []byte) []byte {
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		first, err := w.CreateHeader(&zip.FileHeader{Name: "x/data.pkl"})
		if err != nil {
			t.Fatal(err)
		}
		first.Write([]byte(pickle))
		h.Name = "x/data/0"
		part, err := w.CreateRaw(&h)
		if err != nil {
			t.Fatal(err)
		}
		part.Write(content)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	flipped := zipOf(t, pickle)
	flipped[bytes.Index(flipped, fourFloats)+7] ^= 1
	zeros := bytes.Repeat([]byte{0}, 32<<20)
	for _, c := range []struct {
		name    string
		content []byte
		reason  string
	}{
		{"empty file", nil, "empty"},
		{"short file", []byte("PK"), "neither"},
		{"zip of something else", zipped(t, entry{"a.txt", zip.Store, []byte("a")}), "without data.pkl"},
		{"two checkpoints", zipped(t, data, entry{"y/data.pkl", zip.Store, []byte(pickle)}), "several data.pkl"},
		{"same entry twice", zipped(t, data, storage, storage), "two zip entries"},
		{"missing storage", zipped(t, data), `no "x/data/0"`},
		{"big-endian zip", zipped(t, data, storage, entry{"x/byteorder", zip.Store, []byte("big")}), `byte order "big"`},
		{"flipped bit", flipped, "checksum"},
		{"bomb", zipped(t, data, entry{"x/data/0", zip.Deflate, zeros}), "more than 16 times its size"},
		{"huge stored", raw(zip.FileHeader{CompressedSize64: 1 << 18, UncompressedSize64: 1 << 18}, fourFloats), "truncated"},
		{"negative stored", raw(zip.FileHeader{CompressedSize64: 1 << 63, UncompressedSize64: 1 << 63}, fourFloats), "16 times"},
		{"stored of two sizes", raw(zip.FileHeader{CompressedSize64: 8, UncompressedSize64: 16}, fourFloats), "truncated"},
		{"deflated garbage", raw(zip.FileHeader{Method: zip.Deflate, CompressedSize64: 16, UncompressedSize64: 16}, fourFloats), "truncated"},
		{"deflated longer than stated", raw(zip.FileHeader{Method: zip.Deflate, CompressedSize64: 21, UncompressedSize64: 8},
			append([]byte{1, 16, 0, 0xef, 0xff}, fourFloats...)), "longer than stated"},
		{"other compression", raw(zip.FileHeader{Method: 12, CompressedSize64: 16, UncompressedSize64: 16}, fourFloats), "method 12"},
		{"encrypted", raw(zip.FileHeader{Flags: 1, CompressedSize64: 16, UncompressedSize64: 16}, fourFloats), "encrypted"},

		{"big-endian legacy", legacyOf(pickle, text("little_endian")+"\x89", 4), "little-endian"},
		{"legacy of an unknown machine", legacyOf(pickle, "", 4), "little-endian"},
		{"legacy of another version", bytes.Replace(legacyOf(pickle, littleEndian, 4), []byte("M\xe9\x03"), []byte("M\xe8\x03"), 1), "version 1000"},
		{"legacy states another length", legacyOf(pickle, littleEndian, 3), "stated as 3"},
		{"legacy states a negative length", legacyOf(pickle, littleEndian, -1), "stated as 18446744073709551615"},
		{"legacy lies twice", legacyOf(saved(view(1<<61, 0, ints(4), ints(1))), littleEndian, 1<<61), "in 16 bytes"},
		{"legacy lies negatively twice", legacyOf(saved(view(-1, 0, ints(4), ints(1))), littleEndian, -1), "in 16 bytes"},
		{"legacy lacks a storage", bytes.Replace(legacyOf(pickle, littleEndian, 4), []byte("("+text("0")+"e."), []byte("."), 1), "missing"},
		{"legacy repeats a storage", bytes.Replace(legacyOf(pickle, littleEndian, 4), []byte("("+text("0")+"e."), []byte("("+text("0")+text("0")+"e."), 1), "repeated"},
		{"legacy without a list of storages", bytes.Replace(legacyOf(pickle, littleEndian, 4), []byte("]("+text("0")+"e."), []byte("N."), 1), "no list"},
	} {
		t.Run(c.name, func(t *testing.T) { wantError(t, temporary(t, c.content), c.reason) })
	}
}

// TestTruncated cuts files of both formats at every byte: each must be refused with its path.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"zip.pth", "legacy.pth"} {
		content, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		path := temporary(t, content)
		for n := len(content) - 1; n >= 0; n-- {
			if err := os.Truncate(path, int64(n)); err != nil {
				t.Fatal(err)
			}
			wantError(t, path, "")
		}
	}
}

// TestFlipped changes every byte of files of both formats: each must be refused or give tensors within their bounds.
func TestFlipped(t *testing.T) {
	for _, name := range []string{"zip.pth", "legacy.pth", "nested_checkpoint.pth"} {
		content, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for i := range content {
			for _, flip := range []byte{1, 0x80, 0xff} {
				content[i] ^= flip
				parseAny(t, content)
				content[i] ^= flip
			}
		}
	}
}

// parseAny parses bytes of any origin, which must end in an error or in tensors within their bounds.
func parseAny(t *testing.T, content []byte) *File {
	t.Helper()
	f := &File{all: inMemory(content)}
	if err := f.parse(); err != nil {
		return nil
	}
	for _, stored := range f.Tensors {
		tensor := mustRead(t, stored)
		if got, want := len(tensor.Data), tensor.Len()*tensor.DType.Size(); got != want || tensor.DType.Size() == 0 || tensor.Name == "" {
			t.Errorf("%q of %s%v: got %d bytes, want %d", tensor.Name, tensor.DType, tensor.Shape, got, want)
		}
		if got, want := len(tensor.Float32()), tensor.Len(); got != want {
			t.Errorf("%q of %s%v: got %d floats, want %d", tensor.Name, tensor.DType, tensor.Shape, got, want)
		}
	}
	for _, r := range f.ResNets() {
		if name := r.Name("conv1.weight"); !f.has(name) || !r.Within(name) {
			t.Errorf("%s: got %q for its first convolution, which the file does not have", &r, name)
		}
	}
	f.Released()
	return f
}

// FuzzZip reads a checkpoint whose pickle, storage and zip entries' names are arbitrary bytes in a sound archive: changing an
// archive itself mostly ends at a checksum.
func FuzzZip(f *testing.F) {
	f.Add("x/data.pkl", "x/data/0", []byte(saved(view(4, 0, ints(2, 2), ints(1, 2)))), fourFloats, false)
	f.Add("data.pkl", "byteorder", []byte(saved("]")), []byte("big"), true)
	f.Fuzz(func(t *testing.T, first, second string, pickle, storage []byte, deflated bool) {
		if strings.HasSuffix(first, "/") || strings.HasSuffix(second, "/") {
			return // a folder, which the writer leaves empty
		}
		method := zip.Store
		if deflated {
			method = zip.Deflate
		}
		parseAny(t, zipped(t, entry{first, method, pickle}, entry{second, method, storage}))
	})
}

// FuzzPickle reads arbitrary bytes as a file, and as a checkpoint's pickle beside a storage.
func FuzzPickle(f *testing.F) {
	names, err := filepath.Glob("testdata/*.pth")
	if err != nil || len(names) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte(saved(view(4, 0, ints(2, 2), ints(1, 2)))))
	f.Fuzz(func(t *testing.T, content []byte) {
		parseAny(t, content)
		parseAny(t, legacyOf(string(content), littleEndian, 4))
	})
}
