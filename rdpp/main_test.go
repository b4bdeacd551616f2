package rdpp_test

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/reverse"
	"rdpp/rdpp/sample"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

// What TestMain makes for all tests.
var (
	scratch string // a folder that outlives single tests
	dataDir string // 6 training images, 2 good and 4 defective test images with masks, of 64 x 64 pixels
)

// children are what tests do in a process of their own, to be killed or kept short of something; args are the
// command line's.
var children = map[string]func(args []string) error{
	"train":     childTrain(tinyBest, 0),
	"method":    childMethod,
	"full disk": childFullDisk,
	"fits":      childFits,
}

func TestMain(m *testing.M) {
	// Results are the same bit for bit only for the same number of threads.
	if err := torch.SetThreads(1); err != nil {
		panic(err)
	}
	testmain.Be(children)
	os.Exit(testmain.Run(m, func(dir string) error {
		slog.SetDefault(slog.New(slog.DiscardHandler))
		scratch, dataDir = dir, filepath.Join(dir, "part")
		return sample.Write(scratch, &sample.Options{Category: "part", Size: 64, Train: 6, TestGood: 2, TestDefect: 1})
	}))
}

// tiny is a training of two epochs of three steps. With updates every two steps, gradients wait at every odd step,
// from one epoch into the next too.
func tiny() rdpp.Config {
	c := rdpp.DefaultConfig()
	c.Arch, c.ImageSize, c.Batch, c.Accumulate, c.Epochs, c.Calibration = "resnet18", 32, 2, 2, 2, 0
	c.Precision = "fp32" // which auto takes may change from run to run
	c.ScoreTop = 0       // TestScoreTop is about others than the map's maximum
	return c
}

func tinyBest() rdpp.Config {
	c := tiny()
	c.Select = rdpp.SelectBestOnTest
	return c
}

func openSet(t testing.TB, dir string) *dataset.Set {
	t.Helper()
	set, err := dataset.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// train trains on dataDir with a random teacher.
func train(t *testing.T, c rdpp.Config, opt rdpp.TrainOptions) *rdpp.Summary {
	t.Helper()
	opt.Teacher = rdpp.TeacherRandom
	summary, err := rdpp.Train(context.Background(), c, openSet(t, dataDir), opt)
	if err != nil {
		t.Fatal(err)
	}
	return summary
}

var (
	runs     = map[rdpp.Config]string{}
	runsLock sync.Mutex
)

// trained returns the folder of an uninterrupted training on dataDir, made once for all tests, to be left as it is.
func trained(t *testing.T, c rdpp.Config) string {
	t.Helper()
	runsLock.Lock()
	defer runsLock.Unlock()
	if runs[c] == "" {
		out := filepath.Join(scratch, fmt.Sprint("run", len(runs)))
		train(t, c, rdpp.TrainOptions{Out: out})
		runs[c] = out
	}
	return runs[c]
}

func trainedModel(t *testing.T) string {
	t.Helper()
	return filepath.Join(trained(t, tiny()), rdpp.ModelFile)
}

// projectedModel is one with the projections that released checkpoints have.
func projectedModel(t *testing.T) string {
	t.Helper()
	c := tiny()
	c.Project = rdpp.ProjectAll
	return filepath.Join(trained(t, c), rdpp.ModelFile)
}

// outcome is what training must lead to, however it came about: the model file, as its SHA-256, and the history but
// for its times.
type outcome struct {
	model   string
	history string
}

func outcomeOf(t *testing.T, out string) outcome {
	t.Helper()
	f, err := os.Open(filepath.Join(out, rdpp.HistoryFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var history strings.Builder
	for _, row := range rows {
		for i, field := range row {
			if rows[0][i] != "seconds" && rows[0][i] != "images_per_second" {
				history.WriteString(field + " ")
			}
		}
		history.WriteByte('\n')
	}
	return outcome{model: digest(t, filepath.Join(out, rdpp.ModelFile)), history: history.String()}
}

func checkOutcome(t *testing.T, out, want string) {
	t.Helper()
	g, w := outcomeOf(t, out), outcomeOf(t, want)
	if g.history != w.history {
		t.Errorf("history: got\n%swant\n%s", g.history, w.history)
	}
	if g.model != w.model {
		t.Errorf("model file: got SHA-256 %s, want %s", g.model, w.model)
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
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

// temporary lists the half-written files in a folder.
func temporary(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".rdpp-") {
			names = append(names, e.Name())
		}
	}
	return names
}

// halfWritten leaves what a process leaves that is killed while it writes the file where all files have names, and returns
// its path.
func halfWritten(t *testing.T, path string) string {
	t.Helper()
	hash := fnv.New64a()
	io.WriteString(hash, filepath.Base(path))
	left := filepath.Join(filepath.Dir(path), fmt.Sprintf(".rdpp-%016x-%016x.tmp", hash.Sum64(), 1))
	if err := os.WriteFile(left, []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	return left
}

// checkError wants an error of one line that wraps want, where it is given, and has all the texts.
func checkError(t *testing.T, what string, err, want error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: got no error, want one with %q", what, texts)
		return
	}
	if want != nil && !errors.Is(err, want) {
		t.Errorf("%s: got error %q, want one that wraps %q", what, err, want)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: got error %q, want one line", what, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got error %q, want %q in it", what, err, text)
		}
	}
}

// nets are the networks of a model of RD++ or RD.
func nets(m *rdpp.Model) *reverse.Networks { return m.Net.(*reverse.Networks) }
