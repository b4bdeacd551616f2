package history

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"rdpp/rdpp/printable"
)

// TableHeader names the columns of Row.
var TableHeader = []string{"id", "time", "image", "verdict", "score", "threshold", "p_value", "regions", "boxes", "model", "sha256", "heatmap", "moved",
	"error", "warnings", "correction", "note"}

// Row is a record as a row of a table: the time in UTC, numbers that lose no digit, each region's box as "x y width height" with
// "; " between them, names as printable.Text shows them, so that a row is a line. What is not known is empty.
func (r *Record) Row() []string {
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	var id, score, threshold, p, regions string
	if r.ID != 0 {
		id = strconv.FormatInt(r.ID, 10)
	}
	if r.Verdict != Broken {
		score, threshold, regions = number(r.Score), number(r.Threshold), strconv.Itoa(len(r.Regions))
	}
	if r.PValue != nil {
		p = number(*r.PValue)
	}
	boxes := make([]string, len(r.Regions))
	for i, box := range r.Regions {
		boxes[i] = fmt.Sprint(box.X, " ", box.Y, " ", box.Width, " ", box.Height)
	}
	row := []string{id, r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), r.Image, string(r.Verdict), score, threshold, p, regions,
		strings.Join(boxes, "; "), r.Model, r.SHA256, r.Heatmap, r.Moved, r.Error, strings.Join(r.Warnings, "; "), string(r.Correction), r.Note}
	for i := range row {
		row[i] = printable.Text(row[i])
	}
	return row
}

// WriteTable writes records as CSV with a header.
func WriteTable(w io.Writer, records func(yield func(*Record, error) bool)) error {
	table := csv.NewWriter(w)
	if err := table.Write(TableHeader); err != nil {
		return err
	}
	for r, err := range records {
		if err == nil {
			err = table.Write(r.Row())
		}
		if err != nil {
			return err
		}
	}
	table.Flush()
	return table.Error()
}

// ParseTime reads a time as people write it, in local time where it names no zone: 2026-03-31, "2026-03-31 14:00", RFC 3339.
func ParseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("history: %q is no time; write 2026-03-31, \"2026-03-31 14:00\" or 2026-03-31T14:00:00+02:00", text)
}
