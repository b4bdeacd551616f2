package dataset

import (
	"encoding/json"
	"errors"
	"hash/fnv"
	"image"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rdpp/rdpp/imagefile"
)

// preprocessTolerance is absolute, on normalised values: float32 against
// OpenCV's float32 and NumPy's float64 differ by a few roundings of numbers
// up to 3.
const preprocessTolerance = 2e-6

// pixels are the bytes of a test picture, as testdata/make_preprocess.py has
// them.
func pixels(key string, n int) []uint8 {
	hash := fnv.New64a()
	hash.Write([]byte(key))
	state := hash.Sum64()
	pix := make([]uint8, n)
	for i := range pix {
		state += 0x9E3779B97F4A7C15
		z := (state ^ state>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
		pix[i] = uint8(z >> 56)
	}
	return pix
}

func picture(key string, w, h int) *imagefile.Image {
	return &imagefile.Image{W: w, H: h, Pix: pixels(key, 3*w*h)}
}

func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

func savePNG(path string, img image.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(png.Encode(f, img), f.Close())
}

func writePNG(t testing.TB, path string, img image.Image) {
	t.Helper()
	if err := savePNG(path, img); err != nil {
		t.Fatal(err)
	}
}

// writeRGB stores a picture of random pixels.
func writeRGB(t testing.TB, path, key string, w, h int) {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i, v := range pixels(key, 3*w*h) {
		img.Pix[i/3*4+i%3] = v
		img.Pix[i/3*4+3] = 255
	}
	writePNG(t, path, img)
}

func meanAndL2(values []float32) (mean, l2 float64) {
	for _, v := range values {
		mean += float64(v)
		l2 += float64(v) * float64(v)
	}
	return mean / float64(len(values)), math.Sqrt(l2)
}

// checkClose compares with preprocessTolerance; l2 norms, sums over n values,
// may differ by it relatively.
func checkClose(t *testing.T, what string, got, want float64) float64 {
	t.Helper()
	diff := math.Abs(got - want)
	if !(diff <= preprocessTolerance*max(1, math.Abs(want))) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
	return diff
}

type goldenImage struct {
	Key                string
	W, H, Size         int
	At                 []int
	Values, Normalised []float64
	Mean, L2           float64
}

type golden struct {
	Images []goldenImage
	Masks  []struct {
		Key        string
		W, H, Size int
		Resized    []int
		Positive   int
	}
}

func TestResize(t *testing.T) {
	var want golden
	readJSON(t, "testdata/preprocess.json", &want)
	for _, g := range want.Images {
		t.Run(g.Key, func(t *testing.T) {
			got := make([]float32, 3*g.Size*g.Size)
			Resize(got, picture(g.Key, g.W, g.H), g.Size)
			mean, l2 := meanAndL2(got)
			checkClose(t, "mean", mean, g.Mean)
			checkClose(t, "l2", l2, g.L2)
			for i, at := range g.At {
				checkClose(t, "value", float64(got[at]), g.Values[i])
			}
			ImageNet.Apply(got, got, g.Size)
			for i, at := range g.At {
				checkClose(t, "normalised value", float64(got[at]), g.Normalised[i])
			}
		})
	}
}

func TestResizeToOwnSize(t *testing.T) {
	const S = 7
	img := picture("own size", S, S)
	got := make([]float32, 3*S*S)
	Resize(got, img, S)
	for i, v := range img.Pix {
		if want := float32(v) / 255; got[i%3*S*S+i/3] != want {
			t.Errorf("pixel %d, channel %d: got %v, want %v", i/3, i%3, got[i%3*S*S+i/3], want)
		}
	}
}

func TestResizeMask(t *testing.T) {
	var want golden
	readJSON(t, "testdata/preprocess.json", &want)
	for _, g := range want.Masks {
		t.Run(g.Key, func(t *testing.T) {
			resized := resizeGray(pixels(g.Key, g.W*g.H), g.W, g.H, g.Size, g.Size)
			for i, want := range g.Resized {
				if int(resized[i]) != want {
					t.Fatalf("resized pixel %d: got %d, want %d", i, resized[i], want)
				}
			}
			if got := positive(aboveHalf(resized)); got != g.Positive || len(resized) != g.Size*g.Size {
				t.Errorf("positive pixels: got %d of %d, want %d of %d", got, len(resized), g.Positive, g.Size*g.Size)
			}
		})
	}
}

func positive(mask []uint8) (n int) {
	for _, v := range mask {
		n += int(v)
	}
	return n
}

func TestReadMaskErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mask.png")
	if _, err := ReadMask(path, 8, nil); !containsAll(err, "dataset: ", path) {
		t.Errorf("missing file: got error %v, want one naming %s", err, path)
	}
	if _, err := ReadMask(path, 0, nil); err == nil {
		t.Error("size 0: got no error")
	}
}

// TestFiles reads image files from end to end: one of its own, and, where
// RDPP_GOLDEN_DATA names a folder with the full-size pictures of MVTec AD that
// testdata/mvtec.json tells of, those too.
func TestFiles(t *testing.T) {
	var own golden
	readJSON(t, "testdata/preprocess.json", &own)
	g := own.Images[slices.IndexFunc(own.Images, func(g goldenImage) bool { return g.Size == 256 })]
	path := filepath.Join(t.TempDir(), "own.png")
	writeRGB(t, path, g.Key, g.W, g.H)
	cache := NewCache(CacheOptions{})
	planes := make([]float32, 3*256*256)
	if err := cache.Planes(planes, path); err != nil {
		t.Fatal(err)
	}
	for i, at := range g.At {
		checkClose(t, g.Key, float64(planes[at]), g.Values[i])
	}

	dir := os.Getenv("RDPP_GOLDEN_DATA")
	if dir == "" {
		return
	}
	var mvtec struct {
		Images []struct {
			File     string
			At       []int
			Values   []float64
			Mean, L2 float64
		}
		Masks []struct {
			File     string
			Positive int `json:"positive_pixels"`
		}
	}
	readJSON(t, "testdata/mvtec.json", &mvtec)
	for _, g := range mvtec.Images {
		if err := cache.Planes(planes, filepath.Join(dir, g.File)); err != nil {
			t.Fatal(err)
		}
		ImageNet.Apply(planes, planes, 256)
		mean, l2 := meanAndL2(planes)
		checkClose(t, g.File+" mean", mean, g.Mean)
		checkClose(t, g.File+" l2", l2, g.L2)
		worst := 0.0
		for i, at := range g.At {
			worst = max(worst, checkClose(t, g.File, float64(planes[at]), g.Values[i]))
		}
		t.Logf("%s: largest error %.2g", g.File, worst)
	}
	for _, g := range mvtec.Masks {
		mask, err := ReadMask(filepath.Join(dir, g.File), 256, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := positive(mask); got != g.Positive {
			t.Errorf("%s: positive pixels: got %d, want %d", g.File, got, g.Positive)
		}
	}
}

// FuzzSizes resizes to and from any size: no value may leave the range of the
// source's.
func FuzzSizes(f *testing.F) {
	f.Add(uint8(1), uint8(1), uint8(1))
	f.Add(uint8(200), uint8(3), uint8(17))
	f.Add(uint8(5), uint8(255), uint8(64))
	f.Fuzz(func(t *testing.T, w, h, size uint8) {
		W, H, S := int(w)+1, int(h)+1, int(size)+1
		img := picture("fuzz", W, H)
		for i, v := range img.Pix {
			img.Pix[i] = 50 + v/2
		}
		planes := make([]float32, 3*S*S)
		Resize(planes, img, S)
		for i, v := range planes {
			if !(v >= 49.99/255 && v <= 177.01/255) {
				t.Fatalf("value %d: got %v of pixels 50 to 177", i, v*255)
			}
		}
		for i, v := range resizeGray(img.Pix[:W*H], W, H, S, S) {
			if v < 50 || v > 177 {
				t.Fatalf("grey value %d: got %d of pixels 50 to 177", i, v)
			}
		}
	})
}

func BenchmarkResize(b *testing.B) {
	for _, side := range []int{90, 256, 1024} {
		b.Run(image.Pt(side, side).String(), func(b *testing.B) {
			img := picture("benchmark", side, side)
			dst := make([]float32, 3*256*256)
			for b.Loop() {
				Resize(dst, img, 256)
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	values := make([]float32, 3*256*256)
	for b.Loop() {
		ImageNet.Apply(values, values, 256)
	}
}

func BenchmarkResizeGray(b *testing.B) {
	pix := pixels("benchmark", 1024*1024)
	for b.Loop() {
		resizeGray(pix, 1024, 1024, 256, 256)
	}
}

// TestNormDivides: values are normalised to the bit as by a division in float32.
func TestNormDivides(t *testing.T) {
	const S = 512
	rng := rand.New(rand.NewPCG(4, 2))
	for round := range 8 {
		n := ImageNet
		if round > 0 {
			for c := range 3 {
				n.Mean[c], n.Std[c] = rng.Float32(), float32(math.Exp(4*rng.NormFloat64()))
			}
		}
		src, got := make([]float32, 3*S*S), make([]float32, 3*S*S)
		for i := range src {
			src[i] = rng.Float32()
			if i%3 == 0 {
				src[i] = float32(rng.IntN(256)) / 255
			}
		}
		n.Apply(got, src, S)
		for i, v := range src {
			c := i / (S * S)
			if want := (v - n.Mean[c]) / n.Std[c]; got[i] != want {
				t.Fatalf("(%v - %v) / %v: got %v, want %v", v, n.Mean[c], n.Std[c], got[i], want)
			}
		}
	}
}
