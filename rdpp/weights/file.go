package weights

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/regular"
)

// WriteFile writes a safetensors file as [Write] does, with a digest in its metadata that [File.Verify] checks, and puts it at path
// as atomicfile.Write does.
func WriteFile(path string, metadata map[string]string, tensors []Source) error {
	return atomicfile.WriteFile(path, func(file *os.File) error { return writeDigested(file, metadata, tensors) })
}

// SHA256 returns the SHA-256 of a file's content as 64 lower-case hexadecimal digits.
func SHA256(path string) (string, error) {
	file, err := regular.Open(path)
	if err != nil {
		return "", fmt.Errorf("weights: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("weights: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
