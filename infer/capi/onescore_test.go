package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"image"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"rdpp/infer/server"
	"rdpp/infer/server/inference"
	"rdpp/rdpp"
	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/export/exporttest"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/tiling"
	"rdpp/torch"
)

// What the promise of one score everywhere allows: nothing where the same libraries compute the same batch, the rounding
// of another arithmetic where another runtime does.
const (
	sameRuntime  = 0
	otherRuntime = 1e-4
)

// answers are scores by path, and verdicts where there are any.
type answers struct {
	scores    map[string]float64
	anomalous map[string]bool
}

// TestOneScore feeds 20 images through everything that scores images. With -v it prints the README's table.
func TestOneScore(t *testing.T) { oneScore(t, framing.View{}, 0) }

// The same of a model that looks at a part of the images, padded, and ignores some of that.
func TestOneScoreFramed(t *testing.T) {
	ignored := &imagefile.Mask{W: 100, H: 100, Pix: make([]uint8, 100*100)}
	for i := range 30 * 100 {
		ignored.Pix[i] = 1
	}
	drawn, err := framing.Draw(ignored)
	if err != nil {
		t.Fatal(err)
	}
	oneScore(t, framing.View{Fit: framing.Pad, ROI: framing.Box{X: 10, Y: 5, W: 60, H: 90}, Ignore: drawn}, 0)
}

// The same of a model that finds the part first, which no exported file does.
func TestOneScoreAligned(t *testing.T) {
	oneScore(t, framing.View{Align: framing.DefaultAlign()}, 0)
}

// TestOneScoreOfTiles does so with a model that looks at tiles; of exported files a tile's outputs are blended by who runs them.
func TestOneScoreOfTiles(t *testing.T) { oneScore(t, framing.View{}, 72) }

func oneScore(t *testing.T, view framing.View, tile int) {
	dir := t.TempDir()
	err := sample.Write(dir, &sample.Options{Category: "part", Size: 100, Train: 4, TestGood: 8, TestDefect: 3, Seed: 2})
	if err != nil {
		t.Fatal(err)
	}
	data, out := filepath.Join(dir, "part"), filepath.Join(dir, "run")
	set, err := dataset.Open(data, nil)
	if err != nil || len(set.Test) != 20 {
		t.Fatal(len(set.Test), err)
	}
	c := rdpp.DefaultConfig()
	c.Arch, c.ImageSize, c.Batch, c.Accumulate, c.Epochs, c.Calibration = "resnet18", 64, 2, 1, 2, 0
	c.Precision, c.View, c.Tile = "fp32", view, tile
	if _, err := rdpp.Train(context.Background(), c, set, rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherDrawn}); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(out, rdpp.ModelFile)
	var paths []string
	for _, item := range set.Test {
		paths = append(paths, item.Path)
	}

	want := answers{map[string]float64{}, map[string]bool{}}
	d, err := rdpp.OpenDetector(model, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	text, err := os.ReadFile(filepath.Join(out, rdpp.ScoresFile))
	if err != nil {
		t.Fatal(err)
	}
	trained := answers{scores: readScores(t, text)}
	for _, path := range paths {
		r, _, err := d.DetectFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want.scores[path], want.anomalous[path] = r.Score, r.Anomalous
	}
	infer := filepath.Join(dir, "infer")
	if text, err := exec.Command("go", "build", "-o", infer, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	command := func(args ...string) []byte {
		var stdout, stderr bytes.Buffer
		cmd := exec.Command(infer, append(args, "--model", model)...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 3 { // some are anomalous
			t.Fatalf("%v: %v: %s", args, err, &stderr)
		}
		return stdout.Bytes()
	}
	for _, way := range []struct {
		name      string
		tolerance float64
		ask       func(t *testing.T) answers
	}{
		{"train, its own evaluation", sameRuntime, func(t *testing.T) answers { return trained }},
		{"infer eval", sameRuntime, func(t *testing.T) answers {
			file := filepath.Join(t.TempDir(), "scores.csv")
			command("eval", "--data", data, "--scores", file)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return answers{scores: readScores(t, text)}
		}},
		{"infer image", sameRuntime, func(t *testing.T) answers {
			got := answers{map[string]float64{}, map[string]bool{}}
			for line := range bytes.Lines(command(append([]string{"image", "--json"}, paths...)...)) {
				var p rdpp.Prediction
				if err := json.Unmarshal(line, &p); err != nil {
					t.Fatal(err)
				}
				got.scores[p.Image], got.anomalous[p.Image] = p.Score, p.Anomalous
			}
			return got
		}},
		{"infer serve", sameRuntime, func(t *testing.T) answers { return serve(t, model, paths) }},
		{"infer serve, over gRPC", sameRuntime, func(t *testing.T) answers { return serveGRPC(t, model, paths) }},
		{"librdpp.so, from C", sameRuntime, func(t *testing.T) answers {
			got := answers{map[string]float64{}, map[string]bool{}}
			stdout, err := exec.Command(compile(t, "cc", "examples/detect.c", "-std=c11"), append([]string{model}, paths...)...).Output()
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(stdout)) {
				fields := strings.Fields(line) // score, normalised, anomalous, regions, width, height, path
				score, err := strconv.ParseFloat(fields[0], 64)
				if err != nil {
					t.Fatal(err)
				}
				got.scores[fields[6]], got.anomalous[fields[6]] = score, fields[2] == "1"
			}
			return got
		}},
		{"ONNX, by onnxruntime", otherRuntime, func(t *testing.T) answers {
			exporttest.NeedONNX(t)
			return exported(t, d, model, rdpp.FormatONNX, paths, exporttest.ONNX)
		}},
		{"TorchScript, by libtorch alone", otherRuntime, func(t *testing.T) answers {
			return exported(t, d, model, rdpp.FormatTorchScript, paths, exporttest.TorchScript)
		}},
	} {
		if view.Align.On() && way.tolerance == otherRuntime {
			continue
		}
		t.Run(way.name, func(t *testing.T) {
			got, worst := way.ask(t), 0.0
			if len(got.scores) != len(paths) {
				t.Fatalf("got %d scores, want %d", len(got.scores), len(paths))
			}
			for _, path := range paths {
				score, found := got.scores[path]
				if !found {
					t.Fatalf("got no score of %s", path)
				}
				worst = max(worst, math.Abs(score-want.scores[path]))
				if verdict, found := got.anomalous[path]; found && verdict != want.anomalous[path] {
					t.Errorf("%s: got anomalous %v, want %v", path, verdict, want.anomalous[path])
				}
			}
			if !(worst <= way.tolerance) {
				t.Errorf("scores differ from the Go API's by up to %g, want %g at most", worst, way.tolerance)
			}
			t.Logf("| %s | %.2g |", way.name, worst)
		})
	}
}

// readScores reads the scores of a CSV file by path.
func readScores(t *testing.T, text []byte) map[string]float64 {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	scores := map[string]float64{}
	for _, row := range rows[1:] {
		if scores[row[0]], err = strconv.ParseFloat(row[3], 64); err != nil {
			t.Fatal(err)
		}
	}
	return scores
}

// serve asks the HTTP service, an image per request.
func serve(t *testing.T, model string, paths []string) (got answers) {
	t.Helper()
	got.scores, got.anomalous = map[string]float64{}, map[string]bool{}
	s, err := server.New(server.Options{Model: model, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	web := httptest.NewServer(s)
	defer web.Close()
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.Post(web.URL+"/v1/models/run/predict", "image/png", bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		var p rdpp.Prediction
		err = json.NewDecoder(answer.Body).Decode(&p)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: got status %d, %v", path, answer.StatusCode, err)
		}
		got.scores[path], got.anomalous[path] = p.Score, p.Anomalous
	}
	return got
}

// serveGRPC asks the service over gRPC, a file per call.
func serveGRPC(t *testing.T, model string, paths []string) (got answers) {
	t.Helper()
	got.scores, got.anomalous = map[string]float64{}, map[string]bool{}
	s, err := server.New(server.Options{Model: model, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.ServeGRPC(ctx, l, "", "") }()
	defer func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	connection, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	client := inference.NewGRPCInferenceServiceClient(connection)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.ModelInfer(t.Context(), &inference.ModelInferRequest{ModelName: "run",
			Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "BYTES", Shape: []int64{1},
				Contents: &inference.InferTensorContents{BytesContents: [][]byte{content}}}},
			Outputs: []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "score"}, {Name: "anomalous"}}})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		got.scores[path], got.anomalous[path] = answer.Outputs[0].Contents.Fp64Contents[0], answer.Outputs[1].Contents.BoolContents[0]
	}
	return got
}

// exported writes the model in a format and runs it: all images in one batch, or all tiles of an image.
func exported(t *testing.T, d *rdpp.Detector, model, format string, paths []string,
	run func(testing.TB, string, exporttest.Batch) exporttest.Result) (got answers) {
	t.Helper()
	got.scores, got.anomalous = map[string]float64{}, map[string]bool{}
	m, err := rdpp.LoadModel(model, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	file := filepath.Join(t.TempDir(), "exported")
	if err := m.Export(context.Background(), file, &rdpp.ExportOptions{Format: format, Picture: image.Pt(100, 100)}); err != nil {
		t.Fatal(err)
	}
	var images []*imagefile.Image
	for _, path := range paths {
		img, err := imagefile.DecodeFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	if m.Info.Config.Tiled() {
		for i, path := range paths {
			score := blended(t, &m.Info.Config, images[i], func(in exporttest.Batch) exporttest.Result { return run(t, file, in) })
			got.scores[path], got.anomalous[path] = score, score > d.Threshold()
		}
		return got
	}
	var in exporttest.Batch
	for _, img := range images {
		in.Pixels = append(in.Pixels, img.Pix...)
		in.Shape = []int64{int64(len(paths)), int64(img.H), int64(img.W), 3}
	}
	result := run(t, file, in)
	for i, path := range paths {
		got.scores[path], got.anomalous[path] = float64(result.Scores[i]), result.Anomalous[i]
	}
	return got
}

// blended is the score of an image of whose tiles run says the maps, made as somebody would who has an exported file alone.
func blended(t *testing.T, c *rdpp.Config, img *imagefile.Image, run func(exporttest.Batch) exporttest.Result) float64 {
	t.Helper()
	grid, err := tiling.New(img.W, img.H, c.Tiling())
	if err != nil {
		t.Fatal(err)
	}
	in := exporttest.Batch{Shape: []int64{int64(grid.Len()), int64(c.Tile), int64(c.Tile), 3}}
	for i := range grid.Len() {
		part := grid.At(i)
		for y := part.Min.Y; y < part.Max.Y; y++ {
			in.Pixels = append(in.Pixels, img.Pix[3*(y*img.W+part.Min.X):][:3*c.Tile]...)
		}
	}
	result, b, area := run(in), tiling.NewBlender(grid), c.ImageSize*c.ImageSize
	for i := range grid.Len() {
		if err := b.Add(result.Maps[i*area:][:area]); err != nil {
			t.Fatal(err)
		}
	}
	cells, err := b.Map()
	if err != nil {
		t.Fatal(err)
	}
	return anomaly.Highest(cells, grid.Cells(c.ScoreTop))
}
