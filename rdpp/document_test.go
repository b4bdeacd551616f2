package rdpp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/weights"
)

// writeOld writes a file as versions did that stored no digest.
func writeOld(t testing.TB, metadata map[string]string, sources []weights.Source) string {
	t.Helper()
	metadata = maps.Clone(metadata)
	delete(metadata, weights.DigestKey)
	delete(metadata, weights.DigestOfKey)
	path := filepath.Join(t.TempDir(), "old.safetensors")
	if err := atomicfile.Write(path, func(w io.Writer) error { return weights.Write(w, metadata, sources) }); err != nil {
		t.Fatal(err)
	}
	return path
}

// A model of a version without digests opens with a notice, and judges as it did.
func TestModelWithoutDigest(t *testing.T) {
	path := trainedModel(t)
	metadata, sources := contents(t, path)
	old := writeOld(t, metadata, sources)
	var log bytes.Buffer
	opt := rdpp.DetectorOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}
	img := picture(64, 48)
	var got [2]float64
	for i, path := range []string{path, old} {
		d, err := rdpp.OpenDetector(path, &opt)
		if err != nil {
			t.Fatal(err)
		}
		got[i] = detect(t, d, img).Score
		d.Close()
		if lines := strings.Count(log.String(), "\n"); lines != i || i == 1 && !strings.Contains(log.String(), "no digest") {
			t.Errorf("%s: got the log %q, want %d lines", path, &log, i)
		}
	}
	if got[0] != got[1] {
		t.Errorf("got the score %v without a digest, want %v", got[1], got[0])
	}
	info, err := rdpp.Inspect(old)
	if err != nil || info.Digest != "" || info.Damage != "" {
		t.Errorf("got %v and the digest %q, damage %q, want none", err, info.Digest, info.Damage)
	}
}

// A bit that flips anywhere in a model file is found. Package weights tries every bit of a small file.
func TestDamagedModel(t *testing.T) {
	whole, err := os.ReadFile(trainedModel(t))
	if err != nil {
		t.Fatal(err)
	}
	header := 8 + int(binary.LittleEndian.Uint64(whole))
	rng := rand.New(rand.NewPCG(1, 2))
	places := []int{bytes.Index(whole, []byte(`\"threshold\":`)) + len(`\"threshold\":`), header, len(whole) - 1}
	for range 12 {
		places = append(places, 8+rng.IntN(header-8), header+rng.IntN(len(whole)-header))
	}
	path := filepath.Join(t.TempDir(), "damaged.safetensors")
	for _, place := range places {
		bit := byte(1) << rng.IntN(8)
		whole[place] ^= bit
		if err := os.WriteFile(path, whole, 0o666); err != nil {
			t.Fatal(err)
		}
		whole[place] ^= bit
		checkNoModel(t, "a flipped bit", path)
		if t.Failed() {
			t.Fatalf("byte %d, bit %#x", place, bit)
		}
	}
	if _, err := rdpp.Inspect(path); err != nil {
		t.Errorf("infer info: got %v, want what there is", err)
	}
	digits := bytes.Index(whole, []byte(weights.DigestKey)) + len(weights.DigestKey) + 5
	whole[digits] ^= 1
	if err := os.WriteFile(path, whole, 0o666); err != nil {
		t.Fatal(err)
	}
	if info, err := rdpp.Inspect(path); err != nil || !strings.Contains(info.Damage, "digest") && !strings.Contains(info.Damage, "SHA-256") {
		t.Errorf("another digest: got %v and the damage %q, want that it does not fit", err, info.Damage)
	}
	checkNoModel(t, "another digest", path, "damaged, or was changed")
}

// What cannot be in a document is refused, also where a digest, which anybody can compute, fits it.
func TestDocumentThatLies(t *testing.T) {
	metadata, sources := contents(t, trainedModel(t))
	good := metadata["rdpp"]
	replaced := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %q in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	set := func(section, key string, value any) string { return document(t, good, section, key, value) }
	for _, c := range []struct {
		name, text, want string
		old              bool // only without a digest
	}{
		{"no threshold", set("calibration", "threshold", nil), "calibration.threshold is missing", false},
		{"a threshold of null", replaced(`"threshold":`, `"threshold":null,"was":`), "", false},
		{"a capital", replaced(`"threshold":`, `"Threshold":`), "", false},
		{"another letter", replaced(`"map_sigma":`, `"map_sigmb":`), "", false},
		{"twice", replaced(`"threshold":`, `"threshold":6,"threshold":`), "duplicate", false},
		{"no mean", set("config", "mean", nil), "config.mean is missing", false},
		{"two means", set("config", "mean", []float64{0.5, 0.5}), "too few", false},
		{"four means", set("config", "mean", []float64{0.5, 0.5, 0.5, 0.5}), "too many", false},
		{"weights of some terms", set("", "map_weights", []float64{1, 1, 1}), "too few", false},
		{"a threshold that its scores do not give", set("calibration", "threshold", 4.62), "calibration", false},
		{"a threshold beyond all scores", set("calibration", "threshold", 1e9), "calibration", false},
		{"a negative threshold", set("calibration", "threshold", -1), "calibration", false},
		{"pixels beyond all scores", set("calibration", "pixel_threshold", 1e9), "calibration", false},
		{"scores out of order", set("calibration", "scores", []float64{0.2, 0.1}), "score 2 of 2", false},
		{"a score beyond all", set("calibration", "scores", []float64{0.1, 1e9}), "score 2 of 2", false},
		{"a negative score", set("calibration", "scores", []float64{-1, 0.1}), "score 1 of 2", false},
		{"a rate of one", set("calibration", "false_alarm", 1), "rate of 1", false},
		{"negative folds", set("calibration", "folds", -1), "trainings", false},
		{"an image of 4096 pixels", set("config", "image_size", 4096), "2048", false},
		{"a wide blur", document(t, set("config", "image_size", 2048), "config", "map_sigma", 500), "64", false},
		{"provisional, with a rate", set("calibration", "false_alarm", 0.01), "provisional", false},
		{"an older format than its settings", set("config", "bit_depth", 12), "of format 2", false},
		{"a bright mean", set("config", "mean", []float64{1e9, 0.5, 0.5}), "mean is", false},
		{"a mean below black", set("config", "mean", []float64{0.5, 0.5, -0.1}), "mean is", false},
		{"a wide deviation", set("config", "std", []float64{0.2, 1e9, 0.2}), "std is", false},
		{"a narrow deviation", set("config", "std", []float64{0.2, 1e-30, 0.2}), "std is", false},
		{"an epoch before the first", set("", "epoch", -1), "epoch is -1", false},
		{"an epoch after the last", set("", "epoch", 1000), "epoch is 1000", false},
		{"less than no images", set("data", "images", -1), "data.images is -1", false},
		{"less than none held out", set("data", "held_out", -1), "data.held_out is -1", false},
		{"less than no tiles", set("data", "tiles", -1), "data.tiles is -1", false},
		{"a picture of less than nothing", set("data", "picture", []int{64, -64}), "data.picture is -64", false},
		{"half a fingerprint", set("data", "fingerprint", "0123456789abcdef"), "data.fingerprint", false},
		{"a teacher's digest of other letters", set("teacher", "sha256", strings.Repeat("g", 64)), "teacher.sha256", false},
		{"brightness of 2", set("data", "range", map[string]any{"images_16_bit": 0, "darkest": 2, "brightest": 3}), "data.range", false},
		{"darkest above brightest", set("data", "range", map[string]any{"images_16_bit": 0, "darkest": 0.5, "brightest": 0.4}), "data.range", false},
		{"more black images than there are", set("data", "range", map[string]any{"images_16_bit": 1, "nearly_black": 2, "darkest": 0, "brightest": 0}),
			"data.range", false},
		{"values of 17 bits", set("data", "range", map[string]any{"images_16_bit": 1, "largest_value": 1 << 16, "darkest": 0, "brightest": 1}),
			"data.range", false},
		{"fewer sharpnesses than images", set("looks", "sharpness", []float64{0.1}), "looks", false},
		{"no brightness", set("looks", "brightness", []float64{}), "looks", false},
		{"spots of less than nothing", set("", "spots", map[string]any{"smallest": -1, "largest": 5, "width": 1, "height": 1}), "spots.smallest", false},
		{"spots beyond what was tried", set("", "spots", map[string]any{"smallest": 6, "largest": 5, "width": 1, "height": 1}), "spots of 6", false},
		{"a parent of less than no images", set("", "from", map[string]any{"origin": "a", "sha256": "", "images": -1}), "from.images", false},
		{"an unknown name", replaced(`"map_weights":`, `"nap_weights":`), "nap_weights", true},
	} {
		changed := map[string]string{"rdpp": c.text}
		checkNoModel(t, c.name+", without a digest", writeOld(t, changed, sources), c.want)
		if !c.old {
			checkNoModel(t, c.name, writeFile(t, changed, sources), c.want)
		}
	}
}

// Settings of a later version are told of, and left out.
func TestModelOfLaterVersion(t *testing.T) {
	metadata, sources := contents(t, trainedModel(t))
	metadata = maps.Clone(metadata)
	metadata["rdpp"] = document(t, metadata["rdpp"], "config", "colour_space", "lab")
	var log bytes.Buffer
	d, err := rdpp.OpenDetector(writeFile(t, metadata, sources), &rdpp.DetectorOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if !strings.Contains(log.String(), "later version") || !strings.Contains(log.String(), "colour_space") {
		t.Errorf("got the log %q, want the name of the setting", &log)
	}
}

// Weights that are no numbers, and variances that cannot be, are refused.
func TestWeightsThatCannotBe(t *testing.T) {
	metadata, sources := contents(t, trainedModel(t))
	for _, c := range []struct {
		tensor string
		value  float64
		want   string
	}{
		{"encoder.conv1.weight", math.NaN(), "infinite or none"},
		{"decoder.layer1.0.bn1.bias", math.Inf(-1), "infinite or none"},
		{"bn.bn1.running_var", -1, "variances below 0"},
	} {
		all, found := append([]weights.Source{}, sources...), false
		for i, s := range sources {
			if s.Name != c.tensor {
				continue
			}
			found = true
			all[i].Bytes = func() ([]byte, error) {
				data, err := s.Bytes()
				data = bytes.Clone(data)
				binary.LittleEndian.PutUint32(data[len(data)-4:], math.Float32bits(float32(c.value)))
				return data, err
			}
		}
		if !found {
			t.Fatalf("there is no tensor %s", c.tensor)
		}
		checkNoModel(t, c.tensor, writeFile(t, metadata, all), c.tensor, c.want)
	}
}

// A model that would take more memory than is allowed is not opened.
func TestMaxMemory(t *testing.T) {
	path := trainedModel(t)
	_, err := rdpp.OpenDetector(path, &rdpp.DetectorOptions{MaxMemory: 64 << 20})
	checkError(t, "64 MiB", err, nil, path, "32 x 32 pixels", "64 are allowed")
	info, err := rdpp.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	need := info.Model.Config.PredictionBytes(info.Bytes, 1)
	for images, want := range map[int]int{1: 1, 3: 2, 4: 4, 1000: 32} {
		need := info.Model.Config.PredictionBytes(info.Bytes, images)
		d, err := rdpp.OpenDetector(path, &rdpp.DetectorOptions{MaxMemory: need})
		if err != nil {
			t.Fatalf("%d bytes: got %v", need, err)
		}
		if got := d.BatchSize(); got != want {
			t.Errorf("room for %d images: got batches of %d, want %d", images, got, want)
		}
		d.Close()
	}
	larger := info.Model.Config
	larger.ImageSize = 2048
	if got := larger.PredictionBytes(info.Bytes, 2); got < need+2*300*(2048*2048-32*32) {
		t.Errorf("two images of 2048 x 2048: got %d bytes, for one of 32 x 32 %d", got, need)
	}
}

// A checkpoint that was damaged does not go on.
func TestCheckpointDigest(t *testing.T) {
	out := t.TempDir()
	train(t, tiny(), rdpp.TrainOptions{Out: out})
	path := filepath.Join(out, checkpointFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-3] ^= 1
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = rdpp.Train(t.Context(), tiny(), openSet(t, dataDir), rdpp.TrainOptions{Out: out, Teacher: rdpp.TeacherRandom, Resume: true})
	if !errors.Is(err, weights.ErrDigest) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "overwrite starts anew") {
		t.Errorf("got %v, want %v that names %s and overwrite", err, weights.ErrDigest, path)
	}
}
