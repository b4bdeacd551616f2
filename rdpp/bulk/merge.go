package bulk

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"

	"rdpp/rdpp/ahead"
	"rdpp/rdpp/allowance"
)

// The files that Merge writes.
const (
	SummaryFile = "summary.json"
	WorstFile   = "worst.jsonl"
	BrokenFile  = "broken.jsonl"
)

// MostWorst is how many images with the highest scores Merge tells of.
const MostWorst = 1000

// QuantileError is by what share of itself a quantile may be too high or too low, at most. Scores are distances, so 0 or more.
const QuantileError = 0.001

// Shares are the quantiles that Merge computes.
var Shares = []float64{0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 0.9999, 0.99999}

// longestResult bounds a line of results, which has all regions of an image, in bytes.
const longestResult = 64 << 20

// ErrIncomplete is wrapped by the errors about results that are not of each image of the list, once.
var ErrIncomplete = errors.New("the results are not those of the list")

// Summary is what Merge makes of the results of a batch.
type Summary struct {
	Model     string  `json:"model"`  // SHA-256 of the model file
	List      string  `json:"list"`   // SHA-256 of the list
	Images    int64   `json:"images"` // in it
	Good      int64   `json:"good"`
	Anomalous int64   `json:"anomalous"`
	Broken    int64   `json:"broken"`  // that could not be judged
	Unlike    int64   `json:"unlike"`  // with a warning that they are unlike those of training
	Regions   int64   `json:"regions"` // outlined
	Scores    *Scores `json:"scores"`  // nil: no image was judged
}

// Scores tell how scores are distributed.
type Scores struct {
	Lowest  float64 `json:"lowest"`
	Highest float64 `json:"highest"`
	Mean    float64 `json:"mean"`
	// QuantileError is by what share of itself a quantile may be too high or too low, at most.
	QuantileError float64    `json:"quantile_error"`
	Quantiles     []Quantile `json:"quantiles"`
}

// Quantile is the score of the image at rank Share * (n - 1), rounded down, of the n that were judged, from 0 by ascending scores.
type Quantile struct {
	Share float64 `json:"share"`
	Score float64 `json:"score"`
}

// result is what a line of results has that counts.
type result struct {
	Image       *string           `json:"image"`
	ImageBase64 string            `json:"image_base64"`
	Score       *float64          `json:"score"`
	Anomalous   bool              `json:"anomalous"`
	Regions     []json.RawMessage `json:"regions"`
	Warnings    []string          `json:"warnings"`
	Error       *string           `json:"error"`
}

// tally is what some of the results add up to.
type tally struct {
	missing bool // the file is not there
	summary Summary
	sum     float64
	sketch  *ddsketch.DDSketch
	worst   worst
	broken  [][]byte
}

func newTally() *tally {
	m, err := mapping.NewLogarithmicMapping(QuantileError)
	if err != nil {
		panic(err) // a constant's
	}
	// Of all positive numbers that a float64 can be, such a store has 0.7 million bins at most.
	t := &tally{sketch: ddsketch.NewDDSketch(m, store.NewDenseStore(), store.NewDenseStore())}
	t.summary.Scores = &Scores{Lowest: math.Inf(1), Highest: math.Inf(-1), QuantileError: QuantileError}
	return t
}

// Merge checks that every image of the list has one result, and none another, and writes what they add up to: SummaryFile, the
// MostWorst images with the highest scores (WorstFile, the highest first) and those that could not be judged (BrokenFile, in the
// list's order), lines as they are. The same results give the same files. What is held in memory does not grow with the list.
// progress, if not nil, is told how many of how many pieces are merged. What is missing or wrong is ErrIncomplete.
func (b *Batch) Merge(ctx context.Context, progress func(done, of int)) (*Summary, error) {
	if err := b.checkList(ctx); err != nil {
		return nil, err
	}
	total := newTally()
	missing, examples := 0, []string{}
	err := b.place.write(BrokenFile, func(w io.Writer) error {
		workers, done := allowance.CPUs(), 0
		for t, err := range ahead.Range(ctx, workers, 2*workers, 0, b.Pieces(), b.tally) {
			if err != nil {
				return err
			}
			if t.missing {
				if missing++; len(examples) < 5 {
					examples = append(examples, fmt.Sprint(done))
				}
			}
			if done++; progress != nil {
				progress(done, b.Pieces())
			}
			if missing > 0 { // how many more are to be told
				continue
			}
			for _, line := range t.broken {
				if _, err := w.Write(line); err != nil {
					return err
				}
			}
			if err := total.add(t); err != nil {
				return err
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d pieces are missing (%s%s): %w; run the same command for them again", missing, b.Pieces(),
				strings.Join(examples, ", "), ellipsis(missing > len(examples)), ErrIncomplete)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("bulk: %s: %w", b.dir, err)
	}
	slices.SortFunc(total.worst, func(x, y scored) int { return cmp.Or(cmp.Compare(y.score, x.score), cmp.Compare(x.at, y.at)) })
	err = b.place.write(WorstFile, func(w io.Writer) error {
		for _, s := range total.worst {
			if _, err := w.Write(s.line); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	summary, err := total.end(b)
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	text, err := json.MarshalIndent(summary, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	err = b.place.write(SummaryFile, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	return summary, nil
}

func ellipsis(more bool) string {
	if more {
		return ", ..."
	}
	return ""
}

// tally reads a piece's results. As the list ascends, and each line is of the image in the same place of it, no image is there
// twice.
func (b *Batch) tally(ctx context.Context, piece int) (*tally, error) {
	names, err := b.Names(piece)
	if err != nil {
		return nil, err
	}
	t := newTally()
	path := b.Result(piece)
	file, err := b.place.readable(ctx, b.resultPath(piece))
	if errors.Is(err, fs.ErrNotExist) {
		t.missing = true
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	wrong := func(line int, what string) error {
		return fmt.Errorf("%s, line %d: %s: %w; remove the file and run the same command for it again", path, line+1, what, ErrIncomplete)
	}
	lines := bufio.NewScanner(&cancelled{ctx, file})
	lines.Buffer(make([]byte, 0, 1<<16), longestResult)
	lines.Split(whole)
	n := 0
	for ; lines.Scan(); n++ {
		line := lines.Bytes()
		if n >= len(names) {
			return nil, wrong(n, fmt.Sprintf("the piece has %d images", len(names)))
		}
		var r result
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, wrong(n, err.Error())
		}
		switch image, err := r.name(); {
		case err != nil:
			return nil, wrong(n, err.Error())
		case image != b.Prefix+names[n]:
			return nil, wrong(n, fmt.Sprintf("of %q, want %q", image, b.Prefix+names[n]))
		}
		if err := t.count(&r, int64(piece)*int64(b.PerPiece)+int64(n), line); err != nil {
			return nil, wrong(n, err.Error())
		}
	}
	if err := lines.Err(); err != nil {
		return nil, wrong(n, err.Error())
	}
	if n != len(names) {
		return nil, wrong(n, fmt.Sprintf("it ends before %q", names[n]))
	}
	return t, nil
}

// whole is bufio.ScanLines that keeps the line feed, and refuses a line without.
func whole(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// name is the image that a result is of.
func (r *result) name() (string, error) {
	switch {
	case r.ImageBase64 != "":
		name, err := base64.StdEncoding.DecodeString(r.ImageBase64)
		return string(name), err
	case r.Image == nil:
		return "", errors.New("it names no image")
	}
	return *r.Image, nil
}

// count adds a result, of the image at a place of the list, as it stands in a line.
func (t *tally) count(r *result, at int64, line []byte) error {
	t.summary.Images++
	if r.Error != nil {
		t.summary.Broken++
		t.broken = append(t.broken, bytes.Clone(line))
		return nil
	}
	if r.Score == nil {
		return errors.New("it has neither a score nor an error")
	}
	score := *r.Score
	if r.Anomalous {
		t.summary.Anomalous++
	} else {
		t.summary.Good++
	}
	if len(r.Warnings) > 0 {
		t.summary.Unlike++
	}
	t.summary.Regions += int64(len(r.Regions))
	t.sum += score
	t.summary.Scores.Lowest, t.summary.Scores.Highest = min(t.summary.Scores.Lowest, score), max(t.summary.Scores.Highest, score)
	t.worst.add(scored{score, at, nil}, line)
	return t.sketch.Add(score)
}

// add adds what a later piece has.
func (t *tally) add(o *tally) error {
	a, b := &t.summary, &o.summary
	a.Images += b.Images
	a.Good += b.Good
	a.Anomalous += b.Anomalous
	a.Broken += b.Broken
	a.Unlike += b.Unlike
	a.Regions += b.Regions
	a.Scores.Lowest, a.Scores.Highest = min(a.Scores.Lowest, b.Scores.Lowest), max(a.Scores.Highest, b.Scores.Highest)
	t.sum += o.sum
	for _, s := range o.worst {
		t.worst.add(s, s.line)
	}
	return t.sketch.MergeWith(o.sketch)
}

// end is the summary.
func (t *tally) end(b *Batch) (*Summary, error) {
	s := &t.summary
	s.Model, s.List = b.Model, b.List
	judged := s.Images - s.Broken
	if judged == 0 {
		s.Scores = nil
		return s, nil
	}
	s.Scores.Mean = t.sum / float64(judged)
	for _, share := range Shares {
		score, err := t.sketch.GetValueAtQuantile(share)
		if err != nil {
			return nil, err
		}
		s.Scores.Quantiles = append(s.Scores.Quantiles, Quantile{share, min(max(score, s.Scores.Lowest), s.Scores.Highest)}) // which are exact
	}
	return s, nil
}

// scored is a line of results.
type scored struct {
	score float64
	at    int64 // in the list
	line  []byte
}

// worst are the MostWorst results with the highest scores, a heap with the lowest of them first; of equal scores the earlier ones
// in the list are taken.
type worst []scored

func (w worst) Len() int { return len(w) }
func (w worst) Less(i, j int) bool {
	return w[i].score < w[j].score || w[i].score == w[j].score && w[i].at > w[j].at
}
func (w worst) Swap(i, j int) { w[i], w[j] = w[j], w[i] }
func (w *worst) Push(x any)   { *w = append(*w, x.(scored)) }
func (w *worst) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}

// add adds a result, of which line is the line, if it is among the worst.
func (w *worst) add(s scored, line []byte) {
	if len(*w) == MostWorst {
		lowest := (*w)[0]
		if s.score < lowest.score || s.score == lowest.score && s.at > lowest.at {
			return
		}
		heap.Pop(w)
	}
	s.line = bytes.Clone(line)
	heap.Push(w, s)
}
