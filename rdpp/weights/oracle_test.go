package weights

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/gopickle/pickle"
	"github.com/nlpodyssey/gopickle/pytorch"
	"github.com/nlpodyssey/gopickle/types"
)

// function is a class or function that gopickle may call.
type function func(args []any) (any, error)

func (f function) Call(args ...any) (any, error) { return f(args) }

// readTheirs reads a checkpoint by gopickle, which knows neither parameters nor what holds no tensors. It believes what a
// file says, so it must not be given a hostile one.
func readTheirs(path string) (tensors map[string]expected, err error) {
	first := function(func(args []any) (any, error) { return args[0], nil })
	nothing := function(func([]any) (any, error) { return nil, nil })
	value, err := pytorch.LoadWithUnpickler(path, func(r io.Reader) pickle.Unpickler {
		u := pickle.NewUnpickler(r)
		u.FindClass = func(module, name string) (any, error) {
			switch g := global(module + "." + name); {
			case g == orderedDict:
				return &types.OrderedDictClass{}, nil
			case g == rebuildParameter, g == size:
				return first, nil
			case leaves[g]:
				return nothing, nil
			}
			return nil, fmt.Errorf("unknown: %s.%s", module, name)
		}
		return u
	})
	if err != nil {
		return nil, err
	}
	tensors = map[string]expected{}
	err = collect(tensors, "", value)
	return tensors, err
}

// collect adds the tensors within v, named by the path to them.
func collect(tensors map[string]expected, name string, v any) error {
	below := func(key any, v any) error {
		if name == "" {
			return collect(tensors, fmt.Sprint(key), v)
		}
		return collect(tensors, fmt.Sprint(name, ".", key), v)
	}
	switch v := v.(type) {
	case *types.Dict:
		for _, entry := range *v {
			if err := below(entry.Key, entry.Value); err != nil {
				return err
			}
		}
	case *types.OrderedDict:
		for key, entry := range v.Map {
			if err := below(key, entry.Value); err != nil {
				return err
			}
		}
	case *types.List:
		for i, item := range *v {
			if err := below(i, item); err != nil {
				return err
			}
		}
	case *types.Tuple:
		for i, item := range *v {
			if err := below(i, item); err != nil {
				return err
			}
		}
	case *pytorch.Tensor:
		dtype, at, err := elementsOf(v.Source)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		e := expected{Name: name, DType: dtype, Shape: v.Size}
		if !slices.Contains(v.Size, 0) {
			eachPlace(v.Size, v.Stride, v.StorageOffset, func(place int) { e.Values = append(e.Values, at(place)) })
		}
		tensors[name] = e
	}
	return nil
}

// eachPlace visits the places of a view's elements in row-major order.
func eachPlace(shape, stride []int, place int, visit func(place int)) {
	if len(shape) == 0 {
		visit(place)
		return
	}
	for i := range shape[0] {
		eachPlace(shape[1:], stride[1:], place+i*stride[0], visit)
	}
}

func elementsOf(s pytorch.StorageInterface) (dtype string, at func(int) float64, err error) {
	switch s := s.(type) {
	case *pytorch.HalfStorage:
		return "F16", numbers(s.Data), nil
	case *pytorch.BFloat16Storage:
		return "BF16", numbers(s.Data), nil
	case *pytorch.FloatStorage:
		return "F32", numbers(s.Data), nil
	case *pytorch.DoubleStorage:
		return "F64", numbers(s.Data), nil
	case *pytorch.CharStorage:
		return "I8", numbers(s.Data), nil
	case *pytorch.ByteStorage:
		return "U8", numbers(s.Data), nil
	case *pytorch.ShortStorage:
		return "I16", numbers(s.Data), nil
	case *pytorch.IntStorage:
		return "I32", numbers(s.Data), nil
	case *pytorch.LongStorage:
		return "I64", numbers(s.Data), nil
	case *pytorch.BoolStorage:
		return "BOOL", func(i int) float64 {
			if s.Data[i] {
				return 1
			}
			return 0
		}, nil
	}
	return "", nil, fmt.Errorf("storage %T", s)
}

func numbers[T int8 | uint8 | int16 | int32 | int64 | float32 | float64](data []T) func(int) float64 {
	return func(i int) float64 { return float64(data[i]) }
}

// TestOracle reads every sound file by a reader that is not ours.
func TestOracle(t *testing.T) {
	pickle := saved(view(4, 1, ints(1, 3, 1), ints(7, 1, 7)))
	handmade := filepath.Join(t.TempDir(), "handmade.pth")
	if err := os.WriteFile(handmade, zipOf(t, pickle), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"testdata/zip.pth", "testdata/legacy.pth", "testdata/nested_checkpoint.pth", "testdata/more_zip.pth",
		"testdata/more_legacy.pth", handmade} {
		want, err := readTheirs(path)
		if err != nil {
			t.Errorf("%s: the other reader: %v", path, err)
			continue
		}
		f := openTest(t, path)
		var all []expected
		for _, e := range want {
			if ours, _ := f.Lookup(e.Name); e.DType == "F16" && strings.Contains(path, "more") {
				e.Values = mustRead(t, ours).Float64() // gopickle misreads its -0 and subnormal numbers; TestMore has PyTorch's reading
			}
			all = append(all, e)
		}
		if len(all) == 0 {
			t.Errorf("%s: the other reader found nothing", path)
		}
		compare(t, f, all)
	}
}
