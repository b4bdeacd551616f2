package methodtest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Run tests what every method promises: of, given a seed, is one with settings that are quick.
func Run(t *testing.T, of func(seed uint64) method.Method) {
	m := of(3)
	want := Bytes(t, Trained(t, m))
	t.Run("resume", func(t *testing.T) { testResume(t, m, want) })
	t.Run("finish on the way", func(t *testing.T) { testFinish(t, m, want) })
	t.Run("seed", func(t *testing.T) {
		if !bytes.Equal(Bytes(t, Trained(t, of(3))), want) {
			t.Error("got another net of the same seed")
		}
		if bytes.Equal(Bytes(t, Trained(t, of(4))), want) {
			t.Error("got the same net of another seed")
		}
	})
	t.Run("one score", func(t *testing.T) { OneScore(t, m) })
}

// Put down after any step and taken up again, a learner leads to the same net to the bit.
func testResume(t *testing.T, m method.Method, want []byte) {
	for stop := range Steps + 1 {
		first := Begun(t, m)
		Learn(t, first, 0, stop)
		var s torch.Scope
		sources, err := first.State(&s)
		if err != nil {
			t.Fatal(err)
		}
		file := Write(t, sources)
		s.Close()
		second := Learner(t, m, Blank(t, m))
		if err := second.Restore(file, anomaly.Facts{}); err != nil {
			t.Fatal(err)
		}
		Learn(t, second, stop, Steps)
		if got := Bytes(t, Finish(t, second)); !bytes.Equal(got, want) {
			t.Errorf("stopped after %d of %d steps: got another net than without", stop, Steps)
		}
	}
}

// Learning goes on after a net was asked for on the way, which changes nothing.
func testFinish(t *testing.T, m method.Method, want []byte) {
	l := Begun(t, m)
	Learn(t, l, 0, Steps/2)
	net, err := l.Finish(t.Context(), Images(t, 0, Known), false)
	if err != nil {
		t.Fatal(err)
	}
	Predict(t, net, 0, 1)
	Learn(t, l, Steps/2, Steps)
	if got := Bytes(t, Finish(t, l)); !bytes.Equal(got, want) {
		t.Error("got another net than without a look at it on the way")
	}
}

// OneScore says that an image has the same map and score alone and in a batch, from the model file and where the weights are
// released.
func OneScore(t *testing.T, m method.Method) {
	net := Trained(t, m)
	maps, scores := Predict(t, net, Odd, 3)
	check := func(what string, net method.Net) {
		t.Helper()
		for i := range 3 {
			m, s := Predict(t, net, Odd+i, 1)
			if s[0] != scores[i] || !slices.Equal(m, maps[i*Side*Side:][:Side*Side]) {
				t.Errorf("%s, image %d: got a score of %v, want %v and the same map", what, i, s[0], scores[i])
			}
		}
	}
	check("alone", net)
	loaded := Loaded(t, m, net)
	check("loaded", loaded)
	if r, can := loaded.(method.Releaser); can {
		if err := r.Release(); err != nil {
			t.Fatal(err)
		}
		check("released", loaded)
		check("released, once more", loaded)
		var s torch.Scope
		defer s.Close()
		larger := s.Tensor(torch.FromSlice(make([]float32, 3*4*Side*Side), 1, 3, 2*Side, 2*Side))
		if _, _, err := loaded.Predict(larger); !errors.Is(err, torch.ErrArgument) {
			t.Errorf("released, an image of another size: got error %v, want %v, the weights being gone", err, torch.ErrArgument)
		}
	}
}

// Damage is what may befall a model file's tensors, and what the error says then.
type Damage struct {
	What   string
	Change func(all []weights.Source) []weights.Source
	Want   string
}

// Lacking is a file without the tensors whose names begin so.
func Lacking(prefix string) Damage {
	return Damage{"no " + prefix, func(all []weights.Source) []weights.Source {
		return slices.DeleteFunc(all, func(s weights.Source) bool { return strings.HasPrefix(s.Name, prefix) })
	}, prefix}
}

// Altered is a file in which a tensor's elements begin with other bytes.
func Altered(name, want string, first ...byte) Damage {
	return Damage{name + " altered", changed(name, func(s *weights.Source) {
		bytesOf := s.Bytes
		s.Bytes = func() ([]byte, error) {
			data, err := bytesOf()
			copy(data, first)
			return data, err
		}
	}), want}
}

// Twice is a file in which the first of a tensor's int64 is its second, too.
func Twice(name, want string) Damage {
	return Damage{name + " twice", changed(name, func(s *weights.Source) {
		bytesOf := s.Bytes
		s.Bytes = func() ([]byte, error) {
			data, err := bytesOf()
			copy(data[:8], data[8:16])
			return data, err
		}
	}), want}
}

// Reshaped is a file in which a tensor has its dimensions the other way round.
func Reshaped(name string) Damage {
	return Damage{name + " reshaped", changed(name, func(s *weights.Source) {
		s.Shape = slices.Clone(s.Shape)
		slices.Reverse(s.Shape)
	}), name}
}

func changed(name string, change func(s *weights.Source)) func(all []weights.Source) []weights.Source {
	return func(all []weights.Source) []weights.Source {
		change(&all[slices.IndexFunc(all, func(s weights.Source) bool { return s.Name == name })])
		return all
	}
}

// NaN are the bytes of a float32 that is none.
var NaN = []byte{0, 0, 0xc0, 0x7f}

// Damaged says that a file of net is refused that is damaged so, or that lacks the teacher or has more than there is a place for,
// and facts that are another method's.
func Damaged(t *testing.T, m method.Method, net method.Net, all ...Damage) {
	all = append(all, Lacking("encoder.conv1.weight"), Damage{"left over", func(all []weights.Source) []weights.Source {
		more := all[len(all)-1]
		more.Name += ".more"
		return append(all, more)
	}, ".more"})
	for _, c := range all {
		t.Run(c.What, func(t *testing.T) {
			err := m.Load(Blank(t, m), Write(t, c.Change(net.State())), anomaly.Facts{})
			if err == nil || !strings.Contains(err.Error(), c.Want) {
				t.Errorf("got error %v, want one with %q", err, c.Want)
			}
		})
	}
	if _, err := m.MostScore(anomaly.Facts{MapLevels: anomaly.MapTerms{1}}); !errors.Is(err, anomaly.ErrDamaged) {
		t.Errorf("terms of a map: got error %v, want %v", err, anomaly.ErrDamaged)
	}
}

// Diverges says that a training whose weights leave all bounds ends with advice about a setting.
func Diverges(t *testing.T, m method.Method, field string) {
	t.Helper()
	l := Begun(t, m)
	for i := range Steps {
		losses, err := l.Step(Batch(0, 2), i, Steps)
		if err != nil {
			t.Fatal(err)
		}
		if losses.Finite() {
			continue
		}
		_, err = l.Finish(t.Context(), Images(t, 0, Known), true)
		var advice *setting.Advice
		if !errors.As(err, &advice) || !strings.Contains(err.Error(), field) {
			t.Errorf("got error %v, want one with advice about %s", err, field)
		}
		return
	}
	t.Error("got finite losses, want them to diverge")
}

// Counts says that a setting in which other differs from m makes it learn another net.
func Counts(t *testing.T, field string, m, other method.Method) {
	t.Helper()
	if bytes.Equal(Bytes(t, Trained(t, m)), Bytes(t, Trained(t, other))) {
		t.Errorf("%s: got the same net with another value", field)
	}
}

// Refused says that Check refuses a setting.
func Refused(t *testing.T, field, what string, m method.Method) {
	t.Helper()
	var wrong *setting.Error
	if err := m.Check(); !errors.As(err, &wrong) || wrong.Field != field {
		t.Errorf("%s: got error %v, want one about %s", what, err, field)
	}
}

// WeightBytes says that a Sized method tells what a file has of the tensors whose names begin with prefix, and that no estimate of
// the memory is lower.
func WeightBytes(t *testing.T, m method.Method, prefix string) {
	t.Helper()
	var want int64
	for _, tensor := range Blank(t, m).State() {
		if strings.HasPrefix(tensor.Name, prefix) {
			want += int64(weights.Tensor{Shape: tensor.Shape}.Len() * tensor.DType.Size())
		}
	}
	if got := m.(method.Sized).WeightBytes(); got != want {
		t.Errorf("got %d bytes, want %d", got, want)
	}
	if got, least := m.PredictionBytes(1, 0), 4*want; got < least {
		t.Errorf("got an estimate of %d bytes for a file that has less than the weights, want %d or more", got, least)
	}
}

// Number is one of those that the scripts of testdata make up, in -1..1, of a name and a number.
func Number(name string, i int) float64 {
	h := uint32(2166136261)
	for _, c := range fmt.Sprintf("%s/%d", name, i) {
		h = (h ^ uint32(c)) * 16777619
	}
	h = (h ^ h>>16) * 0x45d9f3b
	return float64(int((h^h>>16)%20001)-10000) / 10000
}

// Numbers are the first n of a name, times a factor.
func Numbers(name string, n int, factor float64) []float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = Number(name, i) * factor
	}
	return all
}

// Summary is a tensor's sum, its sum weighted by place, and its sum of squares, as the scripts of testdata have it.
type Summary [3]float64

// Summed is the summary of a tensor of float64.
func Summed(t testing.TB, x *torch.Tensor) (s Summary) {
	t.Helper()
	values, err := torch.Read[float64](x)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		s[0] += v
		s[1] += v * float64(1+i%7)
		s[2] += v * v
	}
	return s
}

// Near compares numbers, up to a tolerance relative to the one wanted or, below it, to 1.
func Near(t testing.TB, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*max(1, math.Abs(want))) {
		t.Errorf("%s: got %.15g, want %.15g", what, got, want)
	}
}

// NearSummary compares summaries like Near.
func NearSummary(t testing.TB, what string, got, want Summary, tolerance float64) {
	t.Helper()
	for i := range got {
		Near(t, fmt.Sprintf("%s, number %d", what, i), got[i], want[i], tolerance)
	}
}
