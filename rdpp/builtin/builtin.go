// Package builtin holds the teachers that come with the program: trained on drawn pictures (package pattern) by
// `train teacher`, with no photograph and no other weights. make.sh is the command that made them.
package builtin

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"rdpp/rdpp/weights"
)

//go:embed resnet18.safetensors
var resnet18 []byte

var files = map[string][]byte{"resnet18": resnet18}

// Architectures lists those that there is a teacher for.
func Architectures() []string { return slices.Sorted(maps.Keys(files)) }

// Has says whether there is a teacher for the architecture.
func Has(arch string) bool { return files[arch] != nil }

// Open opens the teacher for the architecture: conv1 to layer3 under torchvision's names. digest is the SHA-256 of the
// file, in hexadecimal.
func Open(arch string) (file *weights.File, digest string, err error) {
	data := files[arch]
	if data == nil {
		return nil, "", fmt.Errorf("builtin: no teacher for %s, only for %s", arch, strings.Join(Architectures(), ", "))
	}
	sum := sha256.Sum256(data)
	file, err = weights.ParseSafetensors("builtin:"+arch+".safetensors", data)
	return file, hex.EncodeToString(sum[:]), err
}
