package weights

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
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

// Verify reads the whole file and holds it against its digest, where it has one. What differs is [ErrDigest]. From then on its
// tensors are known by check sums, so that none is read that is not as the digest was computed of.
func (f *File) Verify() error {
	if err := f.verify(); err != nil {
		return fmt.Errorf("weights: %s: %w", f.Path, err)
	}
	return nil
}

func (f *File) verify() error {
	digest, has := f.Metadata[DigestKey]
	of, says := f.Metadata[DigestOfKey]
	if !has && !says {
		return nil
	}
	before, after, found := bytes.Cut(f.header, []byte(digestBegin+digest))
	if !found || of != digestOf || len(digest) != len(zeroDigits) {
		return fmt.Errorf("its digest is incomplete: %w", ErrDigest)
	}
	hash := sha256.New()
	hash.Write(before)
	io.WriteString(hash, digestBegin+zeroDigits)
	hash.Write(after)
	sums := make([]uint32, len(f.Tensors))
	for i, t := range f.Tensors { // which follow each other without a gap
		sum := crc32.New(castagnoli)
		if err := t.content.writeTo(io.MultiWriter(hash, sum)); err != nil {
			return f.settle(err)
		}
		sums[i] = sum.Sum32()
	}
	if err := f.settle(nil); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return fmt.Errorf("its SHA-256 is %.8s..., it was written with %.8s...: %w", got, digest, ErrDigest)
	}
	for i := range f.Tensors {
		f.Tensors[i].sum = &sums[i]
	}
	return nil
}

// SHA256 returns the SHA-256 of the whole file as 64 lower-case hexadecimal digits.
func (f *File) SHA256() (string, error) {
	hash := sha256.New()
	if err := f.settle(f.all.writeTo(hash)); err != nil {
		return "", fmt.Errorf("weights: %s: %w", f.Path, err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// Content returns the SHA-256 of an entry of the metadata and of the tensors, as 64 hexadecimal digits: of the entry, and of the
// name, type, shape and bytes of each tensor in file order, texts and shapes behind their lengths. Other entries leave it as it is.
func (f *File) Content(entry string) (string, error) {
	hash := sha256.New()
	text := func(s string) { fmt.Fprintf(hash, "%d:%s", len(s), s) }
	text(f.Metadata[entry])
	for _, t := range f.Tensors {
		text(t.Name)
		text(t.DType.String())
		text(fmt.Sprint(t.Shape))
		if err := f.settle(t.content.writeTo(hash)); err != nil {
			return "", fmt.Errorf("weights: %s: %w", f.Path, err)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
