package batch

import (
	"encoding/json"
	"errors"
	"testing"

	"rdpp/rdpp/bulk"
	"rdpp/rdpp/queue"
)

func TestReadTask(t *testing.T) {
	want := Task{"id", "/out", "model", "list", "rdpp 1", 3, 3000, 4000}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadTask(queue.Task{Message: text}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := ReadTask(queue.Task{Message: []byte("none")}); err == nil {
		t.Error("no task: got no error")
	}
}

func TestOpenTask(t *testing.T) {
	b := made(t, 4, 2)
	empty := t.TempDir()
	for _, c := range []struct {
		task   Task
		folder string
		want   error
	}{
		{Task{Batch: b.ID(), Out: b.Dir(), Piece: 1}, "", nil}, {Task{Batch: b.ID(), Out: "/elsewhere", Piece: 1}, b.Dir(), nil},
		{Task{Batch: "other", Out: b.Dir()}, "", bulk.ErrOther}, {Task{Batch: b.ID(), Out: b.Dir(), Piece: 2}, "", bulk.ErrOther},
		{Task{Batch: b.ID(), Out: b.Dir(), Piece: -1}, "", bulk.ErrOther}, {Task{Batch: b.ID(), Out: "/elsewhere"}, "", bulk.ErrNone},
		{Task{Batch: b.ID(), Out: empty}, "", queue.ErrAway}, {Task{Batch: b.ID(), Out: empty + "/out"}, "", queue.ErrAway}, {Task{Batch: b.ID(), Out: b.Root}, "", bulk.ErrNone},
	} {
		if _, err := OpenTask(c.task, c.folder); !errors.Is(err, c.want) {
			t.Errorf("%+v in %q: got %v, want %v", c.task, c.folder, err, c.want)
		}
	}
}
