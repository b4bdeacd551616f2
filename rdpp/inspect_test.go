package rdpp_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/weights"
)

func TestInspect(t *testing.T) {
	model := trainedModel(t)
	metadata, _ := contents(t, model)
	torn := writeFile(t, map[string]string{"rdpp": metadata["rdpp"][:100], "format": "pt"}, nil)
	for _, c := range []struct {
		name, path                 string
		kind, arch, naming, prefix string
		format                     string
	}{
		{"model", model, rdpp.KindModel, "resnet18", "torchvision", "encoder.", "safetensors"},
		{"checkpoint", filepath.Join(trained(t, tiny()), "checkpoint"), rdpp.KindCheckpoint, "resnet18", "torchvision", "encoder.", "safetensors"},
		{"teacher", filepath.Join("builtin", "resnet18-drawn.safetensors"), rdpp.KindTeacher, "resnet18", "torchvision", "", "safetensors"},
		{"converted teacher", filepath.Join("builtin", "resnet18-imagenet.safetensors"), rdpp.KindResNet, "resnet18", "torchvision", "", "safetensors"},
		{"released", pth(t, releasedParts(t, model)), rdpp.KindReleased, "resnet18", "", "", "pytorch-zip"},
		{"transformers", writeFile(t, nil, encoder(t, transformers)), rdpp.KindResNet, "resnet18", "transformers", "resnet.", "safetensors"},
		{"else", filepath.Join("weights", "testdata", "legacy.pth"), rdpp.KindTensors, "", "", "", "pytorch-legacy"},
		{"damaged document", torn, rdpp.KindModel, "", "", "", "safetensors"},
	} {
		info, err := rdpp.Inspect(c.path)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		status, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Kind != c.kind || info.Arch != c.arch || info.Naming != c.naming || info.Prefix != c.prefix || info.Format != c.format ||
			info.Bytes != status.Size() || info.SHA256 != digest(t, c.path) {
			t.Errorf("%s: got %s of %q, names of %q behind %q in %s, %d bytes, want %s, %q, %q, %q, %s, %d", c.name, info.Kind, info.Arch,
				info.Naming, info.Prefix, info.Format, info.Bytes, c.kind, c.arch, c.naming, c.prefix, c.format, status.Size())
		}
		documents := c.name == "model" || c.name == "checkpoint"
		if (info.Model != nil) != documents || (info.Teacher != nil) != (c.name == "teacher") || (info.Damage != "") != (c.path == torn) {
			t.Errorf("%s: got model %v, teacher %v and damage %q", c.name, info.Model, info.Teacher, info.Damage)
		}
		if c.path == torn && info.Metadata["format"] != "pt" {
			t.Errorf("%s: got metadata %v, want the rest of it", c.name, info.Metadata)
		}
		checkTensors(t, info)
	}
	_, err := rdpp.Inspect(filepath.Join(t.TempDir(), "missing"))
	checkError(t, "no file", err, nil, "no file at", "missing")
	_, err = rdpp.Inspect(filepath.Join("inspect_test.go"))
	checkError(t, "no weights", err, nil, "inspect_test.go", "neither a PyTorch nor a safetensors file")
}

// checkTensors compares the list of tensors with the file's.
func checkTensors(t *testing.T, info *rdpp.FileInfo) {
	t.Helper()
	file, err := weights.Open(info.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var elements int64
	for i, tensor := range file.Tensors {
		if got, want := fmt.Sprint(info.Tensors[i]), fmt.Sprint(rdpp.TensorInfo{Name: tensor.Name, DType: tensor.DType.String(), Shape: tensor.Shape}); got != want {
			t.Errorf("%s: got %s, want %s", info.Path, got, want)
		}
		elements += int64(tensor.Len())
	}
	if len(info.Tensors) != len(file.Tensors) || info.Elements != elements {
		t.Errorf("%s: got %d tensors of %d numbers, want %d of %d", info.Path, len(info.Tensors), info.Elements, len(file.Tensors), elements)
	}
}

// Whatever stands in a header's entries, Inspect answers.
func FuzzInspect(f *testing.F) {
	for _, key := range []string{"rdpp", "rdpp_checkpoint", "rdpp_teacher", "rdpp_teacher_checkpoint", "format"} {
		f.Add(key, `{"format_version":1,"config":{"arch":"resnet18"},"info":{"calibration":{"scores":[1]}},"state":null}`)
		f.Add(key, "null")
		f.Add(key, "[1")
	}
	f.Fuzz(func(t *testing.T, key, text string) {
		path := filepath.Join(t.TempDir(), "w.safetensors")
		if err := weights.WriteFile(path, map[string]string{key: text}, nil); err != nil {
			return // no UTF-8
		}
		if info, err := rdpp.Inspect(path); err != nil || info.Kind == "" {
			t.Errorf("%q: %q: got %v, %v, want an answer", key, text, info, err)
		}
	})
}
