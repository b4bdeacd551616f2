package builtin_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rdpp/rdpp/builtin"
	"rdpp/rdpp/weights"
)

func TestOpen(t *testing.T) {
	for _, from := range []string{builtin.ImageNet, builtin.Drawn} {
		f, digest, err := builtin.Open(from, "resnet18")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		file := "resnet18-" + from + ".safetensors"
		if want, err := weights.SHA256(file); err != nil || digest != want {
			t.Errorf("%s: digest: got %s, want %s (%v)", file, digest, want, err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 6e6 {
			t.Errorf("%s: got %d bytes, want at most 6 MB", file, info.Size())
		}
		numbers := 0
		for _, tensor := range f.Tensors {
			stored, err := tensor.Read()
			if err != nil {
				t.Fatal(err)
			}
			values := stored.Float32()
			numbers += len(values)
			least, most := math.Inf(1), math.Inf(-1)
			for _, v := range values {
				least, most = min(least, float64(v)), max(most, float64(v)) // NaN, where one is
			}
			if !(most > least) || math.IsInf(least, 0) || math.IsInf(most, 0) || tensor.DType != weights.F16 {
				t.Errorf("%s: %s: %s from %v to %v, want finite F16 that differ", file, tensor.Name, tensor.DType, least, most)
			}
			if strings.HasSuffix(tensor.Name, "running_var") && least <= 0 {
				t.Errorf("%s: %s: got a variance of %v, want positive ones", file, tensor.Name, least)
			}
		}
		// conv1 to layer3 of a ResNet-18 hold 2,782,784 parameters; running means and variances of 15 batch norms another
		// 4,480 numbers.
		if want := 2782784 + 4480; numbers != want {
			t.Errorf("%s: got %d numbers, want %d", file, numbers, want)
		}
		if nets := f.ResNets(); len(nets) != 1 || nets[0].Arch != "resnet18" {
			t.Errorf("%s: got %v, want resnet18", file, nets)
		}
	}
}

// Models name the teachers by the digests of their files, so these may never change.
func TestDigests(t *testing.T) {
	for from, want := range map[string]string{
		builtin.ImageNet: "c9786906b383516e34c00b37cea7cd1d8cd8ebea07f9d34db8904d4120c3c483",
		builtin.Drawn:    "393e58aac94fd37ff048498bae8b580fac76f5baf2e0a2c501a756c714352ed7",
	} {
		if _, got, err := builtin.Open(from, "resnet18"); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", from, got, err, want)
		}
	}
}

// The notices are in the program and in the repository's root, and name the file that they are about; so does the file.
func TestNotice(t *testing.T) {
	root, err := os.ReadFile(filepath.Join("..", "..", "NOTICE"))
	if err != nil {
		t.Fatal(err)
	}
	if got := builtin.Notice; got != string(root) {
		t.Error("rdpp/builtin/NOTICE is not the NOTICE of the root; copy the one that is right")
	}
	f, _, err := builtin.Open(builtin.ImageNet, "resnet18")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const nuget = "Microsoft.ML.DnnImageFeaturizer.ResNet18"
	for _, want := range []string{nuget, "0.23.1", "resnet18-imagenet.safetensors", "Copyright (c) .NET Foundation and Contributors",
		"Permission is hereby granted, free of charge", "ML.NET uses third-party libraries", "LICENSE of libtiff",
		"LICENSE of libjpeg-turbo", "the work of the Independent JPEG Group", "LICENSE of libdeflate", "LICENSE of zlib", "LICENSE of zstd"} {
		if !strings.Contains(builtin.Notice, want) {
			t.Errorf("NOTICE: got no %q", want)
		}
	}
	if got := f.Metadata["source"]; !strings.Contains(got, nuget+" 0.23.1, MIT licence") {
		t.Errorf("the file's source: got %q, want the package and its licence", got)
	}
	script, err := os.ReadFile("make_imagenet.sh")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(script), f.Metadata["source"]) {
		t.Errorf("make_imagenet.sh does not name %q, which it writes", f.Metadata["source"])
	}
}

func TestDrawn(t *testing.T) {
	f, _, err := builtin.Open(builtin.Drawn, "resnet18")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var document struct {
		Software, Libtorch string
		Config             struct {
			Std [3]float64
		}
		Pictures int
	}
	var settings struct{ Config map[string]any }
	for _, into := range []any{&document, &settings} {
		if err := json.Unmarshal([]byte(f.Metadata["rdpp_teacher"]), into); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("make_drawn.sh")
	if err != nil {
		t.Fatal(err)
	}
	script := string(text)
	for _, want := range []string{document.Software, document.Libtorch} {
		if want == "" || !strings.Contains(script, want) {
			t.Errorf("make_drawn.sh does not name %q, which made the file", want)
		}
	}
	// The command's flags are the file's settings.
	flag := func(name string) string {
		found := regexp.MustCompile(`--` + name + `(?: ([^-\s]\S*))?`).FindStringSubmatch(script)
		switch {
		case found == nil:
			return "absent"
		case found[1] == "":
			return "true"
		}
		return found[1]
	}
	for key, name := range map[string]string{"arch": "arch", "objective": "objective", "classes": "classes", "image_size": "size",
		"batch": "batch", "steps": "steps", "rate": "rate", "scales": "scales", "ignore_level": "ignore-level",
		"equalise": "equalise", "precision": "precision", "seed": "seed"} {
		got := strings.ReplaceAll(strings.Trim(fmt.Sprint(settings.Config[key]), "[]"), " ", ",")
		if want := flag(name); got != want {
			t.Errorf("%s: the file has %q, make_drawn.sh --%s %q", key, got, name, want)
		}
	}
	if got, want := fmt.Sprint(document.Pictures), fmt.Sprint(settings.Config["steps"].(float64)*settings.Config["batch"].(float64)); got != want {
		t.Errorf("pictures: got %s, want %s", got, want)
	}
	// What conv1 answers to one grey level more in all pixels, against what its weights could answer; float16 rounds
	// each to 11 bits.
	c := document.Config
	conv1, found := f.Lookup("conv1.weight")
	if !found {
		t.Fatal("conv1.weight is missing")
	}
	stored, err := conv1.Read()
	if err != nil {
		t.Fatal(err)
	}
	values := stored.Float32()
	for filter := range 64 {
		sum, possible := 0.0, 0.0
		for i, v := range values[filter*147 : (filter+1)*147] {
			sum += float64(v) / c.Std[i/49]
			possible += math.Abs(float64(v)) / c.Std[i/49]
		}
		if math.Abs(sum) > 1e-3*possible {
			t.Errorf("filter %d answers a change of light with %v of the %v it could, want at most 0.1 %%", filter, sum, possible)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range [][2]string{{builtin.ImageNet, "resnet34"}, {builtin.Drawn, "wide_resnet50_2"}, {builtin.ImageNet, ""}, {"photographs", "resnet18"}} {
		if _, _, err := builtin.Open(c[0], c[1]); err == nil || builtin.Has(c[0], c[1]) {
			t.Errorf("%q: got a teacher, want an error", c)
		}
	}
}
