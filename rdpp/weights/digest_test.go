package weights

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// digested is a small file with a digest.
func digested(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "w.safetensors")
	metadata := map[string]string{"format": "pt", "zz": `with "rdpp_sha256":"quotes"`}
	if err := WriteFile(path, metadata, []Source{source("a", F32, 3), source("b.running_var", F16, 2, 2), source("c", I64, 0)}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The digest is what its description says, and the file is otherwise as Write writes it.
func TestDigest(t *testing.T) {
	data := digested(t)
	f, err := ParseSafetensors("w", data)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(); err != nil {
		t.Error(err)
	}
	zeroed := bytes.Replace(data, []byte(f.Digest()), []byte(strings.Repeat("0", 64)), 1)
	if sum := sha256.Sum256(zeroed); f.Digest() != hex.EncodeToString(sum[:]) {
		t.Errorf("got the digest %s, want %x", f.Digest(), sum)
	}
	if got := f.Metadata[DigestOfKey]; got != "this file, with the 64 digits of rdpp_sha256 as zeros" {
		t.Errorf("got the description %q", got)
	}
	if size, err := Size(map[string]string{"format": "pt", "zz": f.Metadata["zz"]}, []Source{source("a", F32, 3), source("b.running_var", F16, 2, 2),
		source("c", I64, 0)}); size != int64(len(data)) || err != nil {
		t.Errorf("got the size %d and %v, want %d", size, err, len(data))
	}
	// What is read and written again has a digest of its own, and one that was there before does not matter.
	path := filepath.Join(t.TempDir(), "again.safetensors")
	if err := WriteFile(path, maps.Clone(f.Metadata), []Source{source("other", F32, 3)}); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Verify(); err != nil || again.Digest() == f.Digest() {
		t.Errorf("got the digest %s and %v, want another one", again.Digest(), err)
	}
}

// Without a digest there is nothing to hold a file against.
func TestNoDigest(t *testing.T) {
	var plain bytes.Buffer
	if err := Write(&plain, map[string]string{"format": "pt"}, []Source{source("a", F32, 3)}); err != nil {
		t.Fatal(err)
	}
	f, err := ParseSafetensors("w", plain.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(); err != nil || f.Digest() != "" {
		t.Errorf("got the digest %q and %v, want none and no error", f.Digest(), err)
	}
}

// No bit of a file can change, and no byte can be lost or added, without an error.
func TestDamage(t *testing.T) {
	whole := digested(t)
	check := func(what string, data []byte, args ...any) {
		t.Helper()
		f, err := ParseSafetensors("w", data)
		if err == nil {
			err = f.Verify()
			if !errors.Is(err, ErrDigest) {
				t.Errorf(what+": got %v, want %v", append(args, err, ErrDigest)...)
			}
		}
	}
	for i := range whole {
		for bit := range 8 {
			data := bytes.Clone(whole)
			data[i] ^= 1 << bit
			check("bit %d of byte %d", data, bit, i)
		}
	}
	for n := range whole {
		check("cut to %d bytes", whole[:n], n)
	}
	for _, more := range []string{"\x00", "more bytes"} {
		check("with %q behind", append(bytes.Clone(whole), more...), more)
	}
	check("tensors swapped", bytes.Replace(whole, []byte(`"a":`), []byte(`"d":`), 1))
}
