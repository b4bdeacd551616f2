package rdpp_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/torch"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The report of a training shows what metrics.json and history.csv hold, and the images.
func TestReport(t *testing.T) {
	out := trained(t, tinyBest())
	s := readSummary(t, out)
	page := readFile(t, filepath.Join(out, rdpp.ReportFile))
	for _, want := range []string{"<h1><bdi>part</bdi>", fmt.Sprintf("%.2f %%", 100**s.ImageAUROC), fmt.Sprintf("%.2f", 100**s.PixelAP),
		fmt.Sprintf("%.2f", 100**s.AUPROStrict), "chosen by the test images", "provisional", "The teacher is random", "test/good/000.png",
		"Compactness", "good against defective images", s.Selection, "noise_lambda", "Timings", "evaluation",
		"MVTec layout with train/good | train 6 good | test 2 good, 4 defective"} {
		if !strings.Contains(page, want) {
			t.Errorf("got a report without %q", want)
		}
	}
	if n := strings.Count(page, `alt="True defect in `); n != 4 {
		t.Errorf("got %d masks, want those of the 4 defective images", n)
	}
	for _, not := range []string{"src=\"http", "href=\"http", dataDir} {
		if strings.Contains(page, not) {
			t.Errorf("got %q in the report", not)
		}
	}
}

// A detector's report is by the thresholds in force.
func TestDetectorReport(t *testing.T) {
	for _, precision := range []torch.Precision{torch.FP32, torch.BF16} {
		t.Run(string(precision), func(t *testing.T) { checkDetectorReport(t, precision) })
	}
}

func checkDetectorReport(t *testing.T, precision torch.Precision) {
	set := openSet(t, dataDir)
	d, err := rdpp.OpenDetector(trainedModel(t), &rdpp.DetectorOptions{Threshold: new(0.0), Precision: precision})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	evaluation, err := d.Evaluate(context.Background(), set)
	if err != nil {
		t.Fatal(err)
	}
	c := d.Calibration()
	if v := evaluation.Verdicts(&c); v.GoodFlagged != 2 || v.DefectiveFound != 4 || v.FalseAlarms[0] < 0.15 || v.FalseAlarms[1] != 1 {
		t.Errorf("got %+v, want all flagged", v)
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := d.WriteReport(context.Background(), path, set, evaluation, &rdpp.ReportOptions{Skipped: []dataset.Skip{{}}}); err != nil {
		t.Fatal(err)
	}
	page := readFile(t, path)
	if !strings.Contains(page, "1 file was left out") || strings.Count(page, "false alarm") < 2 || strings.Contains(page, "provisional") {
		t.Error("got a report without the left out file or the false alarms, or by the model's own threshold")
	}
	if !strings.Contains(page, `id="compactness"`) {
		t.Error("got a report without the compactness")
	}
	if err := d.WriteReport(context.Background(), filepath.Join(path, "x"), set, evaluation, nil); err == nil {
		t.Error("a report inside a file: got no error")
	}
}

// Looking at the test set on the way changes no model.
func TestEvery(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	c := tiny()
	seen := map[int]bool{}
	train(t, c, rdpp.TrainOptions{Out: out, TestEvery: 2, OnEpoch: func(r rdpp.EpochReport) { seen[r.Epoch] = r.Metrics != nil }})
	if got, want := outcomeOf(t, out).model, outcomeOf(t, trained(t, c)).model; got != want {
		t.Errorf("got SHA-256 %s, want %s", got, want)
	}
	if seen[1] || !seen[2] {
		t.Errorf("got metrics after epochs %v, want them after the second", seen)
	}
}

func TestWriteIndex(t *testing.T) {
	out := t.TempDir()
	s := readSummary(t, trained(t, tiny()))
	err := rdpp.WriteIndex(out, "A run", []rdpp.IndexEntry{{Category: "part", Summary: &s}, {Category: "screw", Reason: "no <images>"}})
	if err != nil {
		t.Fatal(err)
	}
	page := readFile(t, filepath.Join(out, rdpp.IndexFile))
	for _, want := range []string{`href="part/report.html"`, "no &lt;images&gt;", "last epoch", "A run", fmt.Sprintf("%.2f", 100**s.PixelAUROC)} {
		if !strings.Contains(page, want) {
			t.Errorf("got an index without %q", want)
		}
	}
}
