package rdpp_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// The pieces of a pickle.

func pickleText(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func pickleInts(values []int) string {
	text := "("
	for _, v := range values {
		text += "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(v)))
	}
	return text + "t"
}

// pth writes tensors as torch.save does a dictionary of state dicts, whose names are before the first dot.
func pth(t *testing.T, sources []weights.Source) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wres50_part.pth")
	var content bytes.Buffer
	archive := zip.NewWriter(&content)
	add := func(name string, data []byte) {
		w, err := archive.CreateHeader(&zip.FileHeader{Name: "archive/" + name}) // uncompressed
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	storages := map[weights.DType]string{weights.F32: "FloatStorage", weights.I64: "LongStorage"}
	pickle, last := "\x80\x02}", ""
	for i, s := range sources {
		part, name, _ := strings.Cut(s.Name, ".")
		if part != last {
			if last != "" {
				pickle += "s"
			}
			pickle, last = pickle+pickleText(part)+"}", part
		}
		data, err := s.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		add(fmt.Sprint("data/", i), data)
		n, stride := 1, make([]int, len(s.Shape))
		for d, dim := range slices.Backward(s.Shape) {
			stride[d] = n
			n *= dim
		}
		pickle += pickleText(name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + pickleText("storage") + "ctorch\n" + storages[s.DType] + "\n" +
			pickleText(fmt.Sprint(i)) + pickleText("cpu") + "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) + "tQK\x00" +
			pickleInts(s.Shape) + pickleInts(stride) + "\x89ccollections\nOrderedDict\n)RtRs"
	}
	add("data.pkl", []byte(pickle+"s."))
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// releasedParts are the tensors of a model that the released code saves.
func releasedParts(t *testing.T, path string) []weights.Source {
	t.Helper()
	_, sources := contents(t, path)
	return slices.DeleteFunc(sources, func(s weights.Source) bool { return strings.HasPrefix(s.Name, "encoder.") })
}

func scoreOf(t *testing.T, model, image string) float64 {
	t.Helper()
	d, err := rdpp.OpenDetector(model, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, _, err := d.DetectFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return r.Score
}

// A model that is taken apart, into a checkpoint of the released code and a teacher, and imported scores as before.
func TestImport(t *testing.T) {
	set := openSet(t, dataDir)
	released := tiny()
	released.Score, released.Project = rdpp.ScoreReleased, rdpp.ProjectAll // checkpoints hold no weights of a map's terms, and all projections
	model := filepath.Join(trained(t, released), rdpp.ModelFile)
	rd := tiny()
	rd.Method = rdpp.MethodRD
	baseline := filepath.Join(t.TempDir(), "rd.safetensors")
	if err := newModel(t, rd).Save(baseline); err != nil {
		t.Fatal(err)
	}
	parallel := func(sources []weights.Source) []weights.Source {
		out := slices.Clone(sources)
		for i, s := range out {
			part, name, _ := strings.Cut(s.Name, ".")
			out[i].Name = part + ".module." + name
		}
		return out
	}
	for _, c := range []struct {
		name, model string
		checkpoint  string
		method      string
	}{
		{".pth", model, pth(t, releasedParts(t, model)), rdpp.MethodRDPP},
		{"safetensors", model, writeFile(t, nil, releasedParts(t, model)), rdpp.MethodRDPP},
		{".pth of DataParallel", model, pth(t, parallel(releasedParts(t, model))), rdpp.MethodRDPP},
		{".pth without projection", baseline, pth(t, releasedParts(t, baseline)), rdpp.MethodRD},
	} {
		teacher := c.model // a model file holds its teacher
		m, err := rdpp.Import(context.Background(), rdpp.ImportOptions{Checkpoint: c.checkpoint, Teacher: teacher, ImageSize: 32,
			Category: "part", Good: set.Train})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		defer m.Close()
		out := filepath.Join(t.TempDir(), "imported.safetensors")
		if err := m.Save(out); err != nil {
			t.Fatal(err)
		}
		image := set.Test[0].Path
		if got, want := scoreOf(t, out, image), scoreOf(t, c.model, image); got != want {
			t.Errorf("%s: got score %v, want %v", c.name, got, want)
		}
		info := m.Info
		if info.Config.Method != c.method || info.Config.Arch != "resnet18" || info.Config.ImageSize != 32 || info.Category != "part" {
			t.Errorf("%s: got %+v, want %s of resnet18", c.name, info, c.method)
		}
		if want := (rdpp.ImportInfo{Origin: filepath.Base(c.checkpoint), SHA256: digest(t, c.checkpoint)}); info.Imported != want {
			t.Errorf("%s: got %v, want %v", c.name, info.Imported, want)
		}
		if info.Teacher.SHA256 != digest(t, teacher) {
			t.Errorf("%s: got teacher %v, want that of %s", c.name, info.Teacher, teacher)
		}
	}
}

func TestImportCalibration(t *testing.T) {
	set, model := openSet(t, dataDir), projectedModel(t)
	checkpoint := writeFile(t, nil, releasedParts(t, model))
	for _, c := range []struct {
		name        string
		good        []dataset.Item
		unseen      bool
		rate        float64
		provisional bool
		scores      int
	}{
		{"no images", nil, true, 0, true, 0},
		{"images trained on", set.Train, false, 0, true, 6},
		{"images not trained on", set.Train, true, 0.5, false, 6},
	} {
		m, err := rdpp.Import(context.Background(), rdpp.ImportOptions{Checkpoint: checkpoint, Teacher: model, ImageSize: 32, Good: c.good,
			Unseen: c.unseen, FalseAlarm: c.rate})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		defer m.Close()
		got := m.Info.Calibration
		if got.Provisional != c.provisional || len(got.Scores) != c.scores || got.FalseAlarm != c.rate || (got.Threshold > 0) != (c.scores > 0) {
			t.Errorf("%s: got %+v, want provisional %v with %d scores at a rate of %v", c.name, got, c.provisional, c.scores, c.rate)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	model := projectedModel(t)
	parts := releasedParts(t, model)
	good := writeFile(t, nil, parts)
	cache := t.TempDir()
	t.Setenv("RDPP_CACHE", cache)
	t.Setenv("RDPP_TEACHER_URL", closedServer(t))
	without := func(prefix string) string {
		return writeFile(t, nil, slices.DeleteFunc(slices.Clone(parts), func(s weights.Source) bool { return strings.HasPrefix(s.Name, prefix) }))
	}
	garbage := filepath.Join(t.TempDir(), "garbage.pth")
	if err := os.WriteFile(garbage, []byte("no weights"), 0o666); err != nil {
		t.Fatal(err)
	}
	broken := []dataset.Item{{Path: garbage}}
	for _, c := range []struct {
		name string
		opt  rdpp.ImportOptions
		is   error
		want []string
	}{
		{"no checkpoint", rdpp.ImportOptions{Checkpoint: filepath.Join(cache, "x.pth")}, nil, []string{"no checkpoint at " + cache}},
		{"no weights", rdpp.ImportOptions{Checkpoint: garbage}, nil, []string{garbage}},
		{"a model", rdpp.ImportOptions{Checkpoint: model}, nil, []string{model, "nothing to import"}},
		{"a teacher", rdpp.ImportOptions{Checkpoint: writeFile(t, nil, encoder(t, behind("")))}, nil, []string{"it is a resnet18", "teacher"}},
		{"no student", rdpp.ImportOptions{Checkpoint: without("decoder.")}, nil, []string{`no "bn" and "decoder"`}},
		{"half a projection", rdpp.ImportOptions{Checkpoint: without("proj.proj_c.")}, nil, []string{"missing: proj.proj_c.proj.0.weight", "and 4 more"}},
		{"one tensor more", rdpp.ImportOptions{Checkpoint: writeFile(t, nil, append(slices.Clone(parts), zeros("bn.memory", weights.F32, 1)))}, nil,
			[]string{"not expected: bn.memory"}},
		{"another architecture", rdpp.ImportOptions{Checkpoint: good, Arch: "resnet50"}, nil, []string{"resnet18, not resnet50", "arch resnet18"}},
		{"unknown architecture", rdpp.ImportOptions{Checkpoint: good, Arch: "vgg"}, rdpp.ErrConfig, []string{"vgg"}},
		{"not recognised", rdpp.ImportOptions{Checkpoint: without("decoder.layer3.1.")}, nil, []string{"arch"}},
		{"odd size", rdpp.ImportOptions{Checkpoint: good, ImageSize: 33}, rdpp.ErrConfig, []string{"image_size is 33"}},
		{"odd rate", rdpp.ImportOptions{Checkpoint: good, FalseAlarm: 2}, rdpp.ErrConfig, []string{"false_alarm is 2"}},
		{"random teacher", rdpp.ImportOptions{Checkpoint: good, Teacher: rdpp.TeacherRandom}, rdpp.ErrConfig, []string{"trained with"}},
		{"offline", rdpp.ImportOptions{Checkpoint: good}, nil, []string{"resnet18-f37072fd.pth into " + cache}},
		{"checkpoint as teacher", rdpp.ImportOptions{Checkpoint: good, Teacher: good}, nil, []string{"RD++ of resnet18, which has no teacher"}},
		{"broken image", rdpp.ImportOptions{Checkpoint: good, Teacher: model, Good: broken}, nil, []string{garbage}},
	} {
		before := torch.LiveTensors()
		m, err := rdpp.Import(context.Background(), c.opt)
		if err == nil {
			m.Close()
		}
		checkError(t, c.name, err, c.is, c.want...)
		if after := torch.LiveTensors(); after != before {
			t.Errorf("%s: got %d open tensors, want %d", c.name, after, before)
		}
	}
}
