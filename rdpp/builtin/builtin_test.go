package builtin_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"rdpp/rdpp/builtin"
	"rdpp/rdpp/weights"
)

const file = "resnet18.safetensors"

func TestOpen(t *testing.T) {
	f, digest, err := builtin.Open("resnet18")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if want, err := weights.SHA256(file); err != nil || digest != want {
		t.Errorf("digest: got %s, want %s (%v)", digest, want, err)
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
		values := tensor.Float32()
		numbers += len(values)
		least, most := math.Inf(1), math.Inf(-1)
		for _, v := range values {
			least, most = min(least, float64(v)), max(most, float64(v))
		}
		if !(most > least) || math.IsInf(least, 0) || math.IsInf(most, 0) {
			t.Errorf("%s: values from %v to %v, want finite ones that differ", tensor.Name, least, most)
		}
		if strings.HasSuffix(tensor.Name, "running_var") && least <= 0 {
			t.Errorf("%s: got a variance of %v, want positive ones", tensor.Name, least)
		}
	}
	// conv1 to layer3 of a ResNet-18 hold 2,782,784 parameters; running means and variances of 15 batch norms another
	// 4,480 numbers.
	if want := 2782784 + 4480; numbers != want {
		t.Errorf("got %d numbers, want %d", numbers, want)
	}
}

func TestOrigin(t *testing.T) {
	f, _, err := builtin.Open("resnet18")
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
	text, err := os.ReadFile("make.sh")
	if err != nil {
		t.Fatal(err)
	}
	script := string(text)
	for _, want := range []string{document.Software, document.Libtorch} {
		if want == "" || !strings.Contains(script, want) {
			t.Errorf("make.sh does not name %q, which made the file", want)
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
			t.Errorf("%s: the file has %q, make.sh --%s %q", key, got, name, want)
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
	values := conv1.Float32()
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
	for _, arch := range []string{"resnet34", "wide_resnet50_2", ""} {
		if _, _, err := builtin.Open(arch); err == nil || builtin.Has(arch) {
			t.Errorf("%q: got a teacher, want an error", arch)
		}
	}
}
