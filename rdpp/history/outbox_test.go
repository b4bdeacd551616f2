package history

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// outboxOf opens an outbox of the source of example.
func outboxOf(t *testing.T, h *DB, destination string) *Outbox {
	t.Helper()
	o, err := h.Outbox(t.Context(), destination, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// add adds records of the source of example, or of another.
func add(t *testing.T, h *DB, source string, names ...string) {
	t.Helper()
	for _, name := range names {
		r := example(name)
		r.Source, r.Time = source, time.Now()
		if err := h.Add(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
}

// wantNext is about the images that are next.
func wantNext(t *testing.T, o *Outbox, most int, want ...string) {
	t.Helper()
	all, err := o.Next(t.Context(), most)
	var got []string
	for _, r := range all {
		got = append(got, r.Image)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q next", got, err, want)
	}
}

func wantWaiting(t *testing.T, o *Outbox, want int) {
	t.Helper()
	if got, err := o.Waiting(t.Context()); err != nil || got != want {
		t.Errorf("got %d, %v, want %d that wait", got, err, want)
	}
	if empty, err := o.Empty(t.Context()); err != nil || empty != (want == 0) {
		t.Errorf("got empty %v, %v, where %d wait", empty, err, want)
	}
}

// TestOutbox: an outbox has the records that come after it, of its source, in their order, until they are sent; another destination
// has its own; another handle on the file goes on where the first ended.
func TestOutbox(t *testing.T) {
	h, path := opened(t, nil)
	add(t, h, "test", "before")
	first := outboxOf(t, h, "first")
	wantNext(t, first, 9)
	add(t, h, "test", "a", "b")
	add(t, h, "other", "x")
	second := outboxOf(t, h, "second")
	add(t, h, "test", "c")
	wantNext(t, first, 2, "a", "b")
	wantNext(t, first, 9, "a", "b", "c")
	wantNext(t, second, 9, "c")
	wantWaiting(t, first, 3)
	all, err := first.Next(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Sent(t.Context(), all[0].ID); err != nil {
		t.Fatal(err)
	}
	wantNext(t, first, 9, "b", "c")
	again, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	o := outboxOf(t, again, "first")
	if o.History() != first.History() || o.ID() != first.ID() || o.ID() == second.ID() || o.History() == "" {
		t.Errorf("got %q %d, then %q %d, another destination %d", first.History(), first.ID(), o.History(), o.ID(), second.ID())
	}
	wantNext(t, o, 9, "b", "c")
	if err := o.Sent(t.Context(), all[0].ID+1); err != nil {
		t.Fatal(err)
	}
	wantNext(t, first, 9, "c") // which has not been told
	if err := first.Skip(t.Context(), all[0].ID+3); err != nil {
		t.Fatal(err)
	}
	wantNext(t, o, 9)
	wantWaiting(t, o, 0)
	wantNext(t, second, 9, "c")
	if other, _ := opened(t, nil); outboxOf(t, other, "first").History() == first.History() {
		t.Error("got the same name of two histories")
	}
}

// TestOutboxPending: what is recorded of an arrival is sent once what follows is done, as it is then, and nothing overtakes it.
func TestOutboxPending(t *testing.T) {
	h, _ := opened(t, nil)
	o, j := outboxOf(t, h, "x"), h.Journal("/in")
	add(t, h, "test", "a")
	r := example("b")
	r.Source, r.Time = "test", time.Now()
	arrival := Arrival{Path: "b"}
	if err := j.Judged(t.Context(), &arrival, &r); err != nil {
		t.Fatal(err)
	}
	add(t, h, "test", "c")
	wantNext(t, o, 9, "a")
	if err := o.Sent(t.Context(), r.ID-1); err != nil {
		t.Fatal(err)
	}
	wantNext(t, o, 9)
	add(t, h, "test", "d")
	wantNext(t, o, 9)
	for len(o.Woken()) > 0 {
		<-o.Woken()
	}
	if err := j.Move(t.Context(), r.ID, "/elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := j.Done(t.Context(), arrival, false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-o.Woken():
	default:
		t.Error("got nothing, want to be woken")
	}
	all, err := o.Next(t.Context(), 1)
	if err != nil || len(all) != 1 || all[0].Moved != "/elsewhere" {
		t.Errorf("got %+v, %v, want where it was moved at last", all, err)
	}
	wantNext(t, o, 9, "b", "c", "d")
}

// TestOutboxTrim: too many, too old and removed records are dropped, the oldest first, and each counted once.
func TestOutboxTrim(t *testing.T) {
	h, _ := opened(t, nil)
	o := outboxOf(t, h, "x")
	want := func(what string, most int, dropped int64, next ...string) {
		t.Helper()
		if got, err := o.Trim(t.Context(), most, time.Hour); err != nil || got != dropped {
			t.Errorf("%s: got %d, %v, want %d dropped", what, got, err, dropped)
		}
		wantNext(t, o, 9, next...)
	}
	want("empty", 2, 0)
	add(t, h, "test", "a", "b", "c")
	add(t, h, "other", "x", "x", "x")
	want("enough room", 3, 0, "a", "b", "c")
	want("too many", 2, 1, "b", "c")
	want("told once", 2, 0, "b", "c")
	old := example("old")
	old.Source, old.Time = "test", time.Now().Add(-2*time.Hour)
	if err := h.Add(t.Context(), &old); err != nil {
		t.Fatal(err)
	}
	want("too old", 9, 3)
	if err := h.Add(t.Context(), &old, &old); err != nil {
		t.Fatal(err)
	}
	if err := o.Sent(t.Context(), old.ID-1); err != nil {
		t.Fatal(err)
	}
	add(t, h, "test", "d")
	if err := h.SetRetention(t.Context(), Retention{Age: time.Hour}); err != nil {
		t.Fatal(err)
	}
	want("removed, one of them sent before", 9, 1, "d")
}

// TestOutboxLock: one at a time sends from an outbox.
func TestOutboxLock(t *testing.T) {
	h, path := opened(t, nil)
	other, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	first, second, elsewhere := outboxOf(t, h, "x"), outboxOf(t, other, "x"), outboxOf(t, other, "y")
	want := func(what string, o *Outbox, want bool) {
		t.Helper()
		if ok, err := o.TryLock(); err != nil || ok != want {
			t.Errorf("%s: got %v, %v, want %v", what, ok, err, want)
		}
	}
	want("free", first, true)
	want("its own", first, true)
	want("taken", second, false)
	want("another destination", elsewhere, true)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	want("free again", second, true)
	want("taken by the other", first, false)
}

// TestAdded: who asks is told of each record that is written, in their order, by either way of writing.
func TestAdded(t *testing.T) {
	var got []string
	h, _ := opened(t, &Options{Added: func(r *Record) { got = append(got, fmt.Sprint(r.ID, r.Image)) }})
	add(t, h, "test", "a", "b")
	r := example("c")
	if err := h.Journal("/in").Judged(t.Context(), &Arrival{Path: "c"}, &r); err != nil {
		t.Fatal(err)
	}
	if want := []string{"1a", "2b", "3c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
