package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rdpp/rdpp/testmain"
)

func TestWriteFileFails(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "w.safetensors")
	if err := WriteFile(path, nil, []Source{source("w", F32, 2)}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	short := Source{"w", F32, []int{1 << 20}, func() ([]byte, error) { return make([]byte, 4), nil }}
	if err := WriteFile(path, nil, []Source{source("v", F32, 1<<16), short}); err == nil {
		t.Error("a tensor of too few bytes: got no error")
	}
	testmain.WantContent(t, path, string(before))
	testmain.WantFiles(t, folder, "w.safetensors")
}

func TestSHA256(t *testing.T) {
	// FIPS 180-2, example B.1.
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if got, err := SHA256(temporary(t, []byte("abc"))); got != want || err != nil {
		t.Errorf("got %s and error %v, want %s", got, err, want)
	}
	if _, err := SHA256(t.TempDir()); err == nil || !strings.HasPrefix(err.Error(), "weights: ") {
		t.Errorf("of a folder: got error %v, want one from weights", err)
	}
	if _, err := SHA256("testdata/missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a missing file: got error %v, want %v", err, os.ErrNotExist)
	}
}

func TestOpenOddFiles(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, pipe, "not a regular file")
	wantError(t, t.TempDir(), "not a regular file")
	wantError(t, "/dev/zero", "not a regular file")
	wantError(t, "testdata/missing.pth", "no such file")
}

func TestClose(t *testing.T) {
	f, err := Open("testdata/zip.pth")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, ok := f.Lookup("double"); ok || len(f.Tensors) != 0 {
		t.Error("got tensors from a closed file")
	}
}

func TestHalf(t *testing.T) {
	for _, c := range []struct {
		bits uint16
		want float64
	}{
		{0x0000, 0}, {0x8000, math.Copysign(0, -1)}, {0x0001, 0x1p-24}, {0x83ff, -1023 * 0x1p-24}, {0x0400, 0x1p-14},
		{0x3c00, 1}, {0xc000, -2}, {0x7bff, 65504}, {0x7c00, math.Inf(1)}, {0xfc00, math.Inf(-1)}, {0x3555, 0x1.554p-2},
	} {
		tensor := Tensor{DType: F16, Shape: []int{1}, Data: []byte{byte(c.bits), byte(c.bits >> 8)}}
		if got := tensor.Float64()[0]; math.Float64bits(got) != math.Float64bits(c.want) {
			t.Errorf("%#04x: got %v, want %v", c.bits, got, c.want)
		}
	}
	nan := Tensor{DType: F16, Shape: []int{1}, Data: []byte{1, 0x7c}}
	if got := nan.Float32()[0]; !math.IsNaN(float64(got)) {
		t.Errorf("0x7c01: got %v, want NaN", got)
	}
}

// Every half-precision number comes back, and others become the nearest.
func TestAppendFloat16(t *testing.T) {
	for bits := range 1 << 16 {
		tensor := Tensor{DType: F16, Shape: []int{1}, Data: []byte{byte(bits), byte(bits >> 8)}}
		values := tensor.Float32()
		got := AppendFloat16(nil, values)
		if back := (Tensor{DType: F16, Shape: []int{1}, Data: got}).Float32()[0]; math.IsNaN(float64(values[0])) {
			if !math.IsNaN(float64(back)) {
				t.Errorf("%#04x: got %v, want NaN", bits, back)
			}
		} else if !bytes.Equal(got, tensor.Data) {
			t.Errorf("%#04x: got %x, want %x", bits, got, tensor.Data)
		}
	}
	for _, c := range []struct {
		value float32
		want  uint16
	}{
		{1 + 0x1p-11, 0x3c00}, {1 + 0x1.8p-10, 0x3c02}, {1 + 0x1p-11 + 0x1p-23, 0x3c01}, {-1 - 0x1p-11, 0xbc00}, // halfway is to even
		{0x1p-25, 0}, {0x1.000002p-25, 1}, {0x1.8p-24, 2}, {-0x1p-30, 0x8000}, {1e-40, 0}, // small ones
		{0x1p-14 - 0x1p-26, 0x0400}, {65504, 0x7bff}, {65519.996, 0x7bff}, {65520, 0x7c00}, {-1e9, 0xfc00},
	} {
		if got := AppendFloat16([]byte{7}, []float32{c.value}); len(got) != 3 || got[0] != 7 || binary.LittleEndian.Uint16(got[1:]) != c.want {
			t.Errorf("%v: got %x behind 7, want %#04x", c.value, got, c.want)
		}
	}
	if got := AppendFloat32([]byte{7}, []float32{1, -2}); !bytes.Equal(got, []byte{7, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}) {
		t.Errorf("float32: got %x", got)
	}
}

func TestDType(t *testing.T) {
	for d := F16; d <= Bool; d++ {
		if got := dtypeNamed(d.String()); got != d || d.Size() == 0 {
			t.Errorf("%s: got %d of %d bytes, want %d", d, got, d.Size(), d)
		}
	}
	for _, d := range []DType{0, Bool + 1, 255} {
		if got := fmt.Sprint(d.Size(), d); got != fmt.Sprintf("0 DType(%d)", uint8(d)) {
			t.Errorf("got %q for no type", got)
		}
	}
	if got := (Tensor{Data: []byte{1, 2}}).Float32(); got != nil {
		t.Errorf("got %v of no type, want nil", got)
	}
}

// BenchmarkOpen opens and converts a file of 64 MiB.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "w.safetensors")
	data := make([]byte, 64<<20)
	source := Source{"w", F32, []int{16 << 20}, func() ([]byte, error) { return data, nil }}
	if err := WriteFile(path, nil, []Source{source}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		stored, err := f.Tensors[0].Read()
		if got := len(stored.Float32()); got != 16<<20 || err != nil {
			b.Fatal(got, err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
