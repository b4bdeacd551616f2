package bulk

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/testmain"
)

// lineOf is a line of results about image i of a list by listed. Every 10th is broken, every 7th anomalous, every 5th unlike.
func lineOf(i int, score float64) string {
	if i%10 == 9 {
		return fmt.Sprintf("{\"image\":\"%08d.png\",\"error\":\"no image\"}\n", i)
	}
	more := ""
	if i%5 == 0 {
		more = `,"warnings":["dark"]`
	}
	return fmt.Sprintf("{\"image\":\"%08d.png\",\"score\":%v,\"anomalous\":%v,\"regions\":[{},{}]%s}\n", i, score, i%7 == 0, more)
}

// fill places results for all pieces, and returns the lines.
func fill(t testing.TB, b *Batch, score func(i int) float64) (lines []string) {
	t.Helper()
	i := 0
	for piece := range b.Pieces() {
		var content strings.Builder
		for range b.Size(piece) {
			lines = append(lines, lineOf(i, score(i)))
			content.WriteString(lines[i])
			i++
		}
		if err := b.Place(piece, []byte(content.String())); err != nil {
			t.Fatal(err)
		}
	}
	return lines
}

func TestMerge(t *testing.T) {
	const n = 3456
	score := func(i int) float64 { return float64(i * 7919 % 500) } // many are equal
	b := listed(t, n, &Options{PerPiece: 100})
	lines := fill(t, b, score)
	told := 0
	s, err := b.Merge(t.Context(), func(done, of int) {
		if told++; done != told || of != 35 {
			t.Errorf("got progress %d of %d, want %d of 35", done, of, told)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Summary{Model: work.Model, List: b.List, Images: n}
	var judged []int
	var broken strings.Builder
	sum := 0.0
	for i, line := range lines {
		switch {
		case i%10 == 9:
			want.Broken++
			broken.WriteString(line)
			continue
		case i%7 == 0:
			want.Anomalous++
		default:
			want.Good++
		}
		if i%5 == 0 {
			want.Unlike++
		}
		want.Regions += 2
		judged = append(judged, i)
		sum += score(i)
	}
	if mean := sum / float64(len(judged)); s.Scores.Mean != mean || s.Scores.Lowest != 0 || s.Scores.Highest != 499 || s.Scores.QuantileError != QuantileError {
		t.Errorf("got scores %+v, want 0 to 499, mean %v", s.Scores, mean)
	}
	scores := *s
	scores.Scores = nil
	if scores != want {
		t.Errorf("got %+v, want %+v", scores, want)
	}
	slices.SortStableFunc(judged, func(i, j int) int { return cmp.Compare(score(j), score(i)) })
	var worst strings.Builder
	for _, i := range judged[:MostWorst] {
		worst.WriteString(lines[i])
	}
	testmain.WantContent(t, filepath.Join(b.Dir(), WorstFile), worst.String())
	testmain.WantContent(t, filepath.Join(b.Dir(), BrokenFile), broken.String())
	before, err := os.ReadFile(filepath.Join(b.Dir(), SummaryFile))
	if err != nil || !bytes.Contains(before, []byte(`"anomalous": `)) {
		t.Errorf("got the summary %s, %v", before, err)
	}
	if _, err := b.Merge(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	testmain.WantContent(t, filepath.Join(b.Dir(), SummaryFile), string(before)) // the same bytes
}

// TestDamaged: what is not one result for each image is refused, in words about the place.
func TestDamaged(t *testing.T) {
	b := listed(t, 30, &Options{PerPiece: 10})
	lines := fill(t, b, func(i int) float64 { return float64(i) })
	path := b.Result(1)
	whole := strings.Join(lines[10:20], "")
	other := strings.Replace(lines[12], "00000012", "00000013", 1)
	for _, c := range []struct{ what, content, want string }{
		{"missing", "", "1 of 3 pieces are missing (1)"},
		{"an image is missing", strings.Join(lines[10:19], ""), `line 10: it ends before "00000019.png"`},
		{"one in the midst", strings.Join(lines[10:12], "") + strings.Join(lines[13:20], ""), `line 3: of "00000013.png", want "00000012.png"`},
		{"one is there twice", strings.Join(lines[10:13], "") + strings.Join(lines[12:20], ""), `line 4: of "00000012.png", want "00000013.png"`},
		{"twice at the end", whole + lines[19], "line 11: the piece has 10 images"},
		{"another one", strings.Replace(whole, lines[12], other, 1), `line 3: of "00000013.png"`},
		{"cut off", whole[:len(whole)-1], "line 10: unexpected EOF"},
		{"no JSON", strings.Replace(whole, "{", "", 1), "line 1: "},
		{"no score", strings.Replace(whole, `"score"`, `"points"`, 1), "line 1: it has neither a score nor an error"},
		{"no image", strings.Replace(whole, `"image"`, `"picture"`, 1), "line 1: it names no image"},
	} {
		os.Remove(path)
		if c.content != "" {
			write(t, filepath.Dir(path), map[string]string{filepath.Base(path): c.content})
		}
		_, err := b.Merge(t.Context(), nil)
		if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "writing") {
			t.Errorf("%s: got %v, want %q", c.what, err, c.want)
		}
	}
	write(t, filepath.Dir(path), map[string]string{filepath.Base(path): whole})
	if _, err := b.Merge(t.Context(), nil); err != nil {
		t.Errorf("mended: got %v", err)
	}
	list := b.place.path(b.listName())
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b.Dir(), map[string]string{filepath.Base(list): strings.Replace(string(text), "00000012", "00000xyz", 1)})
	if _, err := b.Merge(t.Context(), nil); err == nil || !strings.Contains(err.Error(), ".txt: its SHA-256 is") {
		t.Errorf("another list: got %v, want an error about it", err)
	}
}

// TestQuantiles: they are off by no more than is said, whatever the scores, which are 0 or more.
func TestQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() float64{
		"like scores": func() float64 { return math.Exp(0.3*random.NormFloat64()) + 0.2 },
		"heavy tail":  func() float64 { return math.Exp(5 * random.NormFloat64()) },
		"tiny":        func() float64 { return 1e-30 * random.Float64() },
		"equal":       func() float64 { return 1.5 },
		"some zero":   func() float64 { return float64(random.IntN(2)) * random.Float64() },
	} {
		for _, n := range []int{1, 2, 1000, 20000} {
			total, part := newTally(), newTally()
			scores := make([]float64, n)
			for i := range scores {
				scores[i] = draw()
				if err := part.count(&result{Score: &scores[i]}, int64(i), nil); err != nil {
					t.Fatal(err)
				}
				if i%777 == 0 || i == n-1 { // in parts
					if err := total.add(part); err != nil {
						t.Fatal(err)
					}
					part = newTally()
				}
			}
			s, err := total.end(&Batch{})
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(scores)
			for _, q := range s.Scores.Quantiles {
				want := scores[int(q.Share*float64(n-1))]
				if q.Score < scores[0] || q.Score > scores[n-1] {
					t.Errorf("%s, %d images: got %v at %v, beyond all scores, %v to %v", name, n, q.Score, q.Share, scores[0], scores[n-1])
				}
				if math.Abs(q.Score-want) > QuantileError*math.Abs(want)*(1+1e-9) {
					t.Errorf("%s, %d images: got %v at %v, want %v within %v of it", name, n, q.Score, q.Share, want, QuantileError)
				}
			}
		}
	}
}

// TestNobodyJudged: a batch of broken images has no scores.
func TestNobodyJudged(t *testing.T) {
	b := listed(t, 1, nil)
	if err := b.Place(0, []byte("{\"image\":\"00000000.png\",\"error\":\"no image\"}\n")); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Merge(t.Context(), nil); err != nil || s.Broken != 1 || s.Scores != nil {
		t.Errorf("got %+v, %v, want one broken and no scores", s, err)
	}
}

// TestMemory: ten times the images do not take more memory.
func TestMemory(t *testing.T) {
	most := func(images int) (bytes uint64) {
		b := listed(t, images, nil)
		fill(t, b, func(i int) float64 { return 1 + float64(i%1000)/1000 })
		_, err := b.Merge(t.Context(), func(done, of int) {
			if done%20 == 0 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				bytes = max(bytes, m.HeapAlloc)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	few, many := most(20_000), most(200_000)
	if many > few+8<<20 {
		t.Errorf("got %d KiB with 200,000 images, %d KiB with 20,000", many>>10, few>>10)
	}
}

// BenchmarkMerge merges pieces of 1,000 results each, and tells what an image takes.
func BenchmarkMerge(b *testing.B) {
	const pieces, perPiece = 100, 1000
	batch := listed(b, pieces*perPiece, &Options{PerPiece: perPiece})
	for piece := range pieces {
		names, err := batch.Names(piece)
		if err != nil {
			b.Fatal(err)
		}
		var text strings.Builder
		for i, name := range names { // as long as the line of a good image
			fmt.Fprintf(&text, `{"image":%q,"category":"transistor","score":1.%06d,"normalised":0.3,"threshold":1.5,"pixel_threshold":1.6,"anomalous":false,"p_value":0.4,`+
				`"rule":"split conformal, at most 1 %% of good images flagged","width":1024,"height":1024,"regions":[]}`+"\n", batch.Prefix+name, i)
		}
		if err := batch.Place(piece, []byte(text.String())); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := batch.Merge(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pieces/perPiece, "ns/image")
}
