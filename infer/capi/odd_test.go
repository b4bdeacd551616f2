package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/torch"
)

// oddPictures are pictures of extreme sizes, and of every depth and colour that PNG has.
func oddPictures() []image.Image {
	random := rand.New(rand.NewPCG(1, 1))
	paint := func(to interface {
		image.Image
		Set(x, y int, c color.Color)
	}) image.Image {
		for y := range to.Bounds().Dy() {
			for x := range to.Bounds().Dx() {
				v := func() uint16 { return uint16(random.IntN(1 << 16)) }
				to.Set(x, y, color.NRGBA64{v(), v(), v(), v() | 0x8000})
			}
		}
		return to
	}
	opaque := color.Palette{color.Black, color.White, color.RGBA{R: 255, A: 255}}
	return []image.Image{
		paint(image.NewGray(image.Rect(0, 0, 1, 1))), paint(image.NewNRGBA(image.Rect(0, 0, 1, 5000))), paint(image.NewNRGBA64(image.Rect(0, 0, 3, 7))),
		paint(image.NewGray16(image.Rect(0, 0, 5000, 1))), paint(image.NewRGBA64(image.Rect(0, 0, 40, 30))),
		paint(image.NewPaletted(image.Rect(0, 0, 65, 64), opaque)), paint(image.NewGray(image.Rect(0, 0, 7, 200))),
	}
}

// ownMask draws the first third of a picture's longer side; nothing of one that is too small for that.
func ownMask(w, h int) *imagefile.Mask {
	m := &imagefile.Mask{W: w, H: h, Pix: make([]uint8, w*h)}
	for i := range m.Pix {
		if x, y := i%w, i/w; w >= h && x < w/3 || w < h && y < h/3 {
			m.Pix[i] = 1
		}
	}
	return m
}

// Pictures of any size, depth and colour, each with a mask of its own, have one score whichever way they are judged, by models with
// every setting of what is looked at.
func TestOneScoreOdd(t *testing.T) {
	dir := t.TempDir()
	good, masks := filepath.Join(dir, "data", "test", "good"), filepath.Join(dir, "masks")
	for _, folder := range []string{good, masks, filepath.Join(dir, "data", "train", "good")} {
		if err := os.MkdirAll(folder, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path string, content []byte) string {
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var paths, graymaps []string
	own := map[string]*imagefile.Mask{}
	for i, picture := range oddPictures() {
		var file bytes.Buffer
		if err := png.Encode(&file, picture); err != nil {
			t.Fatal(err)
		}
		path := write(filepath.Join(good, fmt.Sprintf("%d.png", i)), file.Bytes())
		m := ownMask(picture.Bounds().Dx(), picture.Bounds().Dy())
		encoded, err := imagefile.EncodeMask(m)
		if err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(masks, fmt.Sprintf("%d.png", i)), encoded)
		graymap := append(fmt.Appendf(nil, "P5 %d %d 255\n", m.W, m.H), m.Pix...)
		paths, graymaps = append(paths, path), append(graymaps, write(filepath.Join(dir, fmt.Sprintf("%d.pgm", i)), graymap))
		own[path] = m
	}
	var file bytes.Buffer
	if err := png.Encode(&file, oddPictures()[4]); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "data", "train", "good", "a.png"), file.Bytes())

	infer := filepath.Join(dir, "infer")
	if text, err := exec.Command("go", "build", "-o", infer, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	align, err := framing.DefaultAlign().Learn([]framing.Small{framing.NewSmall(decoded(t, paths[4])), framing.NewSmall(decoded(t, paths[5]))})
	if err != nil {
		t.Fatal(err)
	}
	for name, view := range map[string]framing.View{
		"aligned, padded": {Fit: framing.Pad, Align: align},
		"cut":             {Fit: framing.Crop},
	} {
		t.Run(name, func(t *testing.T) {
			model := oddModel(t, view)
			d, err := rdpp.OpenDetector(model, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			want := map[string]float64{}
			for _, path := range paths {
				r, err := d.DetectIgnoring(decoded(t, path), own[path])
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				want[path] = r.Score
			}
			command := func(args ...string) string {
				t.Helper()
				var stdout, stderr bytes.Buffer
				cmd := exec.Command(infer, append(args, "--model", model)...)
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 3 {
					t.Errorf("%v: %v: %s", args, err, &stderr)
				}
				return stdout.String()
			}
			check := func(way, path string, score float64) {
				t.Helper()
				if score != want[path] {
					t.Errorf("%s: %s: got %v, want %v", way, path, score, want[path])
				}
			}
			objects := command(append([]string{"image", "--json", "--ignore", masks}, paths...)...)
			if n := strings.Count(objects, "\n"); n != len(paths) {
				t.Errorf("infer image: got %d lines, want %d", n, len(paths))
			}
			for line := range strings.Lines(objects) {
				var p rdpp.Prediction
				if err := json.Unmarshal([]byte(line), &p); err != nil {
					t.Fatal(err)
				}
				check("infer image", p.Image, p.Score)
			}
			csv := filepath.Join(t.TempDir(), "scores.csv")
			command("eval", "--data", filepath.Join(dir, "data"), "--ignore", masks, "--scores", csv)
			table, err := os.ReadFile(csv)
			if err != nil {
				t.Fatal(err)
			}
			evaluated := readScores(t, table)
			for _, path := range paths {
				check("infer eval", path, evaluated[path])
			}
			var args []string
			for i, path := range paths {
				args = append(args, path, graymaps[i])
			}
			text, err := exec.Command(compile(t, "cc", "testdata/ignore.c", "-std=c11"), append([]string{model}, args...)...).Output()
			if err != nil || bytes.Count(text, []byte("\n")) != len(paths) {
				t.Errorf("C: got %q, %v, want %d lines", text, err, len(paths))
			}
			for line := range strings.Lines(string(text)) {
				number, path, _ := strings.Cut(strings.TrimSpace(line), " ")
				score, err := strconv.ParseFloat(number, 64)
				if err != nil {
					t.Fatal(err)
				}
				check("C", path, score)
			}
			s, err := server.New(server.Options{Model: model, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			web := httptest.NewServer(s)
			defer web.Close()
			for _, path := range paths {
				check("infer serve", path, ask(t, web.URL+"/v1/models/odd/predict", path, filepath.Join(masks, filepath.Base(path))))
			}
		})
	}
}

// oddModel is one of fresh weights.
func oddModel(t *testing.T, view framing.View) string {
	t.Helper()
	c := rdpp.DefaultConfig()
	c.Arch, c.ImageSize, c.View = "resnet18", 64, view
	m, err := rdpp.NewModel(c, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Category, m.Info.Calibration = "odd", rdpp.Calibration{Rule: "by hand", Threshold: 1, PixelThreshold: 1}
	model := filepath.Join(t.TempDir(), "odd.safetensors")
	if err := m.Save(model); err != nil {
		t.Fatal(err)
	}
	return model
}

func decoded(t *testing.T, path string) *imagefile.Image {
	t.Helper()
	img, err := imagefile.DecodeFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// ask is the score that a service gives an image with a mask.
func ask(t *testing.T, address, path, mask string) float64 {
	t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for field, name := range map[string]string{"image": path, "ignore": mask} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		part, err := w.CreateFormFile(field, filepath.Base(name))
		if err == nil {
			_, err = part.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(address, w.FormDataContentType(), &form)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	var all []rdpp.Prediction
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: got status %d, %s, %v", path, answer.StatusCode, text, err)
	}
	return all[0].Score
}
