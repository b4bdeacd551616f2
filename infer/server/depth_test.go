package server_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/torch"
)

// deepened is a PNG of 16 bits per sample that holds a picture's 8-bit values times factor.
func deepened(t *testing.T, file []byte, factor int) []byte {
	t.Helper()
	img := pixelsOf(t, file)
	m := image.NewRGBA64(image.Rect(0, 0, img.W, img.H))
	at := func(i int) uint16 { return uint16(int(img.Pix[i]) * factor) }
	for i := 0; i < len(img.Pix); i += 3 {
		m.SetRGBA64(i/3%img.W, i/3/img.W, color.RGBA64{R: at(i), G: at(i + 1), B: at(i + 2), A: 0xffff})
	}
	var deep bytes.Buffer
	if err := png.Encode(&deep, m); err != nil {
		t.Fatal(err)
	}
	return deep.Bytes()
}

// A model of 12 bits reads images of 12 bits as what they show; of others the answer and the log have a word.
func TestBitDepth(t *testing.T) {
	m, err := rdpp.LoadModel(modelFile, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Config.BitDepth = 12
	m.Info.Data.Images, m.Info.Data.Range = 1, dataset.Range{Wide: 1, Largest: 4095, Darkest: 0.2, Brightest: 0.8}
	path := filepath.Join(t.TempDir(), "part.safetensors")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	v := start(t, server.Options{Model: path})
	var about struct {
		BitDepth int `json:"bit_depth"`
	}
	v.ask(t, "GET", "/v1/models/part", nil).into(t, &about)
	if about.BitDepth != 12 {
		t.Errorf("got bit_depth %d, want 12", about.BitDepth)
	}
	for _, c := range []struct {
		name    string
		file    []byte
		warning string
	}{{"12 bits", deepened(t, pictures[0], 16), ""}, {"16 bits", deepened(t, pictures[0], 257), "the training images use 12 bits"}} {
		check := func(by, got string) {
			t.Helper()
			if (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) {
				t.Errorf("%s, %s: got warning %q, want %q", c.name, by, got, c.warning)
			}
		}
		before := strings.Count(v.logs.String(), `"warning":"`)
		a := v.ask(t, "POST", predictPath, c.file)
		var got prediction
		a.into(t, &got)
		if a.status != http.StatusOK || c.warning == "" && got.Score != scores[0] {
			t.Errorf("%s: got status %d, %s, want score %v", c.name, a.status, a.body, scores[0])
		}
		check("JSON", strings.Join(got.Warnings, "; "))
		check("header of the overlay", v.ask(t, "POST", predictPath, c.file, "Accept", "image/png").header.Get("X-Warning"))
		a = v.ask(t, "POST", inferPath, fmt.Appendf(nil, `{"inputs":[{"name":"image","shape":[2],"datatype":"BYTES","data":[%q,%[1]q]}]}`,
			base64.StdEncoding.EncodeToString(c.file)))
		var answer struct {
			Parameters struct{ Warnings string }
		}
		a.into(t, &answer)
		check("V2", answer.Parameters.Warnings)
		if c.warning != "" && !strings.Contains(answer.Parameters.Warnings, "; image 2: ") {
			t.Errorf("%s: got V2's parameters %q, want both images there", c.name, answer.Parameters.Warnings)
		}
		want := 3
		if c.warning == "" {
			want = 0
		}
		eventually(t, "the log has a warning per request", func() bool { return strings.Count(v.logs.String(), `"warning":"`) == before+want })
	}
}
