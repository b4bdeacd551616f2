package server_test

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/history"
)

// lit is a PNG file of a picture with a mean brightness of so many of 255, or one or two more or less.
func lit(t *testing.T, mean, i int) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, 48, 48))
	for at := range img.Pix {
		img.Pix[at] = color.Gray{Y: uint8(mean - 20 + (at*7+i)%41 + i*5%4)}.Y
	}
	var file bytes.Buffer
	if err := png.Encode(&file, img); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// TestDrift: a model's images that become darker are told of, in log and metrics, also where the service was started anew meanwhile.
// A wish of a request plays no part in it, nor does another model.
func TestDrift(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"line", "other"} {
		c := rdpp.Calibration{Rule: "all", Provisional: true, Threshold: 5, PixelThreshold: 5}
		if err := writeModel(filepath.Join(dir, name+".safetensors"), modelSide, uint64(i+1), c); err != nil {
			t.Fatal(err)
		}
	}
	h, err := history.Open(filepath.Join(t.TempDir(), "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	opt := server.Options{Model: dir, History: h, Drift: 0.1}
	ask := func(v *service, model string, images, mean int) {
		t.Helper()
		for i := range images {
			if a := v.ask(t, "POST", "/v1/models/"+model+"/predict?threshold=0", lit(t, mean, i)); a.status != http.StatusOK {
				t.Fatalf("got status %d, %s", a.status, a.body)
			}
		}
	}
	v := start(t, opt)
	ask(v, "line", 80, 150)
	ask(v, "other", 20, 150)
	if err := v.stop(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(v.logs.String(), `"drift"`) {
		t.Errorf("nothing has changed: got the log %s", v.logs)
	}
	v = start(t, opt)
	ask(v, "line", 25, 100)
	ask(v, "other", 10, 150)
	text := string(v.ask(t, "GET", "/metrics", nil).body)
	for _, want := range []string{`rdpp_drift_warnings_total{model="line",stream="brightness"} 1`, `rdpp_drift_warnings_total{model="other",stream="brightness"} 0`,
		`rdpp_drift_now{model="line",stream="width"} 48`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("want %s in the metrics\n%s", want, text)
		}
	}
	if logs := v.logs.String(); strings.Count(logs, "the mean brightness of good images fell: 0.39") != 1 || strings.Contains(logs, `"drift","model":"other"`) {
		t.Errorf("got the log %s", logs)
	}
}
