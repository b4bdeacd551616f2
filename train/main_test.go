package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

var dataDir string // 4 training images, 1 good and 4 defective test images with masks, of 64 x 64 pixels

// asProgram is the name of the program itself, as the test program can be it.
const asProgram = "train"

func TestMain(m *testing.M) {
	testmain.Be(map[string]func([]string) error{asProgram: func([]string) error { main(); return nil }, asLauncher: launcher, asReproduce: reproduceWithFake})
	if control := os.Getenv(fakeTrainKey); control != "" {
		if err := fakeTrain(control, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "train:", err)
			os.Exit(command.Failed)
		}
		os.Exit(command.Done)
	}
	os.Exit(testmain.Run(m, func(dir string) error {
		dataDir = filepath.Join(dir, "part")
		return sample.Write(dir, &sample.Options{Category: "part", Size: 64, Train: 4, TestGood: 1, TestDefect: 1})
	}))
}

// trainBy runs a command line and returns what a shell would see.
func trainBy(args ...string) (code int, stdout, stderr string) {
	var out, complaints bytes.Buffer
	code = run(context.Background(), args, &out, &complaints)
	return code, out.String(), complaints.String()
}

// tiny is the command line of a training of one epoch of two steps, with further flags, of which the last of a kind counts.
func tiny(data, out string, further ...string) []string {
	return append([]string{"--data=" + data, "--out=" + out, "--arch=resnet18", "--image-size=32", "--batch=2", "--epochs=1", "--precision=fp32",
		"--method=rd", "--teacher=random", "--calibration=0", "--accumulate=1", "--device=cpu", "--threads=1"}, further...)
}

// copyData copies dataDir, for a test to change.
func copyData(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "part")
	if err := os.CopyFS(dir, os.DirFS(dataDir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// files lists the files below dir, which may be missing.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return names
}

// objects parses stdout as one JSON object per line.
func objects(t *testing.T, stdout string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(stdout) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		all = append(all, o)
	}
	return all
}

func TestHelpFitsOnAScreen(t *testing.T) {
	const lines, columns = 40, 110
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--help"}, []string{"--data DIR", "--out DIR", "--teacher FILE", "--arch NAME", `(default "auto")`}},
		{[]string{"sample", "--help"}, []string{"--out DIR", "--size ", "(default 256)"}},
	} {
		code, stdout, stderr := trainBy(c.args...)
		if code != command.Done || stderr != "" {
			t.Errorf("%v: got code %d, stderr %q, want code 0", c.args, code, stderr)
		}
		if got := strings.Count(stdout, "\n"); got > lines {
			t.Errorf("%v: got %d lines, want at most %d", c.args, got, lines)
		}
		for line := range strings.Lines(stdout) {
			if got := len(strings.TrimRight(line, "\n")); got > columns {
				t.Errorf("%v: got %d columns, want at most %d: %s", c.args, got, columns, line)
			}
		}
		for _, want := range c.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%v: got\n%s, want %q", c.args, stdout, want)
			}
		}
	}
}

// A flag's help names the methods that read it, where not all do, and those whose default is another.
func TestHelpNamesMethods(t *testing.T) {
	_, stdout, _ := trainBy("--help-all")
	text := strings.Join(strings.Fields(stdout), " ")
	for _, want := range []string{"--updates N N updates of the weights, of --batch images; fastflow: 200; cfa: 0 (default 1900)",
		"--epochs N or N passes over images; fastflow: 500; cfa: 30 (default 100)", "--batch N N images per step; fastflow: 32 (default 4)",
		"--flow-steps N fastflow: ", "--flow-top SHARE fastflow: ", "--cross-blocks N csflow: ", "--cross-score NAME csflow: ", "--sphere-rows N cfa: ",
		"--patch-score NAME patchcore: ", "--noise X rd++: ", "--score NAME rd++, rd: "} {
		if !strings.Contains(text, want) {
			t.Errorf("got\n%s, want %q", stdout, want)
		}
	}
	for line := range strings.Lines(stdout) {
		if got := utf8.RuneCountInString(strings.TrimRight(line, "\n")); got > 80 {
			t.Errorf("got %d columns, want at most 80: %s", got, line)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args []string // after the tiny command line; the last of a flag counts
		want string
	}{
		{[]string{"--data="}, "--good DIR --bad DIR"},
		{[]string{"--good=" + dataDir}, "exclude each other"},
		{[]string{"--data=", "--good=" + dataDir, "--category=a,b"}, "one name"},
		{[]string{"--data=", "--bad=" + dataDir}, "nothing to train on"},
		{[]string{"--category=.."}, "--category"},
		{[]string{"--out="}, "--data and --out"},
		{[]string{"--nonsense"}, "--nonsense"},
		{[]string{"more"}, `"more"`},
		{[]string{"--epochs=x"}, "--epochs"},
		{[]string{"--epochs=0"}, "--epochs is 0"},
		{[]string{"--batch=-1"}, "--batch is -1"},
		{[]string{"--accumulate=0"}, "--accumulate is 0"},
		{[]string{"--image-size=100"}, "--image-size is 100"},
		{[]string{"--arch=vgg"}, "resnet18"},
		{[]string{"--method=best"}, "rd++"},
		{[]string{"--method=rd++", "--ssot=on"}, "pairwise"},
		{[]string{"--select=first"}, "best-on-test"},
		{[]string{"--precision=int8"}, "fp32"},
		{[]string{"--method=rd++", "--noise=-1"}, "--noise is -1"},
		{[]string{"--seed=-1"}, "--seed"},
		{[]string{"--bit-depth=11"}, "use auto, 8, 10, 12, 14 or 16"},
		{[]string{"--bit-depth=twelve"}, "use auto, 8, 10, 12, 14 or 16"},
		{[]string{"--tile=x"}, "use auto, a number of pixels, or two with a comma"},
		{[]string{"--tile=64,"}, "use auto, a number of pixels, or two with a comma"},
		{[]string{"--tile=0"}, "use auto, a number of pixels, or two with a comma"},
		{[]string{"--tile=auto"}, `--tile is "auto"; give --smallest-defect`},
		{[]string{"--tile=1"}, "--tile is 1; use --image-size"},
		{[]string{"--tile=64,64"}, "--tile is 64; use a stride of a quarter to seven eighths of the tile, 16 to 56"},
		{[]string{"--tile=1000"}, "--tile is 1000; no image is longer than"},
		{[]string{"--smallest-defect=-1"}, "--smallest-defect is -1"},
		{[]string{"--threads=0"}, "--threads"},
		{[]string{"--workers=0"}, "--workers"},
		{[]string{"--checkpoint-every=0"}, "--checkpoint-every"},
		{[]string{"--checkpoint-every=5"}, "--checkpoint-every"},
		{[]string{"--cache=-1"}, "--cache"},
		{[]string{"--max-pixels=0"}, "--max-pixels"},
		{[]string{"--resume", "--overwrite"}, "exclude each other"},
		{[]string{"--device=gpu"}, "cuda:N"},
		{[]string{"--device=cuda:x"}, "number"},
		{[]string{"--threads=50000"}, "1 to"},
		{[]string{"--category=../x"}, "--category"},
		{[]string{"--category=a,"}, "--category"},
		{[]string{"--batch=3"}, "alone in a batch"},
		{[]string{"--fit=stretch"}, "--fit is"},
		{[]string{"--roi=1,2,0,4"}, "--roi is"},
		{[]string{"--roi=1,2,3"}, "x,y,w,h or the file of a mask"},
		{[]string{"--ignore=missing.png"}, "--ignore"},
		{[]string{"--augment=up=1"}, "shift=X, rotate=X"},
		{[]string{"--augment=rotate=200"}, "--augment is 200"},
		{[]string{"--augment=light=0.1", "--light=0.1"}, "exclude each other"},
		{[]string{"--tile=64", "--fit=pad"}, "without --fit: leave one of the two out"},
		{[]string{"--tile=64", "--roi=0,0,9,9"}, "without --roi: leave one of the two out"},
		{[]string{"--tile=64", "--ignore=" + filepath.Join(dataDir, "ground_truth", "dent", "000_mask.png")}, "without --ignore: leave one of the two out"},
		{[]string{"--tile=64", "--augment=shift=0.1"}, "without --augment: leave one of the two out"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		checkFails(t, strings.Join(c.args, " "), command.WrongUsage, tiny(dataDir, out, c.args...), out, c.want)
	}
	out := filepath.Join(t.TempDir(), "out")
	for _, flag := range []string{"--roi=main.go", "--ignore=main.go"} {
		checkFails(t, "a file that is no mask", command.Failed, tiny(dataDir, out, flag), out, flag[:5], "main.go: not an image")
	}
	checkFails(t, "a device that is not there", command.Failed, tiny(dataDir, out, "--device=cuda:999"), out, "CUDA libtorch")
	for _, args := range [][]string{{}, {"--data=" + dataDir}, {"sample"}, {"sample", "--out"}, {"sample", "--size=x", "--out=x"}, {"nonsense"}} {
		checkFails(t, strings.Join(args, " "), command.WrongUsage, args, "", "--help")
	}
	for _, c := range []struct{ flag, want string }{
		{"--size=0", "--size"}, {"--size=31", "--size is 31"}, {"--size=4097", "--size is 4097"}, {"--category=screw", `--category is "screw"`},
		{"--train=0", "--train"}, {"--train=-1", "--train is -1"}, {"--test-good=-1", "--test-good"},
		{"--test-defect=-1", "--test-defect"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		args := []string{"sample", "--out=" + out, "--size=32", "--train=1", "--test-good=1", "--test-defect=1", c.flag}
		checkFails(t, "sample "+c.flag, command.WrongUsage, args, out, c.want, "train sample --help")
	}
}

// On the command line 0 is none, not the default.
func TestSampleWithoutTestImages(t *testing.T) {
	for _, c := range []struct {
		flags []string
		want  string // the folders' file names
	}{
		{[]string{"--test-good=0", "--test-defect=0"}, "000.png 001.png"},
		{[]string{"--test-good=1", "--test-defect=0"}, "000.png 000.png 001.png"},
	} {
		out := t.TempDir()
		code, _, stderr := trainBy(append([]string{"sample", "--out=" + out, "--category=part", "--size=32", "--train=2"}, c.flags...)...)
		if got := strings.Join(files(t, out), " "); code != command.Done || stderr != "" || got != c.want {
			t.Errorf("%v: got code %d, stderr %q, files %q, want code 0, files %q", c.flags, code, stderr, got, c.want)
		}
	}
}

// checkFails wants a command line to end with code, one line on stderr that has all the texts, and no file below out.
func checkFails(t *testing.T, what string, code int, args []string, out string, texts ...string) {
	t.Helper()
	got, _, stderr := trainBy(args...)
	if got != code || !strings.HasPrefix(stderr, "train: ") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%s: got code %d, stderr %q, want code %d and one line", what, got, stderr, code)
	}
	for _, text := range texts {
		if !strings.Contains(stderr, text) {
			t.Errorf("%s: got stderr %q, want %q in it", what, stderr, text)
		}
	}
	if out == "" {
		return
	}
	if left := files(t, out); len(left) != 0 {
		t.Errorf("%s: got files %q, want none", what, left)
	}
}

func TestBadData(t *testing.T) {
	picture, err := os.ReadFile(filepath.Join(dataDir, "train/good/000.png"))
	if err != nil {
		t.Fatal(err)
	}
	// broken is a copy of the data with one file's content replaced.
	broken := func(name string, content []byte) (dir, path string) {
		dir = copyData(t)
		return dir, write(t, filepath.Join(dir, name), content)
	}
	truncated, truncatedPath := broken("train/good/002.png", picture[:len(picture)/2])
	text, textPath := broken("train/good/002.png", []byte("good part, see the other file\n"))
	empty, emptyPath := broken("train/good/002.png", nil)
	huge, hugePath := broken("train/good/002.png", testmain.HugePNG())
	badTest, badTestPath := broken("test/dent/000.png", picture[:50])
	badMask, badMaskPath := broken("ground_truth/dent/000_mask.png", []byte("mask"))
	lonelyMask, lonelyMaskPath := broken("ground_truth/dent/077_mask.png", picture)
	noMask := copyData(t)
	if err := os.Remove(filepath.Join(noMask, "ground_truth/dent/000_mask.png")); err != nil {
		t.Fatal(err)
	}
	noGood := copyData(t)
	if err := os.RemoveAll(filepath.Join(noGood, "train/good")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(noGood, "train/good"), 0o777); err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(t.TempDir(), "file"), nil)
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	offline := httptest.NewServer(nil)
	offline.Close()
	t.Setenv("RDPP_CACHE", nowhere)
	t.Setenv("RDPP_TEACHER_URL", offline.URL)
	for _, c := range []struct {
		name  string
		data  string
		flags []string
		want  []string
	}{
		{"missing folder", nowhere, nil, []string{nowhere, "no such folder"}},
		{"empty folder", t.TempDir(), nil, []string{"no images found"}},
		{"a file", file, nil, []string{file, "it is a file"}},
		{"no good images", noGood, nil, []string{noGood, "no good images"}},
		{"several data sets", filepath.Dir(dataDir), nil, []string{"choose one of part"}},
		{"category that is not there", filepath.Dir(dataDir), []string{"--category=part2"}, []string{"part2"}},
		{"truncated PNG", truncated, nil, []string{truncatedPath}},
		{"text named .png", text, nil, []string{textPath}},
		{"zero-byte file", empty, nil, []string{emptyPath}},
		{"60000 x 60000 pixels", huge, nil, []string{hugePath, "60000"}},
		{"truncated test image", badTest, nil, []string{badTestPath}},
		{"text as mask", badMask, nil, []string{badMaskPath}},
		{"mask without image", lonelyMask, nil, []string{lonelyMaskPath}},
		{"image without mask", noMask, nil, []string{filepath.Join(noMask, "test/dent/000.png")}},
		{"all too large", dataDir, []string{"--max-pixels=1000"}, []string{"000.png", "1000"}},
		{"all too large, skipped", dataDir, []string{"--max-pixels=1000", "--skip-bad"}, nil},
		{"no teacher", dataDir, []string{"--teacher=auto", "--arch=resnet34"}, []string{"resnet34-b627a593.pth", nowhere, "--arch resnet18"}},
		{"teacher of no use", dataDir, []string{"--teacher=" + filepath.Join(dataDir, "train/good/000.png")}, []string{"000.png"}},
	} {
		out := filepath.Join(t.TempDir(), "out")
		args := tiny(c.data, out, c.flags...)
		if c.want != nil {
			checkFails(t, c.name, command.Failed, args, out, c.want...)
			continue
		}
		// Skipped files are logged too, a line each.
		if code, _, stderr := trainBy(args...); code != command.Failed || strings.Count(stderr, "left out") != 9 || len(files(t, out)) != 0 {
			t.Errorf("%s: got code %d, stderr %q and files %q, want code 1, nine files named and none written", c.name, code, stderr, files(t, out))
		}
	}
	checkFails(t, "unwritable output", command.Failed, tiny(dataDir, filepath.Join(file, "out")), "", file, "--out")
}

func TestSkipBad(t *testing.T) {
	dir := copyData(t)
	paged := write(t, filepath.Join(dir, "train/good/001.png"), testmain.TwoPages())
	bad := []string{
		write(t, filepath.Join(dir, "train/good/000.png"), nil),
		write(t, filepath.Join(dir, "train/good/003.png"), testmain.HugePNG()),
		write(t, filepath.Join(dir, "test/dent/000.png"), []byte("text")),
		write(t, filepath.Join(dir, "ground_truth/dent/099_mask.png"), nil),
	}
	out := t.TempDir()
	code, _, stderr := trainBy(tiny(dir, out, "--skip-bad")...)
	if code != command.Done {
		t.Fatalf("got code %d, stderr %q, want 0", code, stderr)
	}
	text, err := os.ReadFile(filepath.Join(out, "part", rdpp.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	var s rdpp.Summary
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if s.TrainImages != 2 || s.Good != 1 || s.Defective != 3 || len(s.Skipped) != len(bad) {
		t.Errorf("got %+v, want 2 training images, 1 good and 3 defective ones, %d skipped", s, len(bad))
	}
	if !strings.Contains(stderr, "of images with several pages the first is used") || !strings.Contains(stderr, paged) {
		t.Errorf("stderr: got %q, want a line about the pages of %s", stderr, paged)
	}
	for _, path := range bad {
		if !strings.Contains(stderr, path) {
			t.Errorf("stderr: got %q, want %s listed", stderr, path)
		}
		if !strings.Contains(string(text), path) {
			t.Errorf("%s: got %s, want %s listed", rdpp.MetricsFile, text, path)
		}
	}
}

func TestPlainLines(t *testing.T) {
	dir, out := copyData(t), t.TempDir()
	// A mask of another size than its image is resized.
	mask := image.NewGray(image.Rect(0, 0, 128, 128))
	for i := range mask.Pix {
		mask.Pix[i] = uint8(i / 8192 * 255)
	}
	var data bytes.Buffer
	if err := png.Encode(&data, mask); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ground_truth/dent/000_mask.png"), data.Bytes())

	code, stdout, stderr := trainBy(tiny(dir, out, "--select=best-on-test")...)
	if code != command.Done || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want code 0", code, stderr)
	}
	for _, want := range []string{"part: MVTec layout", " | train 4 good | test 1 good, 4 defective (dent 1, missing_hole 1, scratch 1, stain 1) | masks 4 in ground_truth | nothing left out\n",
		"training on 4 images\n", "rd, resnet18, 32 x 32 pixels, 1 epoch on cpu with 1 thread",
		"epoch 1  loss ", "images/s", "epoch 1, test set: image AUROC", "1 good and 4 defective test images", "pixel AUROC", "AUPRO", "optimistic",
		"part: teacher random\n", "threshold ", "part: model " + filepath.Join(out, "part", rdpp.ModelFile)} {
		if !strings.Contains(stdout, want) {
			t.Errorf("got\n%swant %q in it", stdout, want)
		}
	}
	if strings.ContainsAny(stdout, "\r\x1b") {
		t.Errorf("got %q, want no control characters away from a terminal", stdout)
	}
	want := "history.csv metrics.json model.safetensors report.html scores.csv"
	if got := strings.Join(files(t, out), " "); got != want {
		t.Errorf("files: got %q, want %q", got, want)
	}
}

// All categories of a folder are trained in turn; with --json every line is an object.
func TestJSONAndCategories(t *testing.T) {
	data, out := t.TempDir(), t.TempDir()
	code, stdout, stderr := trainBy("sample", "--out="+data, "--size=32", "--train=2", "--test-good=1", "--test-defect=1")
	if code != command.Done || stderr != "" || !strings.Contains(stdout, data) {
		t.Fatalf("sample: got code %d, stdout %q, stderr %q, want code 0 and the folder", code, stdout, stderr)
	}
	checkFails(t, "sample, again", command.Failed, []string{"sample", "--out=" + data}, "", "exists")

	code, stdout, stderr = trainBy(tiny(data, out, "--category=all", "--json")...)
	if code != command.Done || stderr != "" {
		t.Fatalf("got code %d, stderr %q, want code 0", code, stderr)
	}
	var got []string
	for _, o := range objects(t, stdout) {
		event, category := o["event"], o["category"]
		if event == "step" {
			continue // one a second at most
		}
		got = append(got, fmt.Sprint(category, " ", event))
		if teacher, ok := o["teacher"].(map[string]any); event == "start" && (!ok || teacher["origin"] != "random") {
			t.Errorf("%v: got %v, want the teacher's name", category, o)
		}
		if event != "done" {
			continue
		}
		summary, ok := o["summary"].(map[string]any)
		if !ok || summary["image_auroc"] == nil || summary["threshold"] == nil ||
			summary["model_file"] != filepath.Join(out, fmt.Sprint(category), rdpp.ModelFile) {
			t.Errorf("%v: got %v, want metrics, threshold and model file", category, o)
		}
	}
	if want := "part start, part epoch, part done, texture start, texture epoch, texture done"; strings.Join(got, ", ") != want {
		t.Errorf("events: got %q, want %q", got, want)
	}
}

// What fails in one category does not keep the others from being trained, and is seen on the page of them all.
func TestFailingCategory(t *testing.T) {
	data, out := t.TempDir(), t.TempDir()
	if code, _, stderr := trainBy("sample", "--out="+data, "--size=32", "--train=2", "--test-good=1", "--test-defect=1"); code != command.Done {
		t.Fatal(stderr)
	}
	// The first of the categories.
	damaged, err := filepath.Glob(filepath.Join(data, "part", "train", "good", "*"))
	if err != nil || len(damaged) == 0 {
		t.Fatal(damaged, err)
	}
	if err := os.WriteFile(damaged[0], []byte("no picture"), 0o666); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := trainBy(tiny(data, out, "--category=part,texture", "--layout=mvtec")...)
	if code != command.Failed || !strings.Contains(stderr, damaged[0]) || !strings.Contains(stderr, "--skip-bad") || !strings.Contains(stderr, "1 of 2 categories failed: part") {
		t.Errorf("got code %d, stderr %q, want code 1, the file and the category named", code, stderr)
	}
	page, err := os.ReadFile(filepath.Join(out, rdpp.IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), `href="texture/report.html"`) || !strings.Contains(string(page), filepath.Base(damaged[0])) {
		t.Error("got a page without the good category's report or the bad one's reason")
	}
	if !strings.Contains(stdout, filepath.Join(out, rdpp.IndexFile)) {
		t.Errorf("got %q, want the page named", stdout)
	}

	// Neither does one that fails before its folder is made, in a folder for results that is not there.
	write(t, filepath.Join(data, "part", "ground_truth", "dent", "077.png"), nil)
	fresh := filepath.Join(t.TempDir(), "new", "out")
	write(t, filepath.Join(data, "notes", "1.png"), nil)
	code, stdout, stderr = trainBy(tiny(data, fresh, "--category=all")...)
	if code != command.Failed || !strings.Contains(stderr, "077.png") || !strings.Contains(stderr, "1 of 2 categories failed: part") {
		t.Errorf("a new folder: got code %d, stderr %q, want code 1, the file and the category named", code, stderr)
	}
	if want := "all: left out, being no data set: notes (1 image)\n"; !strings.Contains(stdout, want) {
		t.Errorf("got %q, want %q in it", stdout, want)
	}
	for _, path := range []string{rdpp.IndexFile, filepath.Join("texture", rdpp.ModelFile)} {
		if _, err := os.Stat(filepath.Join(fresh, path)); err != nil {
			t.Error(err)
		}
	}

	checkFails(t, "a finished run", command.WrongUsage, tiny(filepath.Join(data, "texture"), out), "", "finished run", "--overwrite")
	checkFails(t, "no update", command.WrongUsage, tiny(filepath.Join(data, "texture"), t.TempDir(), "--accumulate=5"), "", "make no update")
	checkFails(t, "another layout", command.Failed, tiny(filepath.Join(data, "part"), out, "--layout=btad"), "", "btad", "train/ok")
	checkFails(t, "no layout", command.Failed, tiny(filepath.Join(data, "part"), out, "--layout=other"), "", "no layout is named")
}

// Flags that are given win over the preset, which wins over the defaults.
// Folders of any name and a list train the model that a layout does, and metrics.json says what was taken for what.
func TestFoldersAndLists(t *testing.T) {
	dir := copyData(t)
	for from, to := range map[string]string{"train/good": "gut", "test/good": "pruefung", "test/dent": "schlecht", "ground_truth/dent": "masken"} {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	list := write(t, filepath.Join(dir, "liste.csv"), []byte("path;label;split;mask\ngut/000.png;good;train;\ngut/001.png;good;train;\ngut/002.png;good;train;\n"+
		"gut/003.png;good;train;\npruefung/000.png;good;test;\nschlecht/000.png;dent;test;masken/000_mask.png\n"))
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name  string
		flags []string
		want  []string // in the first line
	}{
		{"folders", []string{"--good=" + in("gut"), "--bad=" + in("schlecht"), "--test-good=" + in("pruefung"), "--masks=" + in("masken"), "--category=deckel"},
			[]string{"deckel: ", " | train 4 good | test 1 good, 1 defective (schlecht 1) | masks 1 in masken | nothing left out"}},
		{"list", []string{"--list=" + list}, []string{"part: ", " | train 4 good | test 1 good, 1 defective (dent 1) | masks 1 in masken | nothing left out"}},
		{"good and bad", []string{"--good=" + in("gut"), "--bad=" + in("schlecht"), "--batch=3"}, []string{"part: ", " | train 3 good | test 1 good, 1 defective (schlecht 1) | no masks"}},
	} {
		out := t.TempDir()
		code, stdout, stderr := trainBy(tiny("", out, c.flags...)...)
		first, _, _ := strings.Cut(stdout, "\n")
		if code != command.Done || stderr != "" || !strings.HasPrefix(first, c.want[0]) || !strings.Contains(first, c.want[1]) {
			t.Errorf("%s: got code %d, stderr %q, first line %q, want code 0 and %q", c.name, code, stderr, first, c.want)
			continue
		}
		text, err := os.ReadFile(filepath.Join(out, strings.TrimSuffix(c.want[0], ": "), rdpp.MetricsFile))
		var s rdpp.Summary
		if err := errors.Join(err, json.Unmarshal(text, &s)); err != nil || !strings.Contains(" | "+s.Taken.String(), c.want[1]) {
			t.Errorf("%s: got %s, %v in %s, want %s", c.name, s.Taken, err, rdpp.MetricsFile, c.want[1])
		}
	}
	checkFails(t, "a folder of other names", command.Failed, tiny(filepath.Join(dir, ".."), t.TempDir(), "--layout=auto"), "", "name the folders: --good DIR --bad DIR")
	checkFails(t, "a list that is none", command.Failed, tiny("", t.TempDir(), "--list="+in("gut/000.png")), "", "list of images")
}

func TestPreset(t *testing.T) {
	out := t.TempDir()
	code, stdout, stderr := trainBy("--preset=paper", "--data="+dataDir, "--out="+out, "--arch=resnet18", "--image-size=32", "--batch=2", "--epochs=1",
		"--teacher=random", "--device=cpu", "--threads=1", "--json", "--rate-distill=0.003")
	if code != command.Done {
		t.Fatal(stderr)
	}
	for _, o := range objects(t, stdout) {
		if o["event"] != "start" {
			continue
		}
		c := o["config"].(map[string]any)
		for name, want := range map[string]any{"epochs": 1.0, "batch": 2.0, "accumulate": 2.0, "select": "best-on-test", "ssot": "batch",
			"schedule": "constant", "rate_distill": 0.003, "noise_released": true, "calibration": 0.0} {
			if c[name] != want {
				t.Errorf("%s: got %v, want %v", name, c[name], want)
			}
		}
		return
	}
	t.Errorf("got no start event in %q", stdout)
}

// The teacher of drawn pictures has an image size of its own, where neither a flag nor a preset gives one.
func TestImageSizeOfTeacher(t *testing.T) {
	t.Setenv("RDPP_CACHE", t.TempDir())
	for _, c := range []struct {
		args []string
		want int
	}{
		{nil, 256}, {[]string{"--arch=resnet18"}, 256}, {[]string{"--arch=resnet18", "--teacher=builtin"}, 256},
		{[]string{"--arch=resnet18", "--teacher=drawn"}, 192}, {[]string{"--arch=resnet18", "--teacher=random"}, 256},
		{[]string{"--arch=resnet18", "--teacher=drawn", "--image-size=256"}, 256}, {[]string{"--arch=resnet18", "--image-size=64"}, 64},
		{[]string{"--arch=resnet18", "--teacher=drawn", "--preset=paper"}, 256},
	} {
		flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
		config := rdpp.DefaultConfig()
		flags.StringVar(&config.Arch, "arch", config.Arch, "")
		flags.IntVar(&config.ImageSize, "image-size", config.ImageSize, "")
		teacher, preset := flags.String("teacher", rdpp.TeacherAuto, ""), flags.String("preset", "", "")
		if err := flags.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		base, err := baseOf(flags, *preset, "", config.Method, teacher)
		if err != nil {
			t.Fatal(err)
		}
		of, err := configured(flags, &config, base, *teacher)
		if err != nil {
			t.Fatal(err)
		}
		if got := of("part").ImageSize; got != c.want {
			t.Errorf("%v: got %d pixels, want %d", c.args, got, c.want)
		}
	}
}

// Epochs that are given count instead of the default's updates, updates that are given however few the images are.
func TestUpdatesOrEpochs(t *testing.T) {
	d := rdpp.DefaultConfig()
	for _, c := range []struct {
		args            []string
		updates, epochs int
	}{
		{nil, d.Updates, d.Epochs}, {[]string{"--epochs=7"}, 0, 7}, {[]string{"--updates=9"}, 9, math.MaxInt32},
		{[]string{"--updates=9", "--epochs=7"}, 9, 7}, {[]string{"--updates=0"}, 0, d.Epochs},
	} {
		flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
		config := rdpp.DefaultConfig()
		flags.IntVar(&config.Updates, "updates", config.Updates, "")
		flags.IntVar(&config.Epochs, "epochs", config.Epochs, "")
		if err := flags.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		of, err := configured(flags, &config, func(string) rdpp.Config { return d }, rdpp.TeacherRandom)
		if err != nil {
			t.Fatal(err)
		}
		if got := of("part"); got.Updates != c.updates || got.Epochs != c.epochs {
			t.Errorf("%v: got %d updates, %d epochs, want %d, %d", c.args, got.Updates, got.Epochs, c.updates, c.epochs)
		}
	}
}

// Flags that play no part in a method are refused, instead of being left aside without a word.
func TestFlagsOfOtherMethods(t *testing.T) {
	for _, c := range []struct{ method, flag, want string }{
		{"rd++", "--coreset=0.1", "--coreset plays no part"}, {"rd", "--neighbours=2", "--neighbours plays no part"},
		{"rd", "--noise=0.1", "it is of rd++; leave"}, {"rd", "--noise-released", "no part"}, {"rd", "--defects=0", "no part"}, {"rd", "--denoise=0", "no part"},
		{"rd", "--project=all", "no part"}, {"rd", "--ssot=off", "no part"}, {"rd", "--weight-ssot=0", "no part"}, {"rd", "--weight-recon=0", "no part"},
		{"rd", "--weight-contrast=0", "no part"}, {"rd", "--rate-projection=0.1", "no part"}, {"rd", "--light=0.1", "/none"}, {"rd", "--rate-distill=0.1", "/none"},
		{"rd", "--easy-cut=0", "/none"}, {"rd++", "--noise=0.1", "/none"},
		{"patchcore", "--light=0.1", "of rd++ and rd"}, {"patchcore", "--noise=0.1", "--noise plays no part"},
		{"patchcore", "--epochs=5", "one pass"}, {"patchcore", "--updates=50", "one pass"}, {"patchcore", "--precision=bf16", "no gradients"},
		{"patchcore", "--epochs=1", "/none"}, {"patchcore", "--coreset=0.1", "/none"}, {"rd++", "--score-top=0", "/none"},
		{"fastflow", "--coreset=0.1", "of patchcore"}, {"fastflow", "--precision=bf16", "float32"}, {"fastflow", "--flow-top=0.01", "/none"},
		{"rd++", "--flow-rate=0.1", "of fastflow"}, {"fastflow", "--updates=50", "/none"}, {"rd++", "--cross-hidden=8", "it is of csflow"},
		{"csflow", "--coreset=0.1", "no part"}, {"csflow", "--precision=bf16", "no part"}, {"csflow", "--cross-map=product", "/none"},
		{"cfa", "--cross-hidden=8", "no part"}, {"cfa", "--precision=bf16", "small distances"}, {"cfa", "--sphere-rows=4", "/none"}, // which get as far as the data
	} {
		_, _, stderr := trainBy("--data=/none", "--out="+t.TempDir(), "--device=cpu", "--method="+c.method, c.flag)
		if !strings.Contains(stderr, c.want) || strings.Contains(stderr, "no part") == (c.want == "/none") {
			t.Errorf("%s %s: got %q, want %q", c.method, c.flag, stderr, c.want)
		}
	}
}

func TestVersion(t *testing.T) {
	libtorch, err := torch.Version()
	if err != nil {
		t.Fatal(err)
	}
	version := "rdpp " + rdpp.Version + ", libtorch " + libtorch + "\n"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--version"}, version}, {[]string{"version"}, version}, {[]string{"version", "--licenses"}, version + "\n" + rdpp.Notice()},
	} {
		if code, stdout, stderr := trainBy(c.args...); code != command.Done || stdout != c.want || stderr != "" {
			t.Errorf("%v: got code %d, stdout %.99q, stderr %q, want code 0 and %.99q", c.args, code, stdout, stderr, c.want)
		}
	}
	if !strings.Contains(rdpp.Notice(), "The MIT License (MIT)") {
		t.Error("got no MIT licence in the notices, want that of the teacher that is built in")
	}
	checkFails(t, "an argument", command.WrongUsage, []string{"version", "more"}, "", `"more"`)
	checkFails(t, "a flag", command.WrongUsage, []string{"version", "--nonsense"}, "", "--nonsense")
	if code, stdout, _ := trainBy("version", "--help"); code != command.Done || !strings.Contains(stdout, "--licenses") {
		t.Errorf("got code %d, %q, want code 0 and --licenses", code, stdout)
	}
}

// canceller cancels when text is written to it.
type canceller struct {
	io.Writer
	text   string
	cancel func()
}

func (c *canceller) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.text)) {
		c.cancel()
	}
	return c.Writer.Write(p)
}

func TestInterruptAndResume(t *testing.T) {
	out := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var stdout, stderr bytes.Buffer
	args := tiny(dataDir, out, "--epochs=2")
	code := run(ctx, args, &canceller{&stdout, "epoch 1 ", cancel}, &stderr)
	if code != command.Interrupted || !strings.Contains(stderr.String(), "--resume") || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("got code %d, stderr %q, want code 130 and one line that names --resume", code, stderr.String())
	}
	if got := strings.Join(files(t, out), " "); got != "checkpoint history.csv" {
		t.Errorf("files: got %q, want checkpoint and history.csv", got)
	}
	if code, _, stderr := trainBy(args...); code != command.WrongUsage || !strings.Contains(stderr, "--overwrite") {
		t.Errorf("without --resume: got code %d, stderr %q, want code 2 and a hint at --overwrite", code, stderr)
	}
	again, out2, stderr2 := trainBy(append(args, "--resume")...)
	if again != command.Done || strings.Contains(out2, "epoch 1 ") || !strings.Contains(out2, "epoch 2 ") {
		t.Errorf("with --resume: got code %d, stdout %q, stderr %q, want code 0 and epoch 2 alone", again, out2, stderr2)
	}
	if code, _, stderr := trainBy(append(args, "--resume", "--seed=5")...); code != command.WrongUsage || !strings.Contains(stderr, "seed") {
		t.Errorf("another seed: got code %d, stderr %q, want code 2 and the setting named", code, stderr)
	}

	cancelled, stop := context.WithCancel(context.Background())
	stop()
	fresh := t.TempDir()
	if code := run(cancelled, tiny(dataDir, fresh), io.Discard, io.Discard); code != command.Interrupted || len(files(t, fresh)) != 0 {
		t.Errorf("cancelled before: got code %d and files %q, want 130 and none", code, files(t, fresh))
	}
}

func TestEveryArchitecture(t *testing.T) {
	all := [][]string{{"--arch=resnet18", "--ssot=batch"}, {"--arch=resnet34", "--ssot=off"}}
	if *testmain.Slow {
		all = append(all, []string{"--arch=resnet50", "--kd-per-position"}, []string{"--arch=wide_resnet50_2", "--noise-released", "--defects=0"})
	}
	for _, flags := range all {
		out := t.TempDir()
		code, stdout, stderr := trainBy(tiny(dataDir, out, append(flags, "--method=rd++")...)...)
		if code != command.Done || stderr != "" || !strings.Contains(stdout, "AUPRO") {
			t.Errorf("%v: got code %d, stdout %q, stderr %q, want code 0 and metrics", flags, code, stdout, stderr)
		}
	}
}

// TestSettingsByTheirFlags: what the library says of a field is told as the flag that sets it, where the two differ in name too.
func TestSettingsByTheirFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{tiny(dataDir, "x", "--image-size=30"), "--image-size is 30; use a multiple of 32"},
		{tiny(dataDir, "x", "--method=rd++", "--noise=-1"), "--noise is -1; "},
		{tiny(dataDir, "x", "--method=rd++", "--noise-released", "--defects=2"), "--noise-released is true; it is about boxes of noise, so set --defects to 0, not 2"},
		{tinyTeacher("x", "--size=30"), "--size is 30; use a multiple of 32"},
		{[]string{"reproduce", "--out=x", "--seeds=-1"}, "--seeds is -1; "},
	} {
		code, _, stderr := trainBy(c.args...)
		if code != command.WrongUsage || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: got code %d, stderr %q, want code 2 and %q", c.args, code, stderr, c.want)
		}
	}
}

// TestNamesOnATerminal: nothing in a folder's name acts on a terminal, in lines and in errors.
func TestNamesOnATerminal(t *testing.T) {
	data := filepath.Join(t.TempDir(), "p\x1b[31m\u202e\xff")
	if err := os.MkdirAll(filepath.Join(data, "train", "good"), 0o777); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := trainBy(tiny(data, t.TempDir())...)
	if code == command.Done || !strings.Contains(stderr, `p\x1b[31m\u202e\xff`) || strings.ContainsAny(stdout+stderr, "\x1b\u202e\ufffd") {
		t.Errorf("got code %d, stdout %q, stderr %q, want the name escaped", code, stdout, stderr)
	}
	code, _, stderr = trainBy(tiny(filepath.Join(data, strings.Repeat("z", 60000)), t.TempDir())...)
	if code == command.Done || len(stderr) > 2100 || strings.Contains(stderr, "\x1b") {
		t.Errorf("got code %d, an error of %d bytes, want one that fits on a screen", code, len(stderr))
	}
}

// TestCommands: every command is explained in either way, and what is like one is asked for.
func TestCommands(t *testing.T) {
	for _, name := range []string{"sample", "teacher", "reproduce", "version"} {
		_, want, _ := trainBy(name, "--help")
		if code, stdout, stderr := trainBy("help", name); code != command.Done || stderr != "" || stdout != want || !strings.Contains(stdout, "train "+name) {
			t.Errorf("help %s: got code %d, stdout %q, stderr %q, want code 0 and %q", name, code, stdout, stderr, want)
		}
	}
	for args, want := range map[string]string{
		"sampel":               `unknown command "sampel"; did you mean sample?; see ` + "`train --help`",
		"teacher --steps=1 -h": "",
		"teacher --stepz=1":    "--stepz; did you mean --steps?; see `train teacher --help`",
		"--image-sise=64":      "--image-sise; did you mean --image-size?; see `train --help`",
		"help reproduse":       "did you mean reproduce?",
	} {
		code, _, stderr := trainBy(strings.Fields(args)...)
		if wrong := want != ""; (code == command.WrongUsage) != wrong || !strings.Contains(stderr, want) {
			t.Errorf("%s: got code %d, stderr %q, want %q", args, code, stderr, want)
		}
	}
}

// Every Go module in the program is in the notices.
func TestNoticesOfModules(t *testing.T) { testmain.WantNotices(t, rdpp.Notice()) }

// Every line of every help fits a terminal, and every flag says by one of a few words what it takes.
func TestFlags(t *testing.T) { testmain.WantFlags(t, &app) }

// TestLimits: what a control group allows is what trainings begin with.
func TestLimits(t *testing.T) {
	testmain.WantHelp(t, asProgram, testmain.Limited(t, 80, 1<<30), []string{"--help-all"}, `--threads N N CPU threads[^(]*\(default 1\)`,
		`--workers N N goroutines that make batches \(default 1\)`, `--cache N N MiB of memory for decoded images \(default 256\)`)
}
