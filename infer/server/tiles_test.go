package server_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/torch"
)

// tiledConfig is that of a model which looks at tiles of 40 pixels.
func tiledConfig() rdpp.Config {
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize, config.Tile, config.TileStride = "resnet18", modelSide, 40, 30
	return config
}

// modelOf writes a model of drawn weights, and opens it.
func modelOf(t *testing.T, config rdpp.Config) (path string, d *rdpp.Detector) {
	t.Helper()
	m, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Info.Calibration = rdpp.Calibration{Rule: "by hand", Threshold: 1, PixelThreshold: 1}
	path = filepath.Join(t.TempDir(), "part.safetensors")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	if d, err = rdpp.OpenDetector(path, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return path, d
}

// A model that looks at tiles is served as others are; its maps have the pictures' shapes, and what takes memory is counted.
func TestTiles(t *testing.T) {
	path, d := modelOf(t, tiledConfig())
	v := start(t, server.Options{Model: path})
	for i, file := range pictures {
		want, img, err := d.DetectBytes(file)
		if err != nil {
			t.Fatal(err)
		}
		a := v.ask(t, "POST", predictPath+"?heatmap=1", file)
		var got prediction
		a.into(t, &got)
		data, err := base64.StdEncoding.DecodeString(got.Heatmap.Data)
		if err != nil || got.Score != want.Score || got.Heatmap.Width != want.MapW || got.Heatmap.Height != want.MapH || len(data) != 4*want.MapW*want.MapH {
			t.Errorf("picture %d: got a score of %v and a map of %d x %d with %d bytes, want %v and %d x %d, %v", i, got.Score, got.Heatmap.Width,
				got.Heatmap.Height, len(data), want.Score, want.MapW, want.MapH, err)
		}
		if a := v.ask(t, "POST", predictPath, file, "Accept", "image/png"); a.status != http.StatusOK || a.header.Get("Content-Type") != "image/png" {
			t.Errorf("picture %d as PNG: got status %d, %q", i, a.status, a.body)
		}
		body, length := withTail(fmt.Sprintf(`{"inputs":[{"name":"image","shape":[2,%d,%d,3],"datatype":"UINT8","parameters":{"binary_data_size":%d}}],
			"outputs":[{"name":"score"},{"name":"map"}]}`, img.H, img.W, 2*len(img.Pix)), img.Pix, img.Pix)
		a = v.ask(t, "POST", inferPath, body, lengthHeader, length)
		var answer inferAnswer
		a.into(t, &answer)
		if a.status != http.StatusOK || !slices.Equal(answer.Outputs[1].Shape, []int{2, want.MapH, want.MapW}) {
			t.Errorf("picture %d by V2: got status %d, %.200s, want maps of %d x %d", i, a.status, a.body, want.MapW, want.MapH)
		}
	}
	both, length := withTail(fmt.Sprintf(`{"inputs":[{"name":"image","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":%d}}],"outputs":[{"name":"map"}]}`,
		8+len(pictures[0])+len(pictures[1])), sized(pictures[0]), sized(pictures[1]))
	if a := v.ask(t, "POST", inferPath, both, lengthHeader, length); a.status != http.StatusBadRequest || !strings.Contains(a.reason(), "different sizes") {
		t.Errorf("maps of two sizes: got status %d, %q", a.status, a.body)
	}
	if a := v.ask(t, "GET", "/v2/models/part", nil); !strings.Contains(string(a.body), `{"name":"map","shape":[-1,-1,-1],"datatype":"FP32"}`) {
		t.Errorf("metadata: got %s", a.body)
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for _, field := range []string{"image", "ignore"} {
		part, err := w.CreateFormFile(field, field+".png")
		if err == nil {
			_, err = part.Write(pictures[0])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if a := v.ask(t, "POST", predictPath, form.Bytes(), "Content-Type", w.FormDataContentType()); a.status != http.StatusBadRequest ||
		!strings.Contains(a.reason(), "tiles") {
		t.Errorf("a mask: got status %d, %.200q", a.status, a.body)
	}
	if a := v.ask(t, "GET", "/v1/models/part", nil); !strings.Contains(string(a.body), `"tile":40`) {
		t.Errorf("about: got %s", a.body)
	}
}

// The picture itself waits for its turn, so it counts.
func TestTilesMemory(t *testing.T) {
	path, _ := modelOf(t, tiledConfig())
	v := start(t, server.Options{Model: path, MaxBody: 4 << 20, MaxMemory: 16 << 20})
	large := painted(1500, 1400, 1) // 6.3 MB as pixels, which alone would fit
	if a := v.ask(t, "POST", predictPath, large); a.status != http.StatusRequestEntityTooLarge || !strings.Contains(a.reason(), "--max-memory") {
		t.Errorf("got status %d, %.200q", a.status, a.body)
	}
	if a := v.ask(t, "POST", predictPath, pictures[0]); a.status != http.StatusOK {
		t.Errorf("a small one: got status %d, %.200q", a.status, a.body)
	}
}
