package explain

import (
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/detector"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
)

// flat is a picture of one level.
func flat(level uint8) *imagefile.Image {
	return &imagefile.Image{W: 40, H: 30, Pix: slices.Repeat([]uint8{level}, 3*40*30)}
}

// result is what a detector says of such a picture.
func result(t *testing.T, score float64) *detector.Result {
	framer, err := framing.New(framing.View{}, 4)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := framer.Frame(40, 30, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &detector.Result{Verdict: anomaly.Verdict{Score: score}, Map: make([]float32, 16), Frame: frame}
}

// Those of the highest scores are shown, in their order, and all are listed.
func TestAdd(t *testing.T) {
	p := &Page{most: 3}
	for i, score := range []float64{1, 5, 3, 5, 2, 4} {
		p.Add(p.Look(string(rune('a'+i)), flat(9), result(t, score)))
	}
	var got []string
	for _, k := range p.shown {
		got = append(got, p.report.Images[k.Image].Path)
	}
	if want := []string{"b", "d", "f"}; !slices.Equal(got, want) || len(p.report.Images) != 6 {
		t.Errorf("got %v of %d, want %v of 6", got, len(p.report.Images), want)
	}
}

// Maps of tiles can be large: then fewer are shown.
func TestAddLarge(t *testing.T) {
	const each = 12 * 16 // bytes of a map as result has it
	for _, c := range []struct{ bytes, want int }{{0, 20}, {9 * each, 9}, {9*each + 1, 9}, {2 * each, leastShown}} {
		p := &Page{most: 20, bytes: c.bytes}
		for i := range 30 {
			p.Add(p.Look("x", flat(9), result(t, float64(i))))
		}
		if len(p.shown) != c.want || p.report.Images[p.shown[0].Image].Score != 29 {
			t.Errorf("%d bytes: got %d shown, want %d, the highest first", c.bytes, len(p.shown), c.want)
		}
	}
}

// write writes a picture as a PNG file.
func write(t *testing.T, path string, p *imagefile.Image) {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, p.W, p.H))
	for i := range p.W * p.H {
		copy(img.Pix[4*i:], append(slices.Clone(p.Pix[3*i:3*i+3]), 255))
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := png.Encode(file, img); err != nil {
		t.Fatal(err)
	}
}

// The nearest good image is found by its look, and read again where it is shown; one that has gone by then is noted.
func TestNearest(t *testing.T) {
	dir := t.TempDir()
	p := &Page{most: 3}
	for name, level := range map[string]uint8{"dark": 20, "middle": 100, "bright": 220} {
		path := filepath.Join(dir, name)
		write(t, path, flat(level))
		p.good = append(p.good, goodImage{path, look(flat(level))})
	}
	cases := []struct {
		level, near uint8
		want        string
	}{{255, 220, "bright"}, {130, 100, "middle"}, {0, 0, "dark"}}
	for i, c := range cases {
		e := p.Look("x", flat(c.level), result(t, float64(-i)))
		if want := filepath.Join(dir, c.want); e.shown.NearPath != want || e.shown.Near != nil {
			t.Errorf("level %d: got %q, want %q, and no picture yet", c.level, e.shown.NearPath, want)
		}
		p.Add(e)
	}
	if err := os.Remove(filepath.Join(dir, "dark")); err != nil {
		t.Fatal(err)
	}
	shown, notes := p.nearPictures()
	for i, c := range cases {
		switch near := shown[i].Near; {
		case c.near == 0 && near != nil:
			t.Errorf("%s: got a picture of a file that has gone", c.want)
		case c.near != 0 && (near == nil || near.Pix[0] != c.near):
			t.Errorf("%s: got %v, want a picture of the level %d", c.want, near, c.near)
		}
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "dark") {
		t.Errorf("got the notes %q, want one about the file that has gone", notes)
	}
	if e := (&Page{}).Look("x", flat(0), result(t, 0)); e.shown.NearPath != "" {
		t.Error("without good images: got one")
	}
}

func TestSpread(t *testing.T) {
	paths := []string{"a", "b", "c", "d", "e", "f", "g"}
	for _, c := range []struct {
		most int
		want []string
	}{{7, paths}, {9, paths}, {3, []string{"a", "c", "e"}}, {1, []string{"a"}}} {
		if got := spread(paths, c.most); !slices.Equal(got, c.want) {
			t.Errorf("%d: got %q, want %q", c.most, got, c.want)
		}
	}
}
