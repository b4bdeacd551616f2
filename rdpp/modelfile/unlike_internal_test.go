package modelfile

import (
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/config"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
)

func TestUnlike(t *testing.T) {
	eight := dataset.Range{Darkest: 0.4, Brightest: 0.45}
	deep := dataset.Range{Wide: 10, Largest: 4031, Darkest: 0.4, Brightest: 0.45}
	mixed := deep
	mixed.Wide = 4
	none := dataset.Range{}
	of := func(bits int, most uint16, depth int) imagefile.Stored {
		return imagefile.Stored{Bits: bits, Max: most, Depth: depth}
	}
	for _, c := range []struct {
		name       string
		bits       int
		seen       dataset.Range
		stored     imagefile.Stored
		brightness float64
		want       []string // in each of the warnings
	}{
		{"8 bits", 16, eight, of(8, 0, 0), 0.42, nil},
		{"a fifth darker", 16, eight, of(8, 0, 0), 0.32, nil},
		{"half as bright", 16, eight, of(8, 0, 0), 0.2, nil},
		{"darker than half", 16, eight, of(8, 0, 0), 0.199, []string{"less than half of the darkest training image's 0.400"}},
		{"twice as bright", 16, eight, of(8, 0, 0), 0.9, nil},
		{"brighter than twice", 16, eight, of(8, 0, 0), 0.901, []string{"more than twice the brightest training image's 0.450"}},
		{"pixels from no file", 16, eight, of(0, 0, 0), 0.42, nil},
		{"dark pixels from no file", 12, deep, of(0, 0, 0), 0.01, []string{"less than half"}},
		{"12 bits", 12, deep, of(16, 4095, 12), 0.42, nil},
		{"13 bits", 12, deep, of(16, 4096, 12), 0.42, []string{"values up to 4096, the training images use 12 bits, up to 4095"}},
		{"16 bits, all white", 12, deep, of(16, 65535, 12), 1, []string{"values up to 65535", "more than twice"}},
		{"10 bits", 12, deep, of(16, 1023, 12), 0.1, []string{"its largest value is 1023 of 4095"}},
		{"8 bits for 12", 12, deep, of(8, 0, 0), 0.42, []string{"8 bits per sample, the training images use 12 of 16"}},
		{"8 bits for 12 and 8", 12, mixed, of(8, 0, 0), 0.42, nil},
		{"decoded otherwise", 12, deep, of(16, 4095, 16), 0.02, []string{"decoded as an image of 16 bits"}},
		{"12 bits for 8", 16, eight, of(16, 4095, 16), 0.02, []string{"its largest value is 4095 of 65535"}},
		{"8 bits for 16", 16, deep, of(8, 0, 0), 0.42, nil},
		{"12 bits, nothing known", 16, none, of(16, 4095, 16), 0.02, []string{"end at 4095 of 65535, so it comes out nearly black"}},
		{"a dim scene, nothing known", 16, none, of(16, 8192, 16), 0.1, nil},
		{"black, nothing known", 16, none, of(8, 0, 0), 0, nil},
	} {
		info := Info{Data: DataInfo{Images: 8, HeldOut: 2, Range: c.seen}}
		info.Config.BitDepth = c.bits
		got := info.Unlike(dataset.Look{Stored: c.stored, Brightness: c.brightness})
		if len(got) != len(c.want) || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "\n") }) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: got %q, want %q in it", c.name, got[i], want)
			}
		}
	}
}

// Files of before bit depths were there were read as 16 bits.
func TestDisplaced(t *testing.T) {
	box := framing.View{ROI: framing.Box{X: 1, Y: 1, W: 2, H: 2}}
	for _, c := range []struct {
		view    framing.View
		picture [2]int
		w, h    int
		want    string // "": nothing
	}{
		{framing.View{}, [2]int{8, 8}, 4, 4, ""}, {framing.View{Fit: framing.Pad}, [2]int{8, 8}, 4, 4, ""}, {box, [2]int{8, 8}, 8, 8, ""},
		{box, [2]int{}, 4, 4, ""}, {box, [2]int{8, 8}, 4, 8, "it has 4 x 8 pixels, the training images 8 x 8: what the model looks at may lie elsewhere"},
		{framing.View{Ignore: "x"}, [2]int{8, 8}, 4, 4, "masks were scaled"},
	} {
		info := Info{Data: DataInfo{Picture: c.picture}}
		info.Config.View = c.view
		got := strings.Join(info.Displaced(c.w, c.h), "; ")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: got %q, want %q", c, got, c.want)
		}
	}
}

func TestOldBitDepth(t *testing.T) {
	for _, c := range []struct{ stored, want int }{{0, 16}, {12, 12}, {16, 16}} {
		old := config.Config{}
		old.BitDepth = c.stored
		if old.Complete(); old.BitDepth != c.want {
			t.Errorf("%d: got %d, want %d", c.stored, old.BitDepth, c.want)
		}
	}
}
