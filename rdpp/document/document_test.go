package document

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/weights"
)

type example struct {
	A int `json:"a"`
	B struct {
		C string `json:"c"`
	} `json:"b"`
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		text    string
		further bool
		unknown string
		fails   bool
	}{
		{`{"a":1,"b":{"c":"x"}}`, false, "", false},
		{`{"a":1,"A":2}`, false, "", true}, // names count letter by letter
		{`{"a":1,"A":2}`, true, "/A", false},
		{`{"a":1,"b":{"d":2,"e":3}}`, true, "/b/d", false},
		{`{"a":1,"b":{"d":2}}`, false, "", true},
		{`{"a":1,"a":1}`, true, "", true}, // twice
		{`{"a":"x"}`, true, "", true},
		{`{"a":1`, true, "", true},
		{`{"a":1} {}`, true, "", true},
	} {
		var got example
		unknown, err := Decode(c.text, &got, c.further)
		if (err != nil) != c.fails || err == nil && (unknown != c.unknown || got.A != 1) {
			t.Errorf("%s, further members wanted %v: got %+v, %q, %v, want %q, an error %v", c.text, c.further, got, unknown, err, c.unknown, c.fails)
		}
	}
}

func TestLacking(t *testing.T) {
	const text = `{"a":0,"b":{"c":null,"d":""}}`
	for _, c := range []struct {
		member string
		lacks  bool
	}{{"a", false}, {"b", false}, {"b.d", false}, {"b.c", true}, {"b.e", true}, {"c", true}, {"a.b", true}} {
		err := Lacking(text, "a", c.member)
		if (err != nil) != c.lacks || err != nil && (!errors.Is(err, anomaly.ErrDamaged) || !strings.Contains(err.Error(), c.member+" is missing")) {
			t.Errorf("%s: got %v, want an error: %v", c.member, err, c.lacks)
		}
	}
}

// What is written comes back; what is of another kind says which.
func TestWriteRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.safetensors")
	tensors := []weights.Source{{Name: "x", DType: weights.F32, Shape: []int{2}, Bytes: func() ([]byte, error) { return make([]byte, 8), nil }}}
	if err := Write(path, ModelKey, example{A: 7}, tensors); err != nil {
		t.Fatal(err)
	}
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var got example
	if o, err := Read(file, ModelKey, &got); err != nil || got.A != 7 || !o.Digest || o.Unknown != "" {
		t.Errorf("got %+v, %+v, %v, want 7 and a digest", got, o, err)
	}
	if size, err := Size(ModelKey, example{A: 7}, tensors); err != nil || size < file.Size() {
		t.Errorf("got room for %d bytes, %v, the file has %d", size, err, file.Size())
	}
	if _, err := Read(file, TeacherKey, &got); !errors.Is(err, errNotOurs) {
		t.Errorf("another key: got %v, want %v", err, errNotOurs)
	}
	if err := Write(path, CheckpointKey, example{}, nil); err != nil {
		t.Fatal(err)
	}
	unfinished, err := weights.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	defer unfinished.Close()
	if _, err := Read(unfinished, ModelKey, &got); err == nil || !strings.Contains(err.Error(), "checkpoint of a training") {
		t.Errorf("a checkpoint: got %v", err)
	}
}
