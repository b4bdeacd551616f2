package weights

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Families of backbones.
const (
	FamilyResNet       = "ResNet"
	FamilyEfficientNet = "EfficientNet"
)

// Backbone is a network among a file's tensors that may serve as a teacher.
type Backbone struct {
	Family string // one of the above
	Naming string // whose names: "torchvision", or "transformers"
	Prefix string // before all its names
	Arch   string // torchvision's name of the architecture, "" where it has none
	network
}

// network is what its family knows.
type network interface {
	// Name is how the file names the tensor that torchvision calls by name.
	Name(name string) string
	// Within says whether a file's name belongs to what a teacher needs.
	Within(name string) bool
	// String says what the network is, such as "resnet18".
	String() string
}

// Backbones finds the ResNets and EfficientNets in a file, whatever stands before their names.
func (f *File) Backbones() (found []Backbone) {
	nets := f.ResNets()
	for i := range nets {
		r := &nets[i]
		found = append(found, Backbone{FamilyResNet, r.Naming, r.Prefix, r.Arch, r})
	}
	for _, e := range f.efficientNets() {
		found = append(found, Backbone{FamilyEfficientNet, "torchvision", e.prefix, e.arch(), &e})
	}
	return found
}

// efficientNet is an EfficientNet (Tan and Le, 2019) with torchvision's names.
type efficientNet struct {
	prefix string
	stem   int   // channels of features.0
	blocks []int // of features.1 and so on, as many stages as are there
}

// efficientNets finds them by their first convolution, ... x 3 x 3 x 3, and the squeeze-excitation of their first block, which the
// second version's first blocks have not.
func (f *File) efficientNets() (found []efficientNet) {
	for _, t := range f.Tensors {
		prefix, ok := strings.CutSuffix(t.Name, "features.0.0.weight")
		if !ok || prefix != "" && !strings.HasSuffix(prefix, ".") || len(t.Shape) != 4 || !slices.Equal(t.Shape[1:], []int{3, 3, 3}) ||
			!f.has(prefix+"features.1.0.block.1.fc1.weight") {
			continue
		}
		e := efficientNet{prefix: prefix, stem: t.Shape[0]}
		for stage := 1; ; stage++ {
			n := 0
			for f.has(e.Name(fmt.Sprintf("features.%d.%d.block.0.0.weight", stage, n))) {
				n++
			}
			if n == 0 {
				break
			}
			e.blocks = append(e.blocks, n)
		}
		found = append(found, e)
	}
	return found
}

// arch is torchvision's name of the architecture with that stem and those blocks, of which the last stage may be missing: the
// paper's Table 1, so many times as wide and as deep as in its released code.
func (e *efficientNet) arch() string {
	base := []int{1, 2, 2, 3, 3, 4, 1}
	if len(e.blocks) < len(base)-1 || len(e.blocks) > len(base) {
		return ""
	}
	for i, scale := range []struct{ width, depth float64 }{{1, 1}, {1, 1.1}, {1.1, 1.2}, {1.2, 1.4}, {1.4, 1.8}, {1.6, 2.2}, {1.8, 2.6}, {2, 3.1}} {
		wide := 32 * scale.width
		stem := max(8, int(wide+4)/8*8) // the nearest multiple of 8, but less by no more than a tenth
		if float64(stem) < 0.9*wide {
			stem += 8
		}
		var blocks []int
		for _, n := range base {
			blocks = append(blocks, int(math.Ceil(float64(n)*scale.depth)))
		}
		if e.stem == stem && slices.Equal(e.blocks, blocks[:len(e.blocks)]) {
			return fmt.Sprint("efficientnet_b", i)
		}
	}
	return ""
}

func (e *efficientNet) Name(name string) string { return e.prefix + name }

// Within is of features.0 to features.6.
func (e *efficientNet) Within(name string) bool {
	rest, ok := strings.CutPrefix(name, e.Name("features."))
	return ok && len(rest) > 1 && rest[0] >= '0' && rest[0] <= '6' && rest[1] == '.'
}

func (e *efficientNet) String() string {
	if arch := e.arch(); arch != "" {
		return arch
	}
	return fmt.Sprintf("EfficientNet of %v blocks", e.blocks)
}
