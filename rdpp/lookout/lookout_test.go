package lookout

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/testmain"
)

func TestMain(m *testing.M) { os.Exit(testmain.Run(m, nil)) }

// part is an image of a line on which nothing changes: what is seen of it hangs together, and its size is always the same.
func part(chance *rand.Rand) Sight {
	light := chance.NormFloat64()
	return Sight{Score: math.Exp(0.3*light + 0.3*chance.NormFloat64()), Look: dataset.Look{Brightness: 0.5 + 0.02*light,
		Sharpness: 0.2 + 0.01*chance.NormFloat64() + 0.005*light, W: 800, H: 600}}
}

// reference are as many images of such a line.
func reference(chance *rand.Rand, images int) (r Reference) {
	for range images {
		s := part(chance)
		r.Scores = append(r.Scores, s.Score)
		r.Looks = r.Looks.Join(dataset.Looks{Brightness: []float64{s.Brightness}, Sharpness: []float64{s.Sharpness}, Width: []int{s.W}, Height: []int{s.H}})
	}
	return r
}

// TestRate: streams of 10,000 images on which nothing changes are warned of no more often than stated. Warnings of a stream of the
// stated rate are as if drawn by Poisson, so that three deviations above it are not met by chance; and there are some, or the test
// would see nothing.
func TestRate(t *testing.T) {
	lines, length, rate := 20, 10_000, 1.0
	if *testmain.Slow {
		lines, rate = 1000, DefaultRate
	}
	for _, images := range []int{0, 300} {
		var warnings atomic.Int64
		var running sync.WaitGroup
		for worker := range 4 {
			running.Go(func() {
				for line := worker; line < lines; line += 4 {
					chance := rand.New(rand.NewPCG(uint64(line), uint64(images)))
					l := New(Options{Reference: reference(chance, images), Rate: rate, Silence: 1, Pool: 3000})
					for range length {
						warnings.Add(int64(len(l.See(part(chance)))))
					}
				}
			})
		}
		running.Wait()
		stated := rate * float64(lines*length) / 1000
		t.Logf("%d in the reference: %d warnings in %d streams of %d images, %.0f stated at most", images, warnings.Load(), lines, length, stated)
		if got := float64(warnings.Load()); got > stated+3*math.Sqrt(stated) || got == 0 {
			t.Errorf("%d in the reference: got %.0f warnings, want some, at most %.0f", images, got, stated)
		}
	}
}

// TestSee: of what moves, and of nothing else, a warning says from what to what.
func TestSee(t *testing.T) {
	for _, c := range []struct {
		stream string
		change func(*Sight)
		known  bool
		want   string // its beginning
	}{
		{"score", func(s *Sight) { s.Score *= 3 }, true, "the scores of good images rose: "},
		{"brightness", func(s *Sight) { s.Brightness -= 0.1 }, true, "the mean brightness of good images fell: 0."},
		{"sharpness", func(s *Sight) { s.Sharpness -= 0.1 }, true, "the sharpness of good images fell: 0."},
		{"width", func(s *Sight) { s.W = 640 }, true, "the width in pixels of good images fell: 640 lately, 800 in training; look at the camera's settings"},
		{"height", func(s *Sight) { s.H = 1200 }, true, "the height in pixels of good images rose: 1200 lately, 600 in training; look at the camera's settings"},
		{"brightness", func(s *Sight) { s.Brightness += 0.1 }, false, "the mean brightness of good images rose: 0."},
		{"", func(*Sight) {}, true, ""},
		{"", func(s *Sight) { s.Score = math.NaN() }, true, ""}, // not known
	} {
		chance := rand.New(rand.NewPCG(5, 6))
		opt := Options{}
		if c.known {
			opt.Reference = reference(chance, 200)
		}
		l := New(opt)
		var told []Warning
		for i := range 600 {
			s := part(chance)
			if i >= 300 {
				c.change(&s)
			}
			told = append(told, l.See(s)...)
			if i < 300 && len(told) > 0 {
				t.Fatalf("%s: image %d: got %+v", c.stream, i, told)
			}
		}
		if c.stream == "" {
			if len(told) > 0 {
				t.Errorf("nothing changes: got %v", told)
			}
			continue
		}
		if len(told) != 1 || told[0].Stream != c.stream || told[0].Known != c.known || !strings.HasPrefix(told[0].String(), c.want) ||
			!(math.Abs(told[0].To-told[0].From) > 0.06) {
			t.Errorf("%s: got %v, want one warning, %q", c.stream, told, c.want)
		}
		for _, f := range l.Figures() {
			if want := f.Stream == c.stream; (f.Warnings == 1) != want || !(f.Evidence >= 0 && f.Evidence <= 1) || math.IsNaN(f.Now) || math.IsNaN(f.Usual) {
				t.Errorf("%s: got %+v", c.stream, f)
			}
		}
	}
}

// TestSilence: a change that lasts is told again, and not of every image.
func TestSilence(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	l := New(Options{Reference: reference(chance, 1000), Silence: 100})
	var at []int
	for i := range 250 {
		s := part(chance)
		s.Brightness = 0.3
		for _, w := range l.See(s) {
			if w.Stream != "brightness" {
				t.Errorf("image %d: got %v", i, w)
			}
			at = append(at, i)
		}
	}
	if len(at) < 2 || at[0] > 20 || slices.ContainsFunc(at[1:], func(i int) bool { return i < at[0]+100 }) || at[1]-at[0] > 120 {
		t.Errorf("got warnings at %v, want them from some 10 on every 100 images or a few more", at)
	}
}

// TestRestore: who goes on by a state says the same of all that follows, to the bit.
func TestRestore(t *testing.T) {
	chance := rand.New(rand.NewPCG(3, 4))
	opt := Options{Reference: reference(chance, 50), Rate: 50, Pool: 300, Silence: 7}
	l := New(opt)
	for i := range 1000 {
		if i%97 == 0 {
			state, err := l.State()
			if err != nil {
				t.Fatal(err)
			}
			restored, err := Restore(opt, state)
			if err != nil {
				t.Fatal(err)
			}
			again, err := restored.State()
			if err != nil || !bytes.Equal(state, again) {
				t.Fatalf("image %d: got %s, %v, want %s", i, again, err, state)
			}
			for range 20 {
				s := part(rand.New(rand.NewPCG(uint64(i), 9)))
				if got, want := fmt.Sprint(restored.See(s)), fmt.Sprint(l.See(s)); got != want {
					t.Fatalf("image %d: got %s, want %s", i, got, want)
				}
			}
		}
		l.See(part(chance))
	}
	for _, text := range []string{"", "{}", "[]", `{"score":{}}`} {
		if _, err := Restore(opt, []byte(text)); err == nil {
			t.Errorf("%q: got no error", text)
		}
	}
}

// FuzzRestore: whatever is taken for a state can be gone on with.
func FuzzRestore(f *testing.F) {
	chance := rand.New(rand.NewPCG(7, 8))
	l := New(Options{})
	for range 30 {
		l.See(part(chance))
		state, err := l.State()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(state)
	}
	f.Fuzz(func(t *testing.T, state []byte) {
		l, err := Restore(Options{}, state)
		if err != nil {
			return
		}
		for range 30 {
			l.See(part(chance))
		}
		l.Figures()
	})
}
