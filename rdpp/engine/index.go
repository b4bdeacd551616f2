package engine

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/evaluation"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/report"
	"rdpp/rdpp/setting"
)

// indexNotes are what to know of a category before its figures are trusted.
func indexNotes(s *Summary) []string {
	info := modelfile.Info{Config: s.Config, Teacher: s.Teacher, Data: modelfile.DataInfo{Range: s.Range}, Spots: s.Spots}
	return evaluation.Notes(&info, &anomaly.Calibration{Rule: s.ThresholdRule, Provisional: s.Provisional}, s.Skipped)
}

// IndexFile is the page of a run over several categories.
const IndexFile = "index.html"

// IndexEntry is a category of a run.
type IndexEntry struct {
	Category string
	Summary  *Summary // nil: not trained, for Reason
	Reason   string
}

// WriteIndex writes the page of a run over several categories, whose folders lie in out under their names. out is made
// where missing.
func WriteIndex(out, title string, entries []IndexEntry) error {
	ix := &report.Index{Title: title}
	for _, e := range entries {
		row := report.IndexRow{Category: e.Category, Failed: e.Reason}
		if s := e.Summary; s != nil {
			row.Report = e.Category + "/" + ReportFile
			row.Metrics, row.HasMasks = s.Metrics, s.HasMasks
			for _, note := range indexNotes(s) {
				if !slices.Contains(ix.Notes, note) {
					ix.Notes = append(ix.Notes, note)
				}
			}
			ix.Settings = append(ix.Settings, report.Setting{Name: e.Category, Value: fmt.Sprintf("%s, %s, teacher %s, %s, %s, seed %d; "+
				"of the test images %d of %d good and %d of %d defective ones lie above the threshold", s.Config.Method, s.Config.Arch,
				s.Teacher.Origin, printable.Count(s.Config.Epochs, "epoch"), s.Selection, s.Config.Seed, s.GoodFlagged, s.Good, s.DefectiveFound, s.Defective)})
		}
		ix.Rows = append(ix.Rows, row)
	}
	if err := os.MkdirAll(out, 0o777); err != nil { // where no category has got as far as making it
		return setting.Advise(fmt.Errorf("engine: index: %w", err), "choose another folder with {out}")
	}
	err := atomicfile.Write(filepath.Join(out, IndexFile), func(w io.Writer) error { return report.WriteIndex(w, ix) })
	if err != nil {
		return fmt.Errorf("engine: index: %w", err)
	}
	return nil
}
