package rdpp_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// farsighted is CSFlow of EfficientNet-B5.
func farsighted(seed uint64) rdpp.Config {
	c := tiny()
	c.Method, c.Arch, c.Seed = rdpp.MethodCSFlow, torch.EfficientNetB5, seed
	c.CrossBlocks, c.CrossHidden = 1, 4
	return c
}

// A file with torchvision's names is a teacher, whatever else of the network is in it. The words that stand for a ResNet's weights
// are refused with what to do.
func TestEfficientNetTeacher(t *testing.T) {
	var teacher []weights.Source
	var want [][]byte
	for _, s := range newModel(t, farsighted(1)).Net.State() {
		name, ok := strings.CutPrefix(s.Name, "encoder.")
		if !ok {
			continue
		}
		data, err := s.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		s.Name, s.Bytes = "module."+name, func() ([]byte, error) { return data, nil }
		teacher, want = append(teacher, s), append(want, data)
	}
	whole := append(slices.Clone(teacher), zeros("module.features.8.0.weight", weights.F32, 2), zeros("module.classifier.1.weight", weights.F32, 2))
	path := writeFile(t, nil, whole)
	m := newModel(t, farsighted(2))
	if err := m.LoadTeacher(path); err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, s := range m.Net.State() {
		if !strings.HasPrefix(s.Name, "encoder.") {
			continue
		}
		if got, err := s.Bytes(); err != nil || !slices.Equal(got, want[at]) {
			t.Errorf("%s: got other numbers than the file's, error %v", s.Name, err)
		}
		at++
	}
	info, err := rdpp.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Kind != rdpp.KindEfficientNet || info.Arch != torch.EfficientNetB5 || info.Prefix != "module." {
		t.Errorf("got a file of %s, %q behind %q, want EfficientNet-B5 behind module.", info.Kind, info.Arch, info.Prefix)
	}

	c := tiny()
	c.Method, c.CrossBlocks, c.CrossHidden = rdpp.MethodCSFlow, 1, 4
	resnet := newModel(t, c)
	const missing = "module.features.6.8.block.2.fc2.bias"
	short := slices.DeleteFunc(slices.Clone(teacher), func(s weights.Source) bool { return s.Name == missing })
	const stem = "features.0.0.weight"
	unknown := []weights.Source{zeros(stem, weights.F32, 40, 3, 3, 3), zeros("features.1.0.block.0.0.weight", weights.F32, 1),
		zeros("features.1.0.block.1.fc1.weight", weights.F32, 1)}
	for _, c := range []struct {
		what, file string
		into       *rdpp.Model
		want       []string
	}{
		{"for a ResNet", path, resnet, []string{"efficientnet_b5, not resnet18", "arch efficientnet_b5"}},
		{"an unknown one for a ResNet", writeFile(t, nil, unknown), resnet, []string{"no ResNet: EfficientNet of [1] blocks"}},
		{"a missing tensor", writeFile(t, nil, short), m, []string{"missing: " + missing}},
		{"another width", writeFile(t, nil, unknown), m, []string{stem + " [40 3 3 3] instead of [48 3 3 3]"}},
		{"a ResNet", writeFile(t, nil, encoder(t, behind(""))), m, []string{"resnet18, not efficientnet_b5"}},
		{"nothing", writeFile(t, nil, unknown[1:]), m, []string{"no EfficientNet", stem}},
		{"built in", rdpp.TeacherBuiltin, m, []string{"efficientnet_b5", "name a file"}},
	} {
		checkError(t, c.what, c.into.LoadTeacher(c.file), nil, c.want...)
	}
	t.Setenv("RDPP_CACHE", t.TempDir())
	for _, word := range []string{rdpp.TeacherAuto, rdpp.TeacherImageNet} {
		_, err := rdpp.FindTeacher(context.Background(), word, torch.EfficientNetB5, rdpp.TeacherOptions{})
		checkError(t, word, err, rdpp.ErrConfig, "teacher is", "efficientnet_b5_lukemelas-1a07897c.pth")
	}
}

// A model file of EfficientNet-B5 holds all that judging needs.
func TestEfficientNetModel(t *testing.T) {
	m := newModel(t, farsighted(1))
	if err := m.Net.Settle(); err != nil {
		t.Fatal(err)
	}
	S := m.Info.Config.ImageSize
	x := make([]float32, 3*S*S)
	for i := range x {
		x[i] = float32(i%17)/8 - 1
	}
	_, want, err := m.Predict(x)
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/model.safetensors"
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := rdpp.LoadModel(path, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	if _, got, err := loaded.Predict(x); err != nil || !slices.Equal(got, want) {
		t.Errorf("from the file: got a score of %v and error %v, want %v", got, err, want)
	}
}
