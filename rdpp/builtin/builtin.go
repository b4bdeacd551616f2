// Package builtin holds the teachers that come with the program: trained on drawn pictures (package pattern) by
// `train teacher`, with no photograph and no other weights. make.sh is the command that made them.
package builtin

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"

	"rdpp/rdpp/weights"
)

//go:embed resnet18.safetensors
var resnet18 []byte

// Has says whether there is a teacher for the architecture.
func Has(arch string) bool { return arch == "resnet18" }

// Open opens the teacher for the architecture: conv1 to layer3 under torchvision's names. digest is the SHA-256 of the
// file, in hexadecimal.
func Open(arch string) (file *weights.File, digest string, err error) {
	if !Has(arch) {
		return nil, "", fmt.Errorf("builtin: no teacher for %s, only for resnet18", arch)
	}
	sum := sha256.Sum256(resnet18)
	file, err = weights.ParseSafetensors("builtin:resnet18.safetensors", resnet18)
	return file, hex.EncodeToString(sum[:]), err
}
