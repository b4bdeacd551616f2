package weights

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// fileWith is a file of tensors without contents.
func fileWith(t *testing.T, shapes map[string][]int) *File {
	t.Helper()
	f := &File{}
	for name, shape := range shapes {
		if err := f.add(Stored{Name: name, DType: F32, Shape: shape}); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// resnet lists some of a ResNet's tensors, by torchvision's names behind a prefix; planes are those of its first layer.
func resnet(prefix string, planes, width, group int, bottleneck bool, blocks ...int) map[string][]int {
	shapes := map[string][]int{prefix + "conv1.weight": {64, 3, 7, 7}, prefix + "bn1.weight": {64}}
	for layer, n := range blocks {
		for block := range n {
			name := fmt.Sprintf("%slayer%d.%d.", prefix, layer+1, block)
			shapes[name+"conv1.weight"] = []int{width, planes, 1, 1}
			shapes[name+"conv2.weight"] = []int{width, group, 3, 3}
			if bottleneck {
				shapes[name+"conv3.weight"] = []int{4 * planes, width, 1, 1}
			}
		}
	}
	return shapes
}

func TestArchitecture(t *testing.T) {
	for _, c := range []struct {
		blocks     []int
		bottleneck bool
		width      int
		want       string
	}{
		{[]int{2, 2, 2}, false, 64, "resnet18"}, {[]int{3, 4, 6, 3}, true, 64, "resnet50"}, {[]int{3, 4, 6}, true, 128, "wide_resnet50_2"},
		{[]int{2, 2}, false, 64, ""}, {[]int{2, 2, 2}, true, 64, ""}, {[]int{2, 2, 2}, false, 32, ""},
	} {
		if got := Architecture(c.blocks, c.bottleneck, c.width); got != c.want {
			t.Errorf("%v, %v, %d: got %q, want %q", c.blocks, c.bottleneck, c.width, got, c.want)
		}
	}
}

func TestResNets(t *testing.T) {
	for _, c := range []struct {
		want   string
		shapes map[string][]int
	}{
		{"resnet18", resnet("", 64, 64, 64, false, 2, 2, 2, 2)},
		{"resnet18", resnet("encoder.", 64, 64, 64, false, 2, 2, 2)}, // to layer3
		{"resnet34", resnet("module.", 64, 64, 64, false, 3, 4, 6, 3)},
		{"resnet50", resnet("a.b.", 64, 64, 64, true, 3, 4, 6, 3)},
		{"resnet101", resnet("", 64, 64, 64, true, 3, 4, 23, 3)},
		{"resnet152", resnet("", 64, 64, 64, true, 3, 8, 36, 3)},
		{"wide_resnet50_2", resnet("", 64, 128, 128, true, 3, 4, 6, 3)},
		{"wide_resnet101_2", resnet("", 64, 128, 128, true, 3, 4, 23, 3)},
		{"resnext50_32x4d", resnet("", 64, 128, 4, true, 3, 4, 6, 3)},
		{"resnext101_32x8d", resnet("", 64, 256, 8, true, 3, 4, 23, 3)},
		{"resnext101_64x4d", resnet("", 64, 256, 4, true, 3, 4, 23, 3)},
		{"ResNet of [3 4 6 2] blocks", resnet("", 64, 64, 64, true, 3, 4, 6, 2)},
		{"ResNet of [2 2] blocks", resnet("", 64, 64, 64, false, 2, 2)},
		{"ResNet of [2 2 2 2] blocks", resnet("", 64, 32, 64, false, 2, 2, 2, 2)},
	} {
		nets := fileWith(t, c.shapes).ResNets()
		if len(nets) != 1 || nets[0].String() != c.want || nets[0].Naming != "torchvision" {
			t.Errorf("got %v, want one %s", nets, c.want)
			continue
		}
		if name := nets[0].Name("conv1.weight"); c.shapes[name] == nil || !nets[0].Within(name) {
			t.Errorf("%s: got %q for conv1.weight, want the file's name for it", c.want, name)
		}
	}
	for name, shapes := range map[string]map[string][]int{
		"no layers":       {"conv1.weight": {64, 3, 7, 7}},
		"another stem":    {"conv1.weight": {64, 3, 3, 3}, "layer1.0.conv1.weight": {64, 64, 3, 3}},
		"a longer word":   {"my_conv1.weight": {64, 3, 7, 7}, "my_layer1.0.conv1.weight": {64, 64, 3, 3}},
		"nothing":         {},
		"deep stem":       {"conv1.0.weight": {32, 3, 3, 3}, "layer1.0.conv1.weight": {64, 64, 1, 1}},
		"only the second": {"layer1.0.conv2.weight": {64, 64, 3, 3}},
	} {
		if got := fileWith(t, shapes).ResNets(); len(got) != 0 {
			t.Errorf("%s: got %v, want none", name, got)
		}
	}
}

// Names of transformers' ResNetForImageClassification.
func TestTransformersNames(t *testing.T) {
	const first = "resnet.encoder.stages.0.layers.0.layer."
	f := fileWith(t, map[string][]int{
		"resnet.embedder.embedder.convolution.weight": {64, 3, 7, 7},
		first + "0.convolution.weight":                {64, 64, 1, 1},
		first + "1.convolution.weight":                {64, 64, 3, 3},
		first + "2.convolution.weight":                {256, 64, 1, 1},
	})
	nets := f.ResNets()
	if len(nets) != 1 || nets[0].Naming != "transformers" || nets[0].Prefix != "resnet." {
		t.Fatalf("got %v, want one with the names of transformers", nets)
	}
	for ours, want := range map[string]string{
		"conv1.weight":                     "resnet.embedder.embedder.convolution.weight",
		"bn1.running_mean":                 "resnet.embedder.embedder.normalization.running_mean",
		"layer1.0.conv1.weight":            "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
		"layer2.3.bn1.bias":                "resnet.encoder.stages.1.layers.3.layer.0.normalization.bias",
		"layer3.5.conv3.weight":            "resnet.encoder.stages.2.layers.5.layer.2.convolution.weight",
		"layer3.11.bn3.running_var":        "resnet.encoder.stages.2.layers.11.layer.2.normalization.running_var",
		"layer4.0.downsample.0.weight":     "resnet.encoder.stages.3.layers.0.shortcut.convolution.weight",
		"layer1.0.downsample.1.weight":     "resnet.encoder.stages.0.layers.0.shortcut.normalization.weight",
		"layer2.0.bn2.num_batches_tracked": "resnet.encoder.stages.1.layers.0.layer.1.normalization.num_batches_tracked",
	} {
		if got := nets[0].Name(ours); got != want {
			t.Errorf("%s: got %s, want %s", ours, got, want)
		}
	}
	for name, want := range map[string]bool{
		"resnet.encoder.stages.2.layers.0.se.weight": true,
		"resnet.encoder.stages.3.layers.0.se.weight": false,
		"classifier.1.weight":                        false,
	} {
		if got := nets[0].Within(name); got != want {
			t.Errorf("%s: got within %v, want %v", name, got, want)
		}
	}
}

// student lists some tensors of a student.
func student(prefix string, width int, bottleneck bool, blocks ...int) map[string][]int {
	shapes := resnet(prefix, 256, width, width, bottleneck, blocks...)
	delete(shapes, prefix+"conv1.weight")
	return shapes
}

func TestReleased(t *testing.T) {
	for _, c := range []struct {
		want     string
		shapes   map[string][]int
		bn, proj string
	}{
		{"RD++ of resnet18", student("decoder.", 256, false, 2, 2, 2), "bn.conv1.weight", "proj.proj_a.proj.0.weight"},
		{"RD of resnet34", student("decoder.", 256, false, 3, 4, 6), "bn.conv1.weight", "other"},
		{"RD++ of resnet50", student("decoder.module.", 256, true, 3, 4, 6), "bn.module.conv1.weight", "proj.module.proj_a.proj.0.weight"},
		{"RD++ of wide_resnet50_2", student("decoder.", 512, true, 3, 4, 6), "bn.conv1.weight", "proj.proj_a.proj.0.weight"},
		{"RD of an unknown architecture", student("decoder.", 512, true, 3, 4, 5), "bn.conv1.weight", "other"},
	} {
		c.shapes[c.bn], c.shapes[c.proj] = []int{1}, []int{1}
		r, ok := fileWith(t, c.shapes).Released()
		if !ok || r.String() != c.want {
			t.Errorf("got %s, %v, want %s", &r, ok, c.want)
		}
		if got := r.Name("bn", "conv1.weight"); got != c.bn {
			t.Errorf("%s: got %s for bn's conv1, want %s", c.want, got, c.bn)
		}
		if !r.Within(c.bn) || r.Within("epoch.x") {
			t.Errorf("%s: got within %v and %v, want true and false", c.want, r.Within(c.bn), r.Within("epoch.x"))
		}
	}
	for _, shapes := range []map[string][]int{student("decoder.", 256, false, 2, 2, 2), {"bn.conv1.weight": {1}}, {}} {
		if r, ok := fileWith(t, shapes).Released(); ok {
			t.Errorf("got %s of %d tensors, want none", &r, len(shapes))
		}
	}
}

func TestMatch(t *testing.T) {
	f := &File{}
	for _, tensor := range []Stored{
		{Name: "a", DType: F16, Shape: []int{2, 3}}, {Name: "b", DType: I64, Shape: []int{}},
		{Name: "c", DType: Bool, Shape: []int{1}}, {Name: "x\x1b[2J", DType: F32, Shape: []int{1}},
	} {
		if err := f.add(tensor); err != nil {
			t.Fatal(err)
		}
	}
	all := func(string) bool { return true }
	if err := f.Match([]Want{{"a", []int{2, 3}, false}, {"b", nil, false}, {"d", []int{1}, true}}, nil); err != nil {
		t.Errorf("got %v, want no error", err)
	}
	err := f.Match([]Want{{"a", []int{3, 2}, false}, {"b", nil, false}, {"c", []int{1}, true}, {"d", []int{1}, false}}, all)
	var got *MismatchError
	if !errors.As(err, &got) {
		t.Fatalf("got %v, want a *MismatchError", err)
	}
	for _, c := range []struct{ got, want []string }{
		{got.Missing, []string{"d"}}, {got.MisShaped, []string{"a [2 3] instead of [3 2]"}},
		{got.WrongTypes, []string{"c BOOL"}}, {got.Unexpected, []string{`"x\x1b[2J"`}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	const want = `its tensors do not fit; missing: d; of another shape: a [2 3] instead of [3 2]; of a type that cannot be used: c BOOL; not expected: "x\x1b[2J"`
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	var many []Want
	for i := range 1000 {
		many = append(many, Want{Name: fmt.Sprint("layer", i)})
	}
	if text := f.Match(many, nil).Error(); !strings.HasSuffix(text, "layer3 and 996 more") || len(text) > 200 {
		t.Errorf("got %q, want a few names and how many more", text)
	}
}
