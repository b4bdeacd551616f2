package pattern_test

import (
	"bytes"
	"fmt"
	"image/png"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"rdpp/rdpp/pattern"
)

func generator(t testing.TB, opt pattern.Options) *pattern.Generator {
	t.Helper()
	g, err := pattern.New(&opt)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func draw(t testing.TB, g *pattern.Generator, class, instance uint64) []byte {
	t.Helper()
	rgb := make([]byte, 3*g.Size()*g.Size())
	if err := g.Draw(class, instance, rgb); err != nil {
		t.Fatal(err)
	}
	return rgb
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		opt  *pattern.Options
		want string // in the error; "": none
	}{
		{nil, ""},
		{&pattern.Options{Size: pattern.MinSize}, ""},
		{&pattern.Options{Size: pattern.MaxSize, Kinds: []string{"thread"}}, ""},
		{&pattern.Options{Size: -1}, "-1 x -1"},
		{&pattern.Options{Size: pattern.MinSize - 1}, "use 16 to 1024"},
		{&pattern.Options{Size: pattern.MaxSize + 1}, "use 16 to 1024"},
		{&pattern.Options{Kinds: []string{"cloud"}}, `"cloud"`},
		{&pattern.Options{Kinds: []string{"part", "part"}}, `"part" is unknown or named twice`},
	} {
		_, err := pattern.New(c.opt)
		if got := fmt.Sprint(err); (err == nil) != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: got %v, want %q", c.opt, err, c.want)
		}
	}
	g := generator(t, pattern.Options{Size: 16})
	rgb, labels := make([]byte, 3*16*16), make([]int16, 16*16)
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"short picture", g.Draw(0, 0, rgb[1:]), "767 bytes"},
		{"short scene", g.DrawRegions(1, 0, rgb[1:], labels), "767 bytes"},
		{"short labels", g.DrawRegions(1, 0, rgb, labels[1:]), "255 labels"},
		{"no class", g.DrawRegions(0, 0, rgb, labels), "0 classes"},
		{"too many classes", g.DrawRegions(1<<15+1, 0, rgb, labels), "32769 classes"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, c.err, c.want)
		}
	}
}

// Pictures depend on seed, class and instance alone: not on order, nor on who draws beside.
func TestDeterministic(t *testing.T) {
	const n = 60
	opt := pattern.Options{Size: 48, Seed: 7}
	g, again := generator(t, opt), generator(t, opt)
	want := make([][]byte, n)
	for i := range want {
		want[i] = draw(t, g, uint64(i/2), uint64(i%2))
	}
	got := make([][]byte, n)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := n - 1 - w; i >= 0; i -= 4 {
				got[i] = draw(t, again, uint64(i/2), uint64(i%2))
			}
		})
	}
	wg.Wait()
	seen := map[string]int{}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("picture %d: drawn by several goroutines it is another", i)
		}
		if j, found := seen[string(want[i])]; found {
			t.Errorf("pictures %d and %d are the same", i, j)
		}
		seen[string(want[i])] = i
	}
	if bytes.Equal(want[0], draw(t, generator(t, pattern.Options{Size: 48, Seed: 8}), 0, 0)) {
		t.Error("another seed: got the same picture, want another")
	}
}

// Every kind shows something, at every size: neither black, white nor flat.
func TestKinds(t *testing.T) {
	for _, kind := range pattern.Kinds() {
		for _, size := range []int{16, 33, 128} {
			g := generator(t, pattern.Options{Size: size, Kinds: []string{kind}})
			var mean, deviation float64
			const n = 40
			for i := range n {
				rgb := draw(t, g, uint64(i), 0)
				var sum, squares float64
				for _, v := range rgb {
					sum += float64(v)
					squares += float64(v) * float64(v)
				}
				m := sum / float64(len(rgb))
				mean += m / n
				deviation += math.Sqrt(squares/float64(len(rgb))-m*m) / n
			}
			if mean < 80 || mean > 175 || deviation < 20 || deviation > 100 {
				t.Errorf("%s at %d: mean %.0f, deviation %.0f; want 80 to 175 and 20 to 100", kind, size, mean, deviation)
			}
		}
	}
}

// Instances of a class resemble each other more than they do other classes: else there is nothing to learn. Colour and
// place vary, so what is compared is the mean over many pictures, of kinds whose parts keep their places.
func TestClassesAreDistinct(t *testing.T) {
	g := generator(t, pattern.Options{Size: 32, Seed: 3, Kinds: []string{"fractal", "part", "print"}})
	const classes, instances = 10, 24
	var means [2][classes][]float64 // of either half of the instances
	for class := range classes {
		for half := range 2 {
			mean := make([]float64, 3*32*32)
			for i := range instances {
				for p, v := range draw(t, g, uint64(class), uint64(2*i+half)) {
					mean[p] += float64(v) / instances
				}
			}
			means[half][class] = mean
		}
	}
	own, other := 0.0, 0.0
	for a, mean := range means[0] {
		for b, another := range means[1] {
			sum := 0.0
			for i := range mean {
				sum += (mean[i] - another[i]) * (mean[i] - another[i])
			}
			if d := math.Sqrt(sum / float64(len(mean))); a == b {
				own += d / classes
			} else {
				other += d / (classes * (classes - 1))
			}
		}
	}
	if own > 0.75*other {
		t.Errorf("halves of a class are %.1f grey levels apart, classes %.1f; want at most 0.75 of that", own, other)
	}
}

func TestRegions(t *testing.T) {
	const classes, size, scenes = 9, 64, 60
	g := generator(t, pattern.Options{Size: size})
	rgb, labels := make([]byte, 3*size*size), make([]int16, size*size)
	seen := map[int16]int{}
	for i := range scenes {
		if err := g.DrawRegions(classes, uint64(i), rgb, labels); err != nil {
			t.Fatal(err)
		}
		for _, l := range labels {
			seen[l]++
		}
	}
	for l := int16(-1); l < classes; l++ {
		share := float64(seen[l]) / (scenes * size * size)
		if share < 0.005 || share > 0.8 {
			t.Errorf("label %d: %.3f of the pixels, want 0.005 to 0.8", l, share)
		}
		delete(seen, l)
	}
	if len(seen) > 0 {
		t.Errorf("labels out of range: %v", seen)
	}
}

// The sheet beside this file is what the documentation shows. Other processors round otherwise: a few pixels may move.
func TestSheet(t *testing.T) {
	got, err := pattern.Sheet(nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("sheet.png")
	if err != nil {
		t.Fatalf("%v; make it with: train teacher --sheet rdpp/pattern/sheet.png", err)
	}
	defer file.Close()
	want, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.Bounds() != want.Bounds() {
		t.Fatalf("got %v, want %v", got.Bounds(), want.Bounds())
	}
	other := 0
	b := got.Bounds()
	for y := range b.Max.Y {
		for x := range b.Max.X {
			gr, gg, gb, _ := got.At(x, y).RGBA()
			wr, wg, wb, _ := want.At(x, y).RGBA()
			if max(gr, wr)-min(gr, wr) > 0x300 || max(gg, wg)-min(gg, wg) > 0x300 || max(gb, wb)-min(gb, wb) > 0x300 {
				other++
			}
		}
	}
	if most := b.Dx() * b.Dy() / 1000; other > most {
		t.Errorf("%d pixels differ from sheet.png, want at most %d", other, most)
	}
}

func FuzzDraw(f *testing.F) {
	f.Add(uint64(0), uint64(1), uint64(2), 16)
	f.Fuzz(func(t *testing.T, seed, class, instance uint64, size int) {
		g, err := pattern.New(&pattern.Options{Size: size, Seed: seed})
		if err != nil || size > 64 {
			return
		}
		draw(t, g, class, instance)
		if err := g.DrawRegions(5, instance, make([]byte, 3*g.Size()*g.Size()), make([]int16, g.Size()*g.Size())); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkDraw(b *testing.B) {
	for _, kind := range append(pattern.Kinds(), "all") {
		opt := pattern.Options{}
		if kind != "all" {
			opt.Kinds = []string{kind}
		}
		g := generator(b, opt)
		b.Run(kind, func(b *testing.B) {
			rgb := make([]byte, 3*64*64)
			for i := 0; b.Loop(); i++ {
				if err := g.Draw(uint64(i), uint64(i), rgb); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pictures/s")
		})
	}
}

func ExampleGenerator() {
	g, err := pattern.New(&pattern.Options{Size: 64, Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	rgb := make([]byte, 3*64*64)
	fmt.Println(g.Draw(5, 0, rgb), g.Size())
	// Output: <nil> 64
}
