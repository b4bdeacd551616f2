package torch_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"strings"
	"testing"

	"rdpp/torch"
)

const tinyScript = "def forward(self, x: Tensor) -> Tensor:\n    return x * self.weight + 1.0\n"

func TestSaveScript(t *testing.T) {
	var s torch.Scope
	defer s.Close()
	weight := s.Tensor(torch.FromSlice([]float32{1, 2}, 2))
	index := s.Tensor(torch.FromSlice([]int64{3}, 1))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	err := torch.SaveScript(&file, tinyScript, []torch.NamedTensor{{Name: "weight", Tensor: weight}, {Name: "index", Tensor: index}},
		map[string]string{"a": "1", "b": "zwei"})
	if err != nil {
		t.Fatal(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]uint64{}
	for _, f := range archive.File {
		_, name, _ := strings.Cut(f.Name, "/")
		sizes[name] = f.UncompressedSize64
	}
	for name, want := range map[string]uint64{"extra/a": 1, "extra/b": 4, "data/0": 8, "data/1": 8} {
		if got, found := sizes[name]; !found || got != want {
			t.Errorf("%s: got %d bytes, %v, want %d", name, got, found, want)
		}
	}
}

// failing is a writer that takes some bytes and no more.
type failing struct{ left int }

var errFull = errors.New("full")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestSaveScriptErrors(t *testing.T) {
	large, err := torch.FromSlice(make([]float32, 1<<20), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	closed := new(torch.Tensor)
	attributes := []torch.NamedTensor{{Name: "weight", Tensor: large}}
	for _, c := range []struct {
		what, source string
		tensors      []torch.NamedTensor
		want         string
	}{
		{"no TorchScript", "def forward(self, x:", attributes, "torch: script: "},
		{"unknown attribute", tinyScript, nil, "weight"},
		{"closed tensor", tinyScript, []torch.NamedTensor{{Name: "weight", Tensor: closed}}, "closed"},
		{"a name that is none", tinyScript, []torch.NamedTensor{{Name: "", Tensor: large}}, "torch: script: "},
	} {
		err := torch.SaveScript(new(bytes.Buffer), c.source, c.tensors, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.what, err, c.want)
		}
	}
	for _, left := range []int{0, 1 << 20} {
		if err := torch.SaveScript(&failing{left}, tinyScript, attributes, nil); !errors.Is(err, errFull) {
			t.Errorf("a writer that fails after %d bytes: got error %v, want %v", left, err, errFull)
		}
	}
}
