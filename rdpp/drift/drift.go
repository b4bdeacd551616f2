// Package drift notices that a stream of numbers, such as the scores of good images, is no longer as it was.
//
// Each number is ranked among the reference and those before it. While all of them are drawn alike, such ranks are independent
// and uniform, whatever the numbers' distribution and however few there are in the reference (Vovk et al., conformal test
// martingales). Bets against that are added up by Shiryaev's and Roberts' procedure, for which the mean number of images until a
// false alarm is at least the level at which it alarms (Pollak, 1985).
package drift

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
)

// DefaultRate is Options.Rate, unless it says otherwise.
const DefaultRate = 0.1

// Options say how a stream is monitored. Zero means the defaults.
type Options struct {
	Reference []float64 // numbers as they should be; none: the stream's first ones are the reference
	Rate      float64   // false alarms per 1,000 numbers, on average at most; default DefaultRate
	// Pool is how many numbers are ranked among; default 10,000. Those that come when there are as many are ranked and not kept, from
	// when on the rate holds but for the chance in the pool.
	Pool int
}

// recent is how many numbers Now is the median of.
const recent = 10

// Monitor monitors a stream. It is not safe for concurrent use.
type Monitor struct {
	level    float64
	most     int
	pool     []float64 // ascending
	last     []float64 // up to recent, a ring
	count    int       // of the stream
	up, down float64   // evidence that it rose, and that it fell
}

// State is all that a monitor has come to know, for whoever goes on with its stream.
type State struct {
	Pool  []float64 `json:"pool"` // ascending
	Last  []float64 `json:"last"`
	Count int       `json:"count"`
	Up    float64   `json:"up"`
	Down  float64   `json:"down"`
}

// State is the monitor's, which must not be changed and is good until the next Add.
func (m *Monitor) State() State { return State{m.pool, m.last, m.count, m.up, m.down} }

// Restore returns a monitor that goes on, to the bit, where the one stood whose state it is given. Of the options it takes Rate and
// Pool. A state that no monitor can have is an error.
func Restore(opt Options, s State) (*Monitor, error) {
	m := New(Options{Rate: opt.Rate, Pool: opt.Pool})
	m.pool, m.last, m.count, m.up, m.down = slices.Clone(s.Pool), slices.Clone(s.Last), s.Count, s.Up, s.Down
	if s.Count < 0 || len(s.Pool) > m.most || len(s.Last) != min(s.Count, recent) || !slices.IsSorted(s.Pool) || !(s.Up >= 0) || !(s.Down >= 0) ||
		m.evidence() >= m.level || slices.ContainsFunc(slices.Concat(s.Pool, s.Last), math.IsNaN) {
		return nil, errors.New("drift: this is no monitor's state; begin anew")
	}
	return m, nil
}

// Alarm says that a stream has changed.
type Alarm struct {
	Rose       bool    // or else it fell
	Usual, Now float64 // medians: of all numbers, and of the latest 3
}

// New returns a monitor. The numbers of a reference must not be chosen by what they are; where the stream leaves out some, such as
// those above a threshold, so has the reference to.
func New(opt Options) *Monitor {
	m := &Monitor{level: 1000 / cmp.Or(opt.Rate, DefaultRate), most: cmp.Or(opt.Pool, 10_000)}
	m.pool = slices.Clone(opt.Reference[:min(len(opt.Reference), m.most)])
	slices.Sort(m.pool)
	return m
}

// bet is what a unit of money becomes that is bet on p being small: 1 on average if p is uniform.
func bet(p float64) float64 { return 0.5 / math.Sqrt(p) }

// Add takes in the next number of the stream. It returns an alarm where the stream has changed, and begins to collect evidence anew;
// as long as the change lasts, alarms come again. NaN is left out.
func (m *Monitor) Add(x float64) *Alarm {
	if math.IsNaN(x) {
		return nil
	}
	low, _ := slices.BinarySearch(m.pool, x)
	high := low
	for high < len(m.pool) && m.pool[high] == x {
		high++
	}
	// The rank among those before and itself, anywhere within those that are equal; never 0 or 1. Chance depends on the number's
	// place in the stream alone, so that a state need not hold it.
	chance := rand.New(rand.NewPCG(1, uint64(m.count))).Float64()
	p := (float64(low) + (1-chance)*float64(high-low+1)) / float64(len(m.pool)+1)
	p = min(max(p, 1e-9), 1-1e-9)
	if len(m.pool) < m.most {
		m.pool = slices.Insert(m.pool, low, x)
	}
	if len(m.last) < recent {
		m.last = append(m.last, x)
	} else {
		m.last[m.count%recent] = x
	}
	m.count++
	m.up, m.down = (1+m.up)*bet(1-p), (1+m.down)*bet(p)
	if m.evidence() < m.level {
		return nil
	}
	a := &Alarm{Rose: m.up > m.down, Usual: m.Usual(), Now: m.latest(3)} // before which it may not have changed
	m.up, m.down = 0, 0
	return a
}

// evidence is as much as the number of images on average while nothing changes.
func (m *Monitor) evidence() float64 { return (m.up + m.down) / 2 }

// Usual is the median of all numbers, those of the reference among them; NaN: there are none.
func (m *Monitor) Usual() float64 { return median(m.pool) }

// Now is the median of the stream's latest numbers; NaN: there are none.
func (m *Monitor) Now() float64 { return m.latest(recent) }

// latest is the median of the latest n numbers, or of as many as there are.
func (m *Monitor) latest(n int) float64 {
	n = min(n, len(m.last))
	numbers := make([]float64, n)
	for i := range n {
		numbers[i] = m.last[(m.count-1-i)%recent]
	}
	slices.Sort(numbers)
	return median(numbers)
}

// Evidence is how far the stream is from an alarm, 0 to 1, in logarithms.
func (m *Monitor) Evidence() float64 { return min(math.Log1p(m.evidence())/math.Log1p(m.level), 1) }

// median of ascending numbers; NaN of none.
func median(x []float64) float64 {
	if len(x) == 0 {
		return math.NaN()
	}
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
