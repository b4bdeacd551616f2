package weights

import (
	"fmt"
	"testing"
)

// efficientNetShapes are what an EfficientNet of torchvision's names is recognised by.
func efficientNetShapes(prefix string, stem int, blocks ...int) map[string][]int {
	shapes := map[string][]int{prefix + "features.0.0.weight": {stem, 3, 3, 3}, prefix + "features.1.0.block.1.fc1.weight": {8, 24, 1, 1}}
	for stage, n := range blocks {
		for i := range n {
			shapes[fmt.Sprintf("%sfeatures.%d.%d.block.0.0.weight", prefix, stage+1, i)] = []int{24, 1, 3, 3}
		}
	}
	return shapes
}

func TestEfficientNets(t *testing.T) {
	for _, c := range []struct {
		want, prefix string
		shapes       map[string][]int
	}{
		{"efficientnet_b0", "", efficientNetShapes("", 32, 1, 2, 2, 3, 3, 4, 1)},
		{"efficientnet_b1", "", efficientNetShapes("", 32, 2, 3, 3, 4, 4, 5, 2)},
		{"efficientnet_b4", "", efficientNetShapes("", 48, 2, 4, 4, 6, 6, 8, 2)},
		{"efficientnet_b5", "", efficientNetShapes("", 48, 3, 5, 5, 7, 7, 9, 3)},
		{"efficientnet_b5", "encoder.", efficientNetShapes("encoder.", 48, 3, 5, 5, 7, 7, 9)}, // to features.6
		{"efficientnet_b7", "module.", efficientNetShapes("module.", 64, 4, 7, 7, 10, 10, 13, 4)},
		{"EfficientNet of [1 2] blocks", "", efficientNetShapes("", 32, 1, 2)},
		{"EfficientNet of [3 5 5 7 7 9 3] blocks", "", efficientNetShapes("", 40, 3, 5, 5, 7, 7, 9, 3)},
	} {
		nets := fileWith(t, c.shapes).Backbones()
		if len(nets) != 1 || nets[0].String() != c.want || nets[0].Family != FamilyEfficientNet || nets[0].Prefix != c.prefix {
			t.Errorf("got %v, want one %s behind %q", nets, c.want, c.prefix)
			continue
		}
		for name, want := range map[string]bool{"features.0.1.bias": true, "features.6.8.block.3.1.weight": true, "features.7.0.block.0.0.weight": false,
			"features.8.0.weight": false, "features.60.0.weight": false, "features.6": false, "classifier.1.weight": false} {
			if got := nets[0].Within(nets[0].Name(name)); got != want {
				t.Errorf("%s, %s: got %v, want %v", c.want, name, got, want)
			}
		}
	}
	second := efficientNetShapes("", 24, 2, 4, 4, 6, 9, 15)
	delete(second, "features.1.0.block.1.fc1.weight")
	for what, shapes := range map[string]map[string][]int{"the second version": second, "a longer word": efficientNetShapes("my_", 48, 3, 5, 5, 7, 7, 9), "nothing": {}} {
		if got := fileWith(t, shapes).Backbones(); len(got) != 0 {
			t.Errorf("%s: got %v, want none", what, got)
		}
	}
	both := resnet("a.", 64, 64, 64, false, 2, 2, 2, 2)
	for name, shape := range efficientNetShapes("b.", 48, 3, 5, 5, 7, 7, 9) {
		both[name] = shape
	}
	if got := fileWith(t, both).Backbones(); len(got) != 2 || got[0].Arch != "resnet18" || got[1].Arch != "efficientnet_b5" {
		t.Errorf("two networks: got %v, want resnet18 and efficientnet_b5", got)
	}
}
