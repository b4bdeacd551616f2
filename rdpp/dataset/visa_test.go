package dataset

import (
	"bytes"
	"context"
	"errors"
	"image"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
)

const splitHeader = "object,split,label,image,mask\n"

// visa makes a small VisA of two objects whose split file has the given text.
func visa(t testing.TB, split string) string {
	t.Helper()
	dir := tree(t, "candle/Data/Images/Normal/0000.JPG", "candle/Data/Images/Normal/0001.JPG", "candle/Data/Images/Normal/0002.JPG",
		"candle/Data/Images/Anomaly/000.JPG", "candle/Data/Images/Anomaly/001.JPG",
		"candle/Data/Masks/Anomaly/000.png", "candle/Data/Masks/Anomaly/001.png",
		"pcb1/Data/Images/Normal/000.JPG", "pcb1/Data/Images/Anomaly/000.JPG", splitFile)
	if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(splitFile)), []byte(split), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

const candleRows = `candle,train,normal,candle/Data/Images/Normal/0002.JPG,
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png
`

func TestOpenVisA(t *testing.T) {
	const byFile = "VisA layout with Data/Images/Normal, split by ../split_csv/1cls.csv"
	train := []string{"candle/Data/Images/Normal/0000.JPG good", "candle/Data/Images/Normal/0002.JPG good"}
	good := "candle/Data/Images/Normal/0001.JPG good"
	masked := "candle/Data/Images/Anomaly/001.JPG anomaly candle/Data/Masks/Anomaly/001.png"
	for _, c := range []struct {
		name, split string
		opt         *OpenOptions
		why         string
		train, test []string
		skipped     []string
	}{
		{
			name: "published columns", split: splitHeader + candleRows + "pcb1,train,normal,pcb1/Data/Images/Normal/000.JPG,\n",
			why: byFile, train: train, test: []string{masked, good},
		},
		{
			name: "columns in another order, quotes, a byte order mark and carriage returns",
			split: "\ufeffmask,\"image\",label,split,object,note\r\n" +
				",candle/Data/Images/Normal/0000.JPG,normal,train,candle,\"first, \"\"best\"\"\r\nof all\"\r\n" +
				",\"candle/Data/Images/Normal/0002.JPG\",normal,train,candle,\r\n" +
				"candle/Data/Masks/Anomaly/001.png,candle//Data/./Images/Anomaly/001.JPG,anomaly,test,\"candle\",\r\n" +
				",candle/Data/Images/Normal/0001.JPG,normal,test,candle,",
			why: byFile, train: train, test: []string{masked, good},
		},
		{
			name: "masks that are not there", split: splitHeader + strings.Replace(candleRows, "Masks/Anomaly/001.png", "Masks/Anomaly/009.png", 1),
			why:   byFile,
			train: train, test: []string{"candle/Data/Images/Anomaly/001.JPG anomaly", good},
		},
		{
			name: "bad lines left out",
			split: splitHeader + candleRows + "candle,train,normal,candle/Data/Images/Normal/0009.JPG,\n" +
				"candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,\n" + "candle,test,normal,candle/Data/Images,\n",
			opt: &OpenOptions{SkipBad: true, Layout: "visa"},
			why: byFile, train: train, test: []string{masked, good},
			skipped: []string{"candle/Data/Images/Normal/0009.JPG", "candle/Data/Images", "candle/Data/Images/Anomaly/000.JPG"},
		},
		{
			name: "an object that is not listed", split: splitHeader + "pcb1,train,normal,pcb1/Data/Images/Normal/000.JPG,\n",
			opt: &OpenOptions{Holdout: 0.3},
			why: "VisA layout with Data/Images/Normal, not listed in ../split_csv/1cls.csv: a folder of good images beside defective ones, 1 of the good images, " +
				"evenly spread, held out for testing",
			train: []string{"candle/Data/Images/Normal/0000.JPG good", "candle/Data/Images/Normal/0001.JPG good"},
			test: []string{"candle/Data/Images/Anomaly/000.JPG Anomaly candle/Data/Masks/Anomaly/000.png",
				"candle/Data/Images/Anomaly/001.JPG Anomaly candle/Data/Masks/Anomaly/001.png", "candle/Data/Images/Normal/0002.JPG good"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := visa(t, c.split)
			set, err := Open(filepath.Join(dir, "candle"), c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if got := short(t, dir, set.Train); !slices.Equal(got, c.train) {
				t.Errorf("train: got %q, want %q", got, c.train)
			}
			if got := short(t, dir, set.Test); !slices.Equal(got, c.test) {
				t.Errorf("test: got %q, want %q", got, c.test)
			}
			hasMasks := slices.ContainsFunc(c.test, func(line string) bool { return strings.Contains(line, "/Masks/") })
			if set.Category != "candle" || set.Layout != "visa" || set.Why != c.why || set.HasMasks != hasMasks {
				t.Errorf("got %s, %s, masks %v, %q\nwant candle, visa, masks %v, %q", set.Category, set.Layout, set.HasMasks, set.Why, hasMasks, c.why)
			}
			var skipped []string
			for _, s := range set.Skipped {
				skipped = append(skipped, rel(t, dir, s.Path))
			}
			if !slices.Equal(skipped, c.skipped) {
				t.Errorf("skipped: got %q, want %q", skipped, c.skipped)
			}
		})
	}
}

func TestOpenVisAErrors(t *testing.T) {
	row := func(row string) string { return splitHeader + candleRows + row + "\n" }
	for _, c := range []struct {
		name, split string
		want        error
		names       string // what the message must say
	}{
		{"empty", "", ErrSplit, "it is empty"},
		{"a missing column", "object,split,label,image\n", ErrSplit, "no column mask"},
		{"semicolons", strings.ReplaceAll(splitHeader+candleRows, ",", ";"), ErrSplit, "no column object"},
		{"too few fields", row("candle,train,normal"), ErrSplit, "line 6"},
		{"an open quote", row(`candle,train,"normal`), ErrSplit, "line 6"},
		{"an absolute path", row("candle,test,normal,/etc/a.png,"), ErrSplit, `line 6: the image "/etc/a.png"`},
		{"a path out of the root", row("candle,test,normal,candle/../../a.png,"), ErrSplit, `line 6: the image "candle/../../a.png"`},
		{"another object's path out of the root", row("pcb1,test,normal,../a.png,"), ErrSplit, `"../a.png"`},
		{"a mask out of the root", row("candle,test,anomaly,candle/a.png,../a.png"), ErrSplit, `line 6: the mask "../a.png"`},
		{"the root", row("candle,test,normal,candle/..,"), ErrSplit, `"candle/.."`},
		{"no image", row("candle,test,normal,,"), ErrSplit, `the image ""`},
		{"a path of two lines", row("candle,test,normal,\"candle/a\nb.png\","), ErrSplit, `"candle/a\nb.png"`},
		{"a path with a zero byte", row("candle,test,normal,candle/a\x00.png,"), ErrSplit, `"candle/a\x00.png"`},
		{"another split", row("candle,val,normal,candle/a.png,"), ErrSplit, `"val"`},
		{"another label", row("candle,test,scratch,candle/a.png,"), ErrSplit, `"scratch"`},
		{"an anomaly to train on", row("candle,train,anomaly,candle/a.png,"), ErrSplit, "line 6"},
		{"an image to train and test on", row("candle,test,normal,candle/Data/Images/Normal/../Normal/0002.JPG,"), ErrSplit, "is that of line 2"},
		{"a huge line", row("candle,test,normal," + strings.Repeat("a", maxSplitFile) + ","), ErrSplit, "more than 16 MiB"},
		{"a long path", row("candle,test,normal," + strings.Repeat("a", 100_000) + "/../../../b,"), ErrSplit, "line 6"},
		{"an image that is not there", row("candle,test,normal,candle/Data/Images/Normal/0009.JPG,"), os.ErrNotExist, "line 6"},
		{"an anomaly without its mask", row("candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,"), ErrImageWithoutMask, "000.JPG"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := visa(t, c.split)
			_, err := Open(filepath.Join(dir, "candle"), nil)
			if !errors.Is(err, c.want) || !containsAll(err, "dataset: ", "1cls.csv", c.names) || len(err.Error()) > 1000 {
				t.Errorf("got error %.2000v, want %v saying %s", err, c.want, c.names)
			}
			if _, err := Open(dir, nil); !errors.Is(err, ErrCategories) || !containsAll(err, "candle, pcb1") {
				t.Errorf("root: got error %v, want %v naming candle, pcb1", err, ErrCategories)
			}
		})
	}
}

// TestPictures reads real files of every published layout to the end: images
// and masks as PNG and BMP, VisA's masks of small numbers.
func TestPictures(t *testing.T) {
	gray := func(size, square int, value uint8) image.Image {
		m := image.NewGray(image.Rect(0, 0, size, size))
		for i := range square * square {
			m.Pix[i/square*size+i%square] = value
		}
		return m
	}
	const size, square = 32, 8
	picture, white, numbers := gray(size, size, 90), gray(size, square, 255), gray(size, square, 3)
	for _, c := range []struct {
		layout string
		files  map[string]image.Image
		mask   int // marked pixels of every mask
	}{
		{"btad", map[string]image.Image{"train/ok/0.bmp": picture, "test/ok/0.bmp": picture, "test/ko/1.bmp": picture, "test/ko/2.png": picture,
			"ground_truth/ko/1.png": white, "ground_truth/ko/2.bmp": white}, square * square},
		{"oct", map[string]image.Image{"train/NORMAL/0.png": picture, "test/NORMAL/1.png": picture, "test/CNV/2.png": picture,
			"test/DME/3.png": picture, "test/DRUSEN/4.png": picture}, 0},
		{"mvtec", map[string]image.Image{"train/good/0.png": picture, "test/cut/1.png": picture, "ground_truth/cut/1_mask.png": white}, square * square},
		{"visa", map[string]image.Image{"Data/Images/Normal/0.png": picture, "Data/Images/Normal/1.png": picture, "Data/Images/Anomaly/0.png": picture,
			"Data/Masks/Anomaly/0.png": numbers}, square * square},
	} {
		t.Run(c.layout, func(t *testing.T) {
			dir := tree(t)
			for name, img := range c.files {
				path := filepath.Join(dir, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(name, ".png") {
					writePNG(t, path, img)
					continue
				}
				var data bytes.Buffer
				if err := bmp.Encode(&data, img); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, data.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			set, err := Open(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			if set.Layout != c.layout || set.HasMasks != (c.mask > 0) {
				t.Errorf("got %s, masks %v, want %s, masks %v", set.Layout, set.HasMasks, c.layout, c.mask > 0)
			}
			cache := NewCache(CacheOptions{Size: size})
			items := slices.Concat(set.Train, set.Test)
			if good, _, err := Check(context.Background(), items, cache, 0, false); err != nil || len(good) != len(items) {
				t.Errorf("got %d images, error %v, want %d", len(good), err, len(items))
			}
			for _, item := range set.Test {
				if item.Mask == "" {
					continue
				}
				if mask, err := cache.Mask(item); err != nil || positive(mask) != c.mask {
					t.Errorf("%s: got %d pixels, error %v, want %d", item.Mask, positive(mask), err, c.mask)
				}
			}
		})
	}
}

// FuzzSplit parses any table: its rows name different files below the root, and
// never train on an anomaly; an error is one short line.
func FuzzSplit(f *testing.F) {
	for _, table := range []string{
		splitHeader + candleRows,
		"\ufeffmask,image,label,split,object,note\r\n,\"a\"\"b,c.png\",normal,train,\"x\",\"\r\n\"\r\n",
		splitHeader + "candle,test,anomaly,/a.png,../../b.png\n",
		splitHeader + "candle,test,normal,a/../../b.png,\n",
		splitHeader + "candle,test,normal,a/./b//c.png,..\n",
		splitHeader + "candle,test,normal," + strings.Repeat("../", 1000) + "a,\n",
		splitHeader + "candle,test,normal,\"a\n",
		splitHeader + strings.Repeat("x", 5000),
		"object,object,split,label,image,mask\n,,,,,\n",
		"",
	} {
		f.Add([]byte(table))
	}
	root := filepath.FromSlash("/data/VisA")
	f.Fuzz(func(t *testing.T, table []byte) {
		rows, err := parseSplit(bytes.NewReader(table))
		if err != nil {
			if message := err.Error(); rows != nil || len(message) > 3000 || strings.ContainsAny(message, "\r\n") {
				t.Fatalf("got %d rows and error %q", len(rows), message)
			}
			return
		}
		seen := make(map[string]bool)
		for _, r := range rows {
			image := filepath.Join(root, r.image)
			for _, name := range []string{image, filepath.Join(root, r.mask)} {
				if name != root && !strings.HasPrefix(name, root+string(filepath.Separator)) {
					t.Fatalf("line %d leaves the root: %q", r.line, name)
				}
			}
			if image == root || seen[image] || r.train && r.defective || r.line < 2 {
				t.Fatalf("got row %+v", r)
			}
			seen[image] = true
		}
	})
}
