package weights

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
)

// The entries of the metadata that make damage known. The digest is the SHA-256 of the whole file in which its own digits are
// zeros; the other entry says so. One without the other is damage too. They tell what has happened to a file by chance: who
// changes a file on purpose can write another digest.
const (
	DigestKey   = "rdpp_sha256"
	DigestOfKey = "rdpp_sha256_of"
	digestOf    = "this file, with the 64 digits of rdpp_sha256 as zeros"
)

// digestBegin is what stands before the digits in the header. Within names and texts its quotes would be escaped.
const digestBegin = `"` + DigestKey + `":"`

var zeroDigits = strings.Repeat("0", hex.EncodedLen(sha256.Size))

// ErrDigest is wrapped by the errors of Verify about a file that is not as it was written.
var ErrDigest = errors.New("it is damaged, or was changed after it was written")

// withDigest is metadata with the entries of a digest, whose digits are zeros.
func withDigest(metadata map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, metadata)
	all[DigestKey], all[DigestOfKey] = zeroDigits, digestOf
	return all
}

// writeDigested writes a safetensors file with its digest, which takes the place of the zeros when all else is written.
func writeDigested(file *os.File, metadata map[string]string, tensors []Source) error {
	header, sizes, err := marshalHeader(withDigest(metadata), tensors)
	if err != nil {
		return fmt.Errorf("weights: writing safetensors: %w", err)
	}
	hash := sha256.New()
	buffer := bufio.NewWriterSize(file, 1<<16)
	if err := writeBehind(io.MultiWriter(buffer, hash), header, sizes, tensors); err != nil {
		return err
	}
	if err := buffer.Flush(); err != nil {
		return err
	}
	at := bytes.Index(header, []byte(digestBegin)) + len(digestBegin)
	_, err = file.WriteAt(hex.AppendEncode(nil, hash.Sum(nil)), int64(at))
	return err
}

// Digest is the SHA-256 of the file's content that [WriteFile] has stored in it, as 64 hexadecimal digits; "" in a file of another
// origin, or of a version that stored none.
func (f *File) Digest() string { return f.Metadata[DigestKey] }

// Verify reads the whole file and holds it against its digest, where it has one. What differs is [ErrDigest].
func (f *File) Verify() error {
	digest, has := f.Metadata[DigestKey]
	of, says := f.Metadata[DigestOfKey]
	if !has && !says {
		return nil
	}
	incomplete := fmt.Errorf("weights: %s: its digest is incomplete: %w", f.Path, ErrDigest)
	if of != digestOf || len(digest) != len(zeroDigits) || len(f.data) < 8 {
		return incomplete
	}
	hash := sha256.New()
	err := guard(func() error {
		header := f.data[:8+binary.LittleEndian.Uint64(f.data)] // which has been parsed
		before, _, found := bytes.Cut(header, []byte(digestBegin+digest))
		if !found {
			return incomplete
		}
		at := len(before) + len(digestBegin)
		hash.Write(f.data[:at])
		io.WriteString(hash, zeroDigits)
		hash.Write(f.data[at+len(digest):])
		return nil
	})
	if err == incomplete {
		return err
	}
	if err != nil {
		return fmt.Errorf("weights: %s: %w", f.Path, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return fmt.Errorf("weights: %s: its SHA-256 is %.8s..., it was written with %.8s...: %w", f.Path, got, digest, ErrDigest)
	}
	return nil
}
