package drift

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestRate: streams that do not change alarm no more often than stated, whatever their distribution, with references of any size; and
// they do alarm now and then, or the test would see nothing.
func TestRate(t *testing.T) {
	const streams, length, rate = 20, 10_000, 1.0
	for name, draw := range map[string]func(*rand.Rand) float64{
		"normal": (*rand.Rand).NormFloat64, "log-normal": func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64()) },
		"few values": func(r *rand.Rand) float64 { return math.Round(2 * r.NormFloat64()) }, "one value": func(*rand.Rand) float64 { return 1 },
	} {
		for _, reference := range []int{0, 20, 500} {
			alarms := 0
			for stream := range streams {
				chance := rand.New(rand.NewPCG(uint64(stream), 3))
				opt := Options{Rate: rate, Pool: 2000}
				for range reference {
					opt.Reference = append(opt.Reference, draw(chance))
				}
				m := New(opt)
				for range length {
					if m.Add(draw(chance)) != nil {
						alarms++
					}
				}
			}
			got := 1000 * float64(alarms) / (streams * length)
			if got > rate || alarms == 0 {
				t.Errorf("%s, %d in the reference: got %.3f alarms per 1,000, want some, at most %v", name, reference, got, rate)
			}
		}
	}
}

// TestDelay: a change of so many standard deviations is noticed within so many images, and the alarm says where to.
func TestDelay(t *testing.T) {
	for _, c := range []struct {
		shift, slope float64 // at once, and per image
		within       int     // images, of each of the streams
	}{{1, 0, 200}, {-1, 0, 200}, {2, 0, 60}, {0, 0.005, 600}, {0, -0.005, 600}} {
		for stream := range 20 {
			chance := rand.New(rand.NewPCG(uint64(stream), 4))
			m := New(Options{})
			for range 300 {
				m.Add(chance.NormFloat64())
			}
			m.up, m.down = 0, 0 // what was by chance
			delay := 0
			var alarm *Alarm
			for alarm == nil && delay < 5000 {
				delay++
				alarm = m.Add(chance.NormFloat64() + c.shift + float64(delay)*c.slope)
			}
			if alarm == nil || delay > c.within || (alarm.Now > alarm.Usual) != (c.shift+c.slope > 0) || alarm.Rose != (c.shift+c.slope > 0) {
				t.Errorf("shift %v, slope %v, stream %d: got %+v after %d images, want one within %d", c.shift, c.slope, stream, alarm, delay, c.within)
			}
		}
	}
}

func TestAdd(t *testing.T) {
	m := New(Options{Reference: []float64{3, 1, 2}, Pool: 4})
	for range 100 {
		m.Add(math.NaN())
	}
	if m.count != 0 || m.Evidence() != 0 {
		t.Errorf("NaN: got %d numbers, evidence %v, want none", m.count, m.Evidence())
	}
	for i := range 100 {
		m.Add(float64(i % 7))
	}
	if len(m.pool) != 4 || len(m.last) != recent {
		t.Errorf("got %d in the pool and %d of the latest, want 4 and %d", len(m.pool), len(m.last), recent)
	}
}

// TestRestore: a state goes on as its monitor does, and what is none is refused.
func TestRestore(t *testing.T) {
	opt := Options{Rate: 20, Pool: 50}
	m, chance := New(opt), rand.New(rand.NewPCG(5, 5))
	for i := range 300 {
		again, err := Restore(opt, m.State())
		if err != nil {
			t.Fatalf("after %d numbers: %v", i, err)
		}
		x := math.Round(3 * chance.NormFloat64())
		got, want := again.Add(x), m.Add(x)
		if (got == nil) != (want == nil) || again.Evidence() != m.Evidence() || got != nil && *got != *want {
			t.Fatalf("after %d numbers: got %v, %v, want %v, %v", i, got, again.Evidence(), want, m.Evidence())
		}
	}
	for name, change := range map[string]func(*State){
		"not sorted":            func(s *State) { s.Pool = []float64{2, 1} },
		"not a number":          func(s *State) { s.Pool = []float64{math.NaN()} },
		"more than kept":        func(s *State) { s.Pool = make([]float64, 51) },
		"too few":               func(s *State) { s.Last = s.Last[:1] },
		"negative":              func(s *State) { s.Up = -1 },
		"an alarm":              func(s *State) { s.Down = 1e9 },
		"evidence is no number": func(s *State) { s.Up = math.NaN() },
		"negative count":        func(s *State) { s.Count, s.Last = -1, nil },
	} {
		s := m.State()
		change(&s)
		if _, err := Restore(opt, s); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func ExampleMonitor() {
	m := New(Options{Rate: 0.01})
	chance := rand.New(rand.NewPCG(1, 1))
	for i := range 2000 {
		brightness := 0.5 + 0.02*chance.NormFloat64()
		if i >= 1000 { // the lamp loses a tenth of its light
			brightness -= 0.05
		}
		if a := m.Add(brightness); a != nil {
			fmt.Printf("noticed with %d images; it rose: %v; before: %.2f\n", i-999, a.Rose, a.Usual)
			break
		}
	}
	// Output: noticed with 7 images; it rose: false; before: 0.50
}
