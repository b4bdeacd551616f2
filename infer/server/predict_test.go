package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"rdpp/infer/server"
	"rdpp/rdpp"
	"rdpp/rdpp/history"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/metric"
)

type prediction struct {
	rdpp.Prediction
	Heatmap *struct {
		Width, Height int
		Data          string
	}
}

// The service says of an image what a Detector says, to the last bit where the image is alone.
func TestPredict(t *testing.T) {
	v := start(t, server.Options{})
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i, file := range pictures {
		want, _, err := d.DetectBytes(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"image/png", "application/octet-stream", "application/x-www-form-urlencoded", "image/jpeg"} {
			a := v.ask(t, "POST", predictPath+"?name=a.png", file, "Content-Type", kind)
			var got prediction
			a.into(t, &got)
			if a.status != http.StatusOK || !reflect.DeepEqual(got.Prediction, want.Prediction("a.png")) || got.Heatmap != nil {
				t.Errorf("picture %d as %s: got status %d, %s, want %+v", i, kind, a.status, a.body, want.Prediction("a.png"))
			}
		}
		a := v.ask(t, "POST", predictPath+"?heatmap=1", file)
		var got prediction
		a.into(t, &got)
		data, err := base64.StdEncoding.DecodeString(got.Heatmap.Data)
		if err != nil || got.Heatmap.Width != want.Size || got.Heatmap.Height != want.Size || len(data) != 4*len(want.Map) {
			t.Fatalf("picture %d: got a heatmap of %d x %d with %d bytes, %v", i, got.Heatmap.Width, got.Heatmap.Height, len(data), err)
		}
		for j, value := range want.Map {
			if got := math.Float32frombits(binary.LittleEndian.Uint32(data[4*j:])); got != value {
				t.Fatalf("picture %d: got %v at %d of the map, want %v", i, got, j, value)
			}
		}
	}
}

func TestPredictForm(t *testing.T) {
	v := start(t, server.Options{})
	body, kind := form(pictures...)
	a := v.ask(t, "POST", predictPath, body, "Content-Type", kind)
	var got []prediction
	a.into(t, &got)
	if a.status != http.StatusOK || len(got) != len(pictures) {
		t.Fatalf("got status %d, %s, want %d predictions", a.status, a.body, len(pictures))
	}
	const tolerance = 1e-4 // the batch's size differs
	for i, p := range got {
		if math.Abs(p.Score-scores[i]) > tolerance || p.Image != string(rune('0'+i))+".png" || p.Anomalous != (p.Score > threshold) {
			t.Errorf("picture %d: got %+v, want score %v and its name", i, p.Prediction, scores[i])
		}
	}
	body, kind = form(pictures[0], []byte("no picture"))
	if a := v.ask(t, "POST", predictPath, body, "Content-Type", kind); a.status != http.StatusBadRequest || !strings.Contains(a.reason(), `image 2, "1.png"`) {
		t.Errorf("a bad second image: got status %d, %s, want 400 and its name", a.status, a.body)
	}
}

// A form's mask is for all of its pictures, and a history keeps it.
func TestPredictIgnore(t *testing.T) {
	h, err := history.Open(filepath.Join(t.TempDir(), "line.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	v := start(t, server.Options{History: h})
	d, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	img := pixelsOf(t, pictures[0])
	drawn := func(w, h int, part image.Rectangle) []byte {
		m := image.NewGray(image.Rect(0, 0, w, h))
		draw.Draw(m, part, image.NewUniform(color.White), image.Point{}, draw.Src)
		var file bytes.Buffer
		if err := png.Encode(&file, m); err != nil {
			t.Fatal(err)
		}
		return file.Bytes()
	}
	ask := func(masks ...[]byte) *answer {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		add := func(field string, file []byte) {
			part, err := w.CreateFormFile(field, field+".png")
			if err == nil {
				_, err = part.Write(file)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, mask := range masks {
			add("ignore", mask)
		}
		add("image", pictures[0])
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return v.ask(t, "POST", predictPath, b.Bytes(), "Content-Type", w.FormDataContentType())
	}
	half := drawn(img.W, img.H, image.Rect(0, 0, img.W, img.H/2))
	mask, err := imagefile.DecodeMask(half, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := d.DetectIgnoring(img, mask)
	if err != nil {
		t.Fatal(err)
	}
	a := ask(half)
	var got []prediction
	a.into(t, &got)
	if len(got) != 1 || !reflect.DeepEqual(got[0].Prediction, want.Prediction("image.png")) || want.Score == scores[0] {
		t.Errorf("got status %d, %s, want %+v", a.status, a.body, want.Prediction("image.png"))
	}
	if a := ask(drawn(img.W, img.H, image.Rectangle{})); a.status != http.StatusOK {
		t.Errorf("a mask that draws nothing: got status %d, %s", a.status, a.body)
	}
	var sums []string
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, r.MaskSHA256)
	}
	if len(sums) != 2 || sums[1] != "" {
		t.Fatalf("got the masks %q in the history, want one, and none of that which draws nothing", sums)
	}
	file, err := h.Mask(t.Context(), sums[0])
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := imagefile.DecodeMask(file, nil); err != nil || !reflect.DeepEqual(kept, mask) {
		t.Errorf("got another mask in the history than in the form, %v", err)
	}
	for _, c := range []struct {
		masks [][]byte
		want  string
	}{
		{[][]byte{half, half}, "two fields"},
		{[][]byte{[]byte("no picture")}, "the mask ignore"},
		{[][]byte{drawn(img.W, img.H, image.Rect(0, 0, img.W, img.H))}, "nothing of the picture is left"},
		{[][]byte{drawn(img.W, 3*img.H, image.Rect(0, 0, 1, 1))}, "another shape"},
	} {
		if a := ask(c.masks...); a.status != http.StatusBadRequest || !strings.Contains(a.reason(), c.want) {
			t.Errorf("%s: got status %d, %s, want 400", c.want, a.status, a.body)
		}
	}
}

// One of several images is answered with the status that it would get alone.
func TestTooLargeOfSeveral(t *testing.T) {
	v := start(t, server.Options{MaxMemory: 64 << 20, MaxBody: 1 << 20})
	large := blank(t, 9000) // 81 megapixels
	if a := v.ask(t, "POST", predictPath, large); a.status != http.StatusRequestEntityTooLarge {
		t.Fatalf("alone: got status %d, %s, want 413", a.status, a.body)
	}
	body, kind := form(pictures[0], large)
	if a := v.ask(t, "POST", predictPath, body, "Content-Type", kind); a.status != http.StatusRequestEntityTooLarge || !strings.Contains(a.reason(), `image 2, "1.png"`) {
		t.Errorf("beside another: got status %d, %s, want 413 and its name", a.status, a.body)
	}
}

// A request's choice among regions is followed: a lower level makes them larger, and small ones are left out.
func TestPredictRegions(t *testing.T) {
	v := start(t, server.Options{})
	regions := func(query string) []metric.Region {
		a := v.ask(t, "POST", predictPath+"?threshold=0.01"+query, pictures[0])
		var got prediction
		a.into(t, &got)
		if a.status != http.StatusOK || !got.Anomalous {
			t.Fatalf("%s: got status %d, %s, want an anomalous image", query, a.status, a.body)
		}
		return got.Regions
	}
	own, wide := regions(""), regions("&region_low=0")
	if len(own) == 0 || len(wide) != 1 || wide[0].Area <= own[0].Area || wide[0].Peak != own[0].Peak {
		t.Fatalf("got %+v, with a low level %+v, want a larger one of the same peak", own, wide)
	}
	for query, want := range map[string]int{"&min_area=": own[0].Area, "&min_length=": max(own[0].Width, own[0].Height)} {
		if got := regions(query + strconv.Itoa(want)); len(got) == 0 || got[0] != own[0] {
			t.Errorf("%s%d: got %+v, want %+v first", query, want, got, own[0])
		}
		for _, r := range regions(query + strconv.Itoa(want+1)) {
			if r == own[0] {
				t.Errorf("%s%d: got %+v", query, want+1, r)
			}
		}
	}
}

func TestPredictThreshold(t *testing.T) {
	dir := t.TempDir()
	copyFile(t, modelFile, dir+"/part.safetensors")
	copyFile(t, otherFile, dir+"/calibrated.safetensors")
	v := start(t, server.Options{Model: dir})
	for _, c := range []struct {
		query string
		score float64 // threshold of the score
		pixel float64
	}{
		{"", threshold, threshold},
		{"?threshold=6", 6, 6},
		{"?threshold=0", 0, 0},
		{"?pixel_threshold=0.25", threshold, 0.25},
		{"?threshold=0.5&pixel_threshold=1.5", 0.5, 1.5},
	} {
		a := v.ask(t, "POST", predictPath+c.query, pictures[0])
		var got prediction
		a.into(t, &got)
		if got.Score != scores[0] || got.Threshold != c.score || got.PixelThreshold != c.pixel || got.Anomalous != (scores[0] > c.score) ||
			(len(got.Regions) > 0) != (scores[0] > c.pixel) || got.Provisional != !strings.Contains(c.query, "?threshold") {
			t.Errorf("%s: got status %d, %s", c.query, a.status, a.body)
		}
	}
	var got prediction
	v.ask(t, "POST", "/v1/models/calibrated/predict?false_alarm=0.2", pictures[0]).into(t, &got)
	if got.PValue == nil || !(got.Threshold > 2) {
		t.Errorf("another rate: got %+v, want a p-value and a threshold above 2", got.Prediction)
	}
}

func TestPredictOverlay(t *testing.T) {
	v := start(t, server.Options{})
	for accept, isPicture := range map[string]bool{
		"image/png": true, "image/png, application/json": true, "image/avif,image/webp,image/*": true,
		"application/json, image/png": false, "*/*": false, "image/png;q=0, application/json": false, "": false,
		"image/png;q=0.0, */*": false, "*/*, image/png;q=0.5": false, "application/json;q=0.5, image/png;q=0.6": true,
		"image/png;q=0.5, application/json;q=0.50": true, "image/*;q=0.1, application/json;q=0": true, "*/*;q=0.1, image/png": true,
		"text/html, image/*;q=0.8, */*;q=0.9": false, "image/*, image/png;q=0, */*;q=0.1": false, "image/png;q=2, */*": false,
		"IMAGE/PNG; Q=0.7": true,
	} {
		a := v.ask(t, "POST", predictPath, pictures[1], "Accept", accept)
		if a.status != http.StatusOK || (a.header.Get("Content-Type") == "image/png") != isPicture {
			t.Errorf("Accept: %s: got status %d, %s, want 200 and a picture: %v", accept, a.status, a.header.Get("Content-Type"), isPicture)
		}
		if !isPicture {
			continue
		}
		overlay, err := png.Decode(bytes.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		if want := pixelsOf(t, pictures[1]); overlay.Bounds().Dx() != want.W || overlay.Bounds().Dy() != want.H {
			t.Errorf("Accept: %s: got a picture of %v, want %d x %d", accept, overlay.Bounds(), want.W, want.H)
		}
		if a.header.Get("X-Score") == "" || a.header.Get("X-Anomalous") == "" {
			t.Errorf("Accept: %s: got header %v, want score and verdict", accept, a.header)
		}
	}
	body, kind := form(pictures[:2]...)
	if a := v.ask(t, "POST", predictPath, body, "Content-Type", kind, "Accept", "image/png"); a.status != http.StatusBadRequest {
		t.Errorf("an overlay of two: got status %d, %s, want 400", a.status, a.body)
	}
	for _, accept := range []string{"text/html", "application/json;q=0, image/png;q=0.000", "nonsense"} {
		if a := v.ask(t, "POST", predictPath, pictures[0], "Accept", accept); a.status != http.StatusNotAcceptable || a.reason() == "" {
			t.Errorf("Accept: %s: got status %d, %s, want 406", accept, a.status, a.body)
		}
	}
}

// Every wrong request is told why, by the right status.
func TestRefusals(t *testing.T) {
	v := start(t, server.Options{MaxBody: 100_000, MaxQueue: 4, Detector: rdpp.DetectorOptions{MaxPixels: 10_000}})
	five, fiveKind := form(pictures[0], pictures[1], pictures[2], pictures[3], pictures[0])
	field := "--x\r\nContent-Disposition: form-data; name=\"threshold\"\r\n\r\n1\r\n--x--\r\n"
	for _, c := range []struct {
		what, method, path string
		body               []byte
		header             []string
		status             int
		reason             string
	}{
		{"text", "POST", predictPath, []byte("hello"), nil, 400, "not an image"},
		{"nothing", "POST", predictPath, nil, nil, 400, "empty"},
		{"half a file", "POST", predictPath, pictures[0][:len(pictures[0])/2], nil, 400, "PNG file, copy it again"},
		{"large pixels", "POST", predictPath, painted(101, 100, 0), nil, 400, "--max-pixels"},
		{"large body", "POST", predictPath, make([]byte, 100_001), nil, 413, "--max-body"},
		{"JSON", "POST", predictPath, []byte("{}"), []string{"Content-Type", "application/json"}, 415, "application/json"},
		{"odd type", "POST", predictPath, pictures[0], []string{"Content-Type", "image/"}, 415, "Content-Type"},
		{"compressed", "POST", predictPath, pictures[0], []string{"Content-Encoding", "gzip"}, 415, "gzip"},
		{"compressed JSON", "POST", inferPath, []byte("{}"), []string{"Content-Encoding", "br"}, 415, "br"},
		{"compressed twice", "POST", predictPath, pictures[0], []string{"Content-Encoding", "identity, gzip"}, 415, "gzip"},
		{"no boundary", "POST", predictPath, five, []string{"Content-Type", "multipart/form-data"}, 400, "boundary"},
		{"other boundary", "POST", predictPath, five, []string{"Content-Type", "multipart/form-data; boundary=y"}, 400, "body cannot be read"},
		{"empty form", "POST", predictPath, []byte("--x--\r\n"), []string{"Content-Type", "multipart/form-data; boundary=x"}, 400, "no file"},
		{"a field", "POST", predictPath, []byte(field), []string{"Content-Type", "multipart/form-data; boundary=x"}, 400, "threshold"},
		{"many images", "POST", predictPath, five, []string{"Content-Type", fiveKind}, 413, "more than 4 images"},
		{"misspelt option", "POST", predictPath + "?treshold=1", pictures[0], nil, 400, "treshold"},
		{"two thresholds", "POST", predictPath + "?threshold=1&threshold=2", pictures[0], nil, 400, "2 times"},
		{"word", "POST", predictPath + "?threshold=high", pictures[0], nil, 400, "threshold"},
		{"NaN", "POST", predictPath + "?threshold=NaN", pictures[0], nil, 400, "threshold"},
		{"negative", "POST", predictPath + "?pixel_threshold=-1", pictures[0], nil, 400, "pixel_threshold"},
		{"a negative level", "POST", predictPath + "?region_low=-1", pictures[0], nil, 400, "region_low"},
		{"a part of a pixel", "POST", predictPath + "?min_area=1.5", pictures[0], nil, 400, "min_area"},
		{"a negative length", "POST", predictPath + "?min_length=-1", pictures[0], nil, 400, "min_length"},
		{"rate", "POST", predictPath + "?false_alarm=1", pictures[0], nil, 400, "false_alarm"},
		{"not calibrated", "POST", predictPath + "?false_alarm=0.1", pictures[0], nil, 400, "calibration"},
		{"rate and threshold", "POST", predictPath + "?false_alarm=0.1&threshold=1", pictures[0], nil, 400, "exclude"},
		{"heatmap", "POST", predictPath + "?heatmap=maybe", pictures[0], nil, 400, "heatmap"},
		{"query", "POST", predictPath + "?a=%zz", pictures[0], nil, 400, "query"},
		{"unknown model", "POST", "/v1/models/nobody/predict", pictures[0], nil, 404, "nobody"},
		{"method", "GET", predictPath, nil, nil, 405, "POST"},
		{"odd method", "BREW", "/v2", nil, nil, 405, "GET"},
		{"address", "GET", "/v3", nil, nil, 404, "/v3"},
		{"dots", "POST", "/v1/models/../../etc/passwd", pictures[0], nil, 400, "shortest"},
		{"hidden dots", "POST", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd/predict", pictures[0], nil, 400, "shortest"},
		{"slash", "POST", "/v1/models/a%2Fb/predict", pictures[0], nil, 404, "a/b"},
		{"zero byte", "POST", "/v1/models/part%00/predict", pictures[0], nil, 404, "part"},
		{"two slashes", "POST", "/v1//models/part/predict", pictures[0], nil, 400, "shortest"},
		{"load a path", "POST", "/v2/repository/models/%2e%2e%2fpart/load", nil, nil, 400, "shortest"},
		{"load a stranger", "POST", "/v2/repository/models/stranger/load", nil, nil, 404, "stranger"},
		{"load a file", "POST", "/v2/repository/models/etc%2Fpasswd/load", nil, nil, 404, "etc/passwd"},
		{"index", "POST", "/v2/repository/index", []byte("[1"), nil, 400, "ready"},
		{"other origin", "POST", predictPath, pictures[0], []string{"Sec-Fetch-Site", "cross-site"}, 403, "cross-origin"},
	} {
		a := v.ask(t, c.method, c.path, c.body, c.header...)
		if a.status != c.status || !strings.Contains(a.reason(), c.reason) || a.reason() == "" {
			t.Errorf("%s: got status %d, %.300s, want %d and %q", c.what, a.status, a.body, c.status, c.reason)
		}
	}
	if a := v.ask(t, "POST", predictPath, pictures[0]); a.status != http.StatusOK {
		t.Errorf("afterwards: got status %d, %s, want 200", a.status, a.body)
	}
	if strings.Contains(v.logs.String(), "panic") {
		t.Errorf("got a panic: %s", v.logs)
	}
}
