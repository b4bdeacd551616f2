// Package builtin holds the teachers that come with the program, and the notices that go with them. One has learned from
// ImageNet's photographs, elsewhere; make_imagenet.sh says how its file was made. The other one was trained on drawn
// pictures (package pattern) by `train teacher`, with no photograph and no other weights; make_drawn.sh is the command.
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

// What a teacher has learned from.
const (
	ImageNet = "imagenet" // ImageNet's photographs
	Drawn    = "drawn"    // drawn pictures
)

//go:embed resnet18-imagenet.safetensors
var imagenet18 []byte

//go:embed resnet18-drawn.safetensors
var drawn18 []byte

// Notice is the repository's NOTICE: where the weights come from, and their licences.
//
//go:embed NOTICE
var Notice string

var files = map[string]map[string][]byte{
	ImageNet: {"resnet18": imagenet18},
	Drawn:    {"resnet18": drawn18},
}

// Architectures lists those that there is a teacher for that has learned from that.
func Architectures(from string) []string { return slices.Sorted(maps.Keys(files[from])) }

// Has says whether there is such a teacher for the architecture.
func Has(from, arch string) bool { return files[from][arch] != nil }

// Open opens such a teacher for the architecture: conv1 to layer3 under torchvision's names. digest is the SHA-256 of the
// file, in hexadecimal.
func Open(from, arch string) (file *weights.File, digest string, err error) {
	data := files[from][arch]
	if data == nil {
		return nil, "", fmt.Errorf("builtin: no %s teacher for %s, only for %s", from, arch, strings.Join(Architectures(from), ", "))
	}
	sum := sha256.Sum256(data)
	file, err = weights.ParseSafetensors("builtin:"+arch+"-"+from+".safetensors", data)
	return file, hex.EncodeToString(sum[:]), err
}
