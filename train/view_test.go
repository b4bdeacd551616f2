package main

import (
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/framing"
)

// What is looked at is said, travels in the model file, and is part of what a resumed run must have alike.
func TestView(t *testing.T) {
	data, out := copyData(t), filepath.Join(t.TempDir(), "out")
	flags := []string{"--fit=pad", "--roi=4,0,56,60", "--ignore=" + filepath.Join(data, "ground_truth", "dent", "000_mask.png"),
		"--augment=shift=0.05,light=0.1"}
	code, stdout, stderr := trainBy(tiny(data, out, append([]string{"--keep-checkpoint"}, flags...)...)...)
	if code != command.Done || !strings.Contains(stdout, "(fit pad, 56 x 60 pixels from 4,0 on, a mask of what is ignored)") {
		t.Fatalf("got code %d, %q, stderr %q", code, stdout, stderr)
	}
	d, err := rdpp.OpenDetector(filepath.Join(out, "part", rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	info := d.Info()
	d.Close()
	drawn, err := framing.DrawFile(filepath.Join(data, "ground_truth", "dent", "000_mask.png"))
	if err != nil {
		t.Fatal(err)
	}
	want := framing.View{Fit: framing.Pad, ROI: framing.Box{X: 4, W: 56, H: 60}, Ignore: drawn}
	if info.Config.View != want || info.Data.Picture != [2]int{64, 64} || info.Config.AugmentShift != 0.05 || info.Config.Light != 0.1 {
		t.Errorf("got %+v of pictures of %v, shift %v and light %v", info.Config.View, info.Data.Picture, info.Config.AugmentShift, info.Config.Light)
	}
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{append([]string{"--resume", "--epochs=2"}, flags[1:]...), "--fit is missing"},
		{append([]string{"--resume", "--epochs=2"}, flags[:2]...), "--"},
		{append([]string{"--resume", "--epochs=2", "--augment=scale=0.1"}, flags[:3]...), "--augment"},
	} {
		if code, _, stderr := trainBy(tiny(data, out, c.flags...)...); code != command.WrongUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: got code %d, %q, want a word about %q", c.flags, code, stderr, c.want)
		}
	}
	if code, _, stderr := trainBy(tiny(data, out, append([]string{"--resume", "--epochs=2"}, flags...)...)...); code != command.Done {
		t.Errorf("the same again: got code %d, %q", code, stderr)
	}
}
