package rdpp_test

import (
	"context"
	"errors"
	"image"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/patchcore"
	"rdpp/torch"
)

// tiled is tiny with images of 64 x 64 pixels in four tiles.
func tiled() rdpp.Config {
	c := tiny()
	c.Tile, c.TileStride = 40, 30
	return c
}

func tiledMethods() map[string]rdpp.Config {
	top, rd, maps, patches, flow := tiled(), tiled(), tiled(), remembering(), flowing()
	top.ScoreTop = 0.01
	rd.Method = rdpp.MethodRD
	maps.Method, maps.Updates, maps.Epochs, maps.ImageSize, maps.Batch, maps.Coreset, maps.Tile, maps.TileStride = patchcore.Name, 0, 1, 32, 1, 0.2, 40, 0
	patches.ImageSize, patches.Tile, patches.TileStride = 32, 40, 10
	flow.ImageSize, flow.Tile, flow.TileStride, flow.FlowTop = 32, 40, 30, 0.01
	all := map[string]rdpp.Config{"rd++": tiled(), "mean of the highest": top, "rd": rd, "patchcore": maps, "patches": patches, "fastflow": flow}
	for _, method := range rdpp.Methods() {
		if _, there := all[method]; !there {
			c := tiled()
			c.Method = method
			all[method] = c
		}
	}
	return all
}

// A training's own evaluation, a detector one by one, in batches and with another batch of tiles say the same of an image in
// tiles; the model file knows the tiles, and older programs refuse it.
func TestTiles(t *testing.T) {
	t.Parallel()
	for name, c := range tiledMethods() {
		t.Run(name, func(t *testing.T) {
			dir := trained(t, c)
			model := filepath.Join(dir, rdpp.ModelFile)
			text, err := os.ReadFile(filepath.Join(dir, rdpp.ScoresFile))
			if err != nil {
				t.Fatal(err)
			}
			trained := strings.Split(string(text), "\n")[1:]
			d, err := rdpp.OpenDetector(model, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			single, err := rdpp.OpenDetector(model, &rdpp.DetectorOptions{Batch: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer single.Close()
			info := d.Info()
			if info.FormatVersion < 4 || info.Config.Tile != 40 || info.Config.TileStride == 0 || info.Data.Tiles <= info.Data.Images || !info.Spots.Measured() {
				t.Errorf("got format %d, tiles of %d by %d, %d of %d images a pass, spots %+v", info.FormatVersion, info.Config.Tile, info.Config.TileStride,
					info.Data.Tiles, info.Data.Images, info.Spots)
			}
			if err := d.Try(); err != nil {
				t.Errorf("a grey picture: got %v", err)
			}
			evaluation, err := d.Evaluate(t.Context(), openSet(t, dataDir))
			if err != nil {
				t.Fatal(err)
			}
			for i, item := range openSet(t, dataDir).Test {
				one, img, err := d.DetectFile(item.Path)
				if err != nil {
					t.Fatal(err)
				}
				some, err := d.DetectBatch(slices.Repeat([]*imagefile.Image{img}, 2))
				if err != nil {
					t.Fatal(err)
				}
				other, err := single.Detect(img)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasSuffix(trained[i], ","+strconv.FormatFloat(one.Score, 'g', -1, 64)) {
					t.Errorf("%s: got %v, and in the training's own evaluation %q", item.Path, one.Score, trained[i])
				}
				if one.Score != evaluation.Scores[i].Score || one.Score != some[1].Score || one.Score != other.Score || !slices.Equal(one.Map, other.Map) || one.Score <= 0 {
					t.Errorf("%s: got %v, %v in an evaluation, %v beside another image, %v tile by tile", item.Path, one.Score, evaluation.Scores[i].Score,
						some[1].Score, other.Score)
				}
				if want := int(math.Round(64 * float64(one.Size) / 40)); one.MapW != want || one.MapH != want || len(one.Map) != want*want {
					t.Errorf("%s: got a map of %d x %d, %d values, want %d x %d", item.Path, one.MapW, one.MapH, len(one.Map), want, want)
				}
			}
		})
	}
}

// An image that is one tile is seen as it is without tiles.
func TestOneTile(t *testing.T) {
	t.Parallel()
	top := tiny()
	top.ScoreTop = 0.01
	for _, c := range []rdpp.Config{tiny(), top, remembering()} {
		plain := filepath.Join(trained(t, c), rdpp.ModelFile)
		m, err := rdpp.LoadModel(plain, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		m.Info.Config.Tile, m.Info.Config.TileStride = 64, 48
		path := filepath.Join(t.TempDir(), "tiled.safetensors")
		if err := m.Save(path); err != nil {
			t.Fatal(err)
		}
		m.Close()
		a, err := rdpp.OpenDetector(plain, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := rdpp.OpenDetector(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		for _, item := range openSet(t, dataDir).Test {
			want, _, err := a.DetectFile(item.Path)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := b.DetectFile(item.Path)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.Score-want.Score) > 1e-6 || !slices.Equal(got.Map, want.Map) {
				t.Errorf("%s: %s: got %v, want %v and the same map", c.Method, item.Path, got.Score, want.Score)
			}
		}
	}
}

// A training of tiles that is interrupted and resumed, and one that keeps no images, end in the same model.
func TestTilesResume(t *testing.T) {
	t.Parallel()
	c := tiled()
	c.Batch, c.Epochs, c.Defects = 4, 1, 2
	out := t.TempDir()
	interrupt(t, c, out, stop{1, 2})
	train(t, c, rdpp.TrainOptions{Out: out, Resume: true})
	checkOutcome(t, out, trained(t, c))
	uncached := t.TempDir()
	train(t, c, rdpp.TrainOptions{Out: uncached, CacheBytes: -1, Workers: 3})
	checkOutcome(t, uncached, trained(t, c))

	for _, change := range []struct {
		name string
		to   func(*rdpp.Config)
		text string
	}{
		{"another tile", func(c *rdpp.Config) { c.Tile = 48 }, "tile is 48"},
		{"another stride", func(c *rdpp.Config) { c.TileStride = 20 }, "tile_stride is 20"},
		{"no tiles", func(c *rdpp.Config) { c.Tile, c.TileStride = 0, 0 }, "tile is missing"},
	} {
		other := c
		change.to(&other)
		_, err := rdpp.Train(context.Background(), other, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Resume: true, Teacher: rdpp.TeacherRandom})
		checkError(t, change.name, err, rdpp.ErrConfig, change.text)
	}
	plain := t.TempDir()
	interrupt(t, tiny(), plain, stop{1, 2})
	_, err := rdpp.Train(context.Background(), tiled(), openSet(t, dataDir), rdpp.TrainOptions{Out: plain, Resume: true, Teacher: rdpp.TeacherRandom})
	checkError(t, "tiles where there were none", err, rdpp.ErrConfig, "tile is 40", "does without")
}

// auto chooses by the smallest defect that is wanted, and says what it chose; what was chosen is resumed.
func TestTileAuto(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		defect, tile int
		said         string
	}{
		{12, 48, "tile: 48 pixels, which the network sees at 32"}, {16, 0, "tile: none, as a defect of 16 pixels is large enough"},
	} {
		config, out := tiny(), t.TempDir()
		config.Epochs, config.Tile, config.SmallestDefect = 1, rdpp.TileAuto, c.defect
		var said strings.Builder
		opt := rdpp.TrainOptions{Out: out, Log: slog.New(slog.NewTextHandler(&said, nil))}
		summary := train(t, config, opt)
		if got := summary.Config; got.Tile != c.tile || (got.TileStride != 0) != (c.tile != 0) || got.SmallestDefect != c.defect || !summary.Spots.Measured() {
			t.Errorf("%d pixels: got tiles of %d by %d, want %d; spots %+v", c.defect, got.Tile, got.TileStride, c.tile, summary.Spots)
		}
		if !strings.Contains(said.String(), c.said) {
			t.Errorf("%d pixels: got %q, want %q", c.defect, &said, c.said)
		}
		opt.Resume = true
		if again := train(t, config, opt); again.Config != summary.Config {
			t.Errorf("resumed: got %+v, want %+v", again.Config, summary.Config)
		}
	}
}

// What cannot be is refused in one line before anything is trained.
func TestTileRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*rdpp.Config)
		texts  []string
	}{
		{"larger than all images", func(c *rdpp.Config) { c.Tile = 65 }, []string{"tile is 65", "no image is longer than 64 pixels"}},
		{"smaller than the input", func(c *rdpp.Config) { c.Tile = 31 }, []string{"tile is 31", "use image_size, which is 32"}},
		{"negative", func(c *rdpp.Config) { c.Tile = -2 }, []string{"tile is -2"}},
		{"far too large", func(c *rdpp.Config) { c.Tile = 1 << 20 }, []string{"tile is 1048576"}},
		{"auto of nothing", func(c *rdpp.Config) { c.Tile = rdpp.TileAuto }, []string{"give smallest_defect"}},
		{"auto and a stride", func(c *rdpp.Config) { c.Tile, c.SmallestDefect, c.TileStride = rdpp.TileAuto, 3, 10 }, []string{"tile_stride is 10"}},
		{"a stride of none", func(c *rdpp.Config) { c.TileStride = 10 }, []string{"tile_stride is 10", "goes with a tile"}},
		{"no overlap", func(c *rdpp.Config) { c.Tile, c.TileStride = 48, 43 }, []string{"tile_stride is 43", "12 to 42"}},
		{"far too many tiles", func(c *rdpp.Config) { c.Tile, c.TileStride = 48, 11 }, []string{"tile_stride is 11", "12 to 42"}},
		{"a negative defect", func(c *rdpp.Config) { c.SmallestDefect = -1 }, []string{"smallest_defect is -1"}},
	} {
		config := tiny()
		c.change(&config)
		out := filepath.Join(t.TempDir(), "out")
		_, err := rdpp.Train(context.Background(), config, openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom})
		checkError(t, c.name, err, rdpp.ErrConfig, c.texts...)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got more than a line: %v", c.name, err)
		}
		if _, err := os.Stat(filepath.Join(out, rdpp.ModelFile)); err == nil {
			t.Errorf("%s: got a model", c.name)
		}
	}
}

// A model file whose tiles cannot be is damaged, and no setting of the caller's.
func TestTilesThatLie(t *testing.T) {
	metadata, tensors := contents(t, filepath.Join(trained(t, tiled()), rdpp.ModelFile))
	for _, c := range []struct {
		key   string
		value any
	}{{"tile", -1}, {"tile", 1 << 30}, {"tile_stride", 1}, {"smallest_defect", -5}} {
		text := document(t, metadata["rdpp"], "config", c.key, c.value)
		checkNoModel(t, c.key, writeFile(t, map[string]string{"rdpp": text}, tensors), "damaged")
	}
	text := document(t, metadata["rdpp"], "spots", "smallest", 1<<30)
	checkNoModel(t, "spots", writeFile(t, map[string]string{"rdpp": text}, tensors), "damaged")
}

// An exported file of a model that looks at tiles is of one tile, and says how they are cut and blended.
func TestTilesExport(t *testing.T) {
	t.Parallel()
	m, err := rdpp.LoadModel(filepath.Join(trained(t, tiled()), rdpp.ModelFile), torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	path := filepath.Join(t.TempDir(), "tile.onnx")
	if err := m.Export(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x04tile\x12\x0240", "\x0btile_stride\x12\x0230", "\x0atile_blend\x12\x04hann"} { // as protocol buffers have it
		if !strings.Contains(string(text), want) {
			t.Errorf("got no %q in the file", want)
		}
	}
}

// Who gives images that are much larger than the input of a model without tiles is told once.
func TestTooLargeIsToldOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config rdpp.Config
		want   int
	}{{tiny(), 1}, {tiled(), 0}} {
		var said strings.Builder
		d, err := rdpp.OpenDetector(filepath.Join(trained(t, c.config), rdpp.ModelFile), &rdpp.DetectorOptions{Log: slog.New(slog.NewTextHandler(&said, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, w := range []int{128, 200, 200, 300} {
			detect(t, d, picture(w, 60))
		}
		if got := strings.Count(said.String(), "small defects vanish"); got != c.want || c.want > 0 && !strings.Contains(said.String(), "an image of 200 x 60 pixels is seen at 32 x 32") {
			t.Errorf("tiles of %d: got told %d times, want %d: %s", c.config.Tile, got, c.want, &said)
		}
	}
}

// Tiles are of whole images that nothing is left out of: what says otherwise is refused by training, detector and evaluation.
func TestTilesAlone(t *testing.T) {
	t.Parallel()
	drawn := drawing(t, 64, 64, image.Rect(0, 0, 9, 9))
	for _, c := range []struct {
		to   func(*rdpp.Config)
		want string
	}{
		{func(c *rdpp.Config) { c.Fit = framing.Pad }, "without fit"},
		{func(c *rdpp.Config) { c.Fit = framing.Crop }, "without fit"},
		{func(c *rdpp.Config) { c.ROI = framing.Box{W: 9, H: 9} }, "without roi"},
		{func(c *rdpp.Config) { c.ROIMask = drawn }, "without roi_mask"},
		{func(c *rdpp.Config) { c.Ignore = drawn }, "without ignore_mask"},
		{func(c *rdpp.Config) { c.AugmentShift = 0.1 }, "without augment_shift"},
		{func(c *rdpp.Config) { c.AugmentRotate = 1 }, "without augment_rotate"},
		{func(c *rdpp.Config) { c.AugmentScale = 0.1 }, "without augment_scale"},
	} {
		config := tiled()
		c.to(&config)
		checkError(t, c.want, config.Validate(), rdpp.ErrConfig, "tile is 40", c.want)
	}
	squashed := tiled()
	squashed.Fit = framing.Squash
	if err := squashed.Validate(); err != nil {
		t.Errorf("squash, which is the default: got %v", err)
	}

	file := filepath.Join(t.TempDir(), "mask.png")
	writeMask(t, file, mask(64, 64, image.Rect(0, 0, 64, 20)))
	set := openSet(t, dataDir)
	set.Train[0].Ignore = file
	_, err := rdpp.Train(t.Context(), tiled(), set, rdpp.TrainOptions{Out: t.TempDir(), Teacher: rdpp.TeacherRandom})
	checkError(t, "an image with a mask", err, rdpp.ErrConfig, "tile is 40", "masks of what is ignored")

	d, err := rdpp.OpenDetector(filepath.Join(trained(t, tiled()), rdpp.ModelFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	refused := picture(64, 64)
	if _, err := d.DetectIgnoring(refused, mask(64, 64, image.Rect(0, 0, 9, 9))); !errors.Is(err, framing.ErrTiles) {
		t.Errorf("a mask for a detector: got %v, want %v", err, framing.ErrTiles)
	}
	for i := range refused.Pix { // which nobody reads any more, as the race detector sees
		refused.Pix[i]++
	}
	set = openSet(t, dataDir)
	set.Test[1].Ignore = file
	if _, err := d.Evaluate(t.Context(), set); !errors.Is(err, framing.ErrTiles) || !strings.Contains(err.Error(), set.Test[1].Path) {
		t.Errorf("a mask in an evaluation: got %v, want %v of %s", err, framing.ErrTiles, set.Test[1].Path)
	}
}
