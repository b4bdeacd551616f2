package explain

import (
	"slices"
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

func TestNearest(t *testing.T) {
	p := &Page{most: 3}
	for path, level := range map[string]uint8{"dark": 20, "middle": 100, "bright": 220} {
		p.good = append(p.good, goodImage{path, look(flat(level)), flat(level)})
	}
	for want, level := range map[string]uint8{"dark": 0, "middle": 130, "bright": 255} {
		e := p.Look("x", flat(level), result(t, 0))
		if e.shown.NearPath != want || e.shown.Near == nil {
			t.Errorf("level %d: got %q, want %q", level, e.shown.NearPath, want)
		}
	}
	if e := (&Page{}).Look("x", flat(0), result(t, 0)); e.shown.Near != nil {
		t.Error("without good images: got one")
	}
}
