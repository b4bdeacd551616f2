package weights

import (
	"fmt"
	"slices"
	"strings"
)

// ResNet is a ResNet among a file's tensors.
type ResNet struct {
	Naming string // whose names: "torchvision", which are timm's too, or "transformers"
	Prefix string // before all its names, such as "module."
	Arch   string // torchvision's name of the architecture, "" where it has none
	Blocks []int  // residual blocks of layer1, layer2 and so on, as many layers as are there

	names *strings.Replacer
}

// namings are the ways in which a ResNet's tensors are named, one to one. Torchvision's are ours; a pair is ours and theirs.
var namings = []struct {
	name  string
	pairs []string
}{
	{"torchvision", nil},
	{"transformers", []string{
		"layer1.", "encoder.stages.0.layers.", "layer2.", "encoder.stages.1.layers.",
		"layer3.", "encoder.stages.2.layers.", "layer4.", "encoder.stages.3.layers.",
		".conv1.", ".layer.0.convolution.", ".conv2.", ".layer.1.convolution.", ".conv3.", ".layer.2.convolution.",
		".bn1.", ".layer.0.normalization.", ".bn2.", ".layer.1.normalization.", ".bn3.", ".layer.2.normalization.",
		".downsample.0.", ".shortcut.convolution.", ".downsample.1.", ".shortcut.normalization.",
		"conv1.", "embedder.embedder.convolution.", "bn1.", "embedder.embedder.normalization.",
	}},
}

// architectures are torchvision's ResNets.
var architectures = []struct {
	name   string
	blocks []int
	shape  blockShape
}{
	{"resnet18", []int{2, 2, 2, 2}, blockShape{width: 64, group: 64}},
	{"resnet34", []int{3, 4, 6, 3}, blockShape{width: 64, group: 64}},
	{"resnet50", []int{3, 4, 6, 3}, blockShape{true, 64, 64}},
	{"resnet101", []int{3, 4, 23, 3}, blockShape{true, 64, 64}},
	{"resnet152", []int{3, 8, 36, 3}, blockShape{true, 64, 64}},
	{"wide_resnet50_2", []int{3, 4, 6, 3}, blockShape{true, 128, 128}},
	{"wide_resnet101_2", []int{3, 4, 23, 3}, blockShape{true, 128, 128}},
	{"resnext50_32x4d", []int{3, 4, 6, 3}, blockShape{true, 128, 4}},
	{"resnext101_32x8d", []int{3, 4, 23, 3}, blockShape{true, 256, 8}},
	{"resnext101_64x4d", []int{3, 4, 23, 3}, blockShape{true, 256, 4}},
}

// blockShape tells residual blocks of the same place apart.
type blockShape struct {
	bottleneck   bool // three convolutions instead of two
	width, group int  // channels that the 3x3 convolution puts out, and takes in for each
}

// ResNets finds the ResNets in a file by their first convolution, 64 x 3 x 7 x 7, and their first block, whatever stands before
// their names.
func (f *File) ResNets() []ResNet {
	var found []ResNet
	for _, naming := range namings {
		names := strings.NewReplacer(naming.pairs...)
		for _, t := range f.Tensors {
			prefix, ok := strings.CutSuffix(t.Name, names.Replace("conv1.weight"))
			if !ok || prefix != "" && !strings.HasSuffix(prefix, ".") || !slices.Equal(t.Shape, []int{64, 3, 7, 7}) {
				continue
			}
			r := ResNet{Naming: naming.name, Prefix: prefix, names: names}
			if r.describe(f); len(r.Blocks) > 0 {
				found = append(found, r)
			}
		}
	}
	return found
}

// describe counts the blocks and names the architecture.
func (r *ResNet) describe(f *File) {
	for layer := 1; ; layer++ {
		n := 0
		for f.has(r.Name(fmt.Sprintf("layer%d.%d.conv1.weight", layer, n))) {
			n++
		}
		if n == 0 {
			break
		}
		r.Blocks = append(r.Blocks, n)
	}
	second, _ := f.Lookup(r.Name("layer1.0.conv2.weight"))
	if len(second.Shape) == 4 {
		shape := blockShape{f.has(r.Name("layer1.0.conv3.weight")), second.Shape[0], second.Shape[1]}
		r.Arch = architectureOf(r.Blocks, shape)
	}
}

// architectureOf names the architecture with these blocks; the last of its layers may be missing.
func architectureOf(blocks []int, shape blockShape) string {
	for _, a := range architectures {
		if len(blocks) >= 3 && len(blocks) <= 4 && slices.Equal(blocks, a.blocks[:len(blocks)]) && shape == a.shape {
			return a.name
		}
	}
	return ""
}

// Architecture is torchvision's name of a ResNet without groups: blocks are those of layer1, layer2 and so on, bottleneck says that
// they have three convolutions, width is the channels that those of the first block but the last put out. "" is none.
func Architecture(blocks []int, bottleneck bool, width int) string {
	return architectureOf(blocks, blockShape{bottleneck, width, width})
}

// Name is how the file names the tensor that torchvision calls by name, such as "layer1.0.bn1.weight".
func (r *ResNet) Name(name string) string { return r.Prefix + r.names.Replace(name) }

// Within says whether a file's name belongs to the ResNet's first convolution or its layers 1 to 3, which a teacher needs.
func (r *ResNet) Within(name string) bool {
	for _, part := range []string{"conv1.", "bn1.", "layer1.", "layer2.", "layer3."} {
		if strings.HasPrefix(name, r.Name(part)) {
			return true
		}
	}
	return false
}

// String says what the ResNet is, such as "resnet18".
func (r *ResNet) String() string {
	if r.Arch != "" {
		return r.Arch
	}
	return fmt.Sprintf("ResNet of %v blocks", r.Blocks)
}

// Released is a checkpoint as the code of RD++ and RD saves it: {"proj": ..., "bn": ..., "decoder": ...}, without the teacher.
type Released struct {
	Arch       string // torchvision's name of the teacher's architecture, "" where it is none of theirs
	Projection bool   // there is one, so it is of RD++
	parallel   map[string]bool
}

// releasedParts are the parts' names.
var releasedParts = []string{"proj", "bn", "decoder"}

// Released recognises such a checkpoint, in safetensors by the same names. ok is false where bn or decoder is missing.
func (f *File) Released() (r Released, ok bool) {
	r.parallel = map[string]bool{}
	for part, first := range map[string]string{"proj": "proj_a.proj.0.weight", "bn": "conv1.weight", "decoder": "layer1.0.conv1.weight"} {
		r.parallel[part] = f.has(part + ".module." + first)
		if there := r.parallel[part] || f.has(part+"."+first); there && part == "proj" {
			r.Projection = true
		} else if !there && part != "proj" {
			return Released{}, false
		}
	}
	var blocks []int
	for layer := 1; layer <= 3; layer++ {
		n := 0
		for f.has(r.Name("decoder", fmt.Sprintf("layer%d.%d.conv1.weight", layer, n))) {
			n++
		}
		blocks = append(blocks, n)
	}
	// The student's first layer has four times the planes of a ResNet's first one.
	if t, _ := f.Lookup(r.Name("decoder", "layer1.1.conv2.weight")); len(t.Shape) == 4 {
		r.Arch = architectureOf(blocks, blockShape{f.has(r.Name("decoder", "layer1.0.conv3.weight")), t.Shape[0] / 4, t.Shape[1] / 4})
	}
	return r, true
}

// Name is how the file names a tensor of a part, which may have been saved as DataParallel.
func (r *Released) Name(part, name string) string {
	if r.parallel[part] {
		return part + ".module." + name
	}
	return part + "." + name
}

// Within says whether a file's name belongs to one of the parts.
func (r *Released) Within(name string) bool {
	part, _, _ := strings.Cut(name, ".")
	return slices.Contains(releasedParts, part)
}

// String says what the checkpoint is of.
func (r *Released) String() string {
	method := "RD"
	if r.Projection {
		method = "RD++"
	}
	if r.Arch == "" {
		return method + " of an unknown architecture"
	}
	return method + " of " + r.Arch
}

func (f *File) has(name string) bool {
	_, ok := f.index[name]
	return ok
}
