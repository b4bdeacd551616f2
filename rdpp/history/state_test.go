package history

import (
	"database/sql"
	"net/url"
	"path/filepath"
	"testing"
)

// TestState: the latest state of a name is there, also for who only reads, and after the file was closed.
func TestState(t *testing.T) {
	h, path := opened(t, nil)
	for _, c := range []struct {
		name   string
		record int64
		state  string
	}{{"drift:a", 7, "one"}, {"drift:b", 8, "two"}, {"drift:a", 9, "three"}} {
		if err := h.SetState(t.Context(), c.name, c.record, []byte(c.state)); err != nil {
			t.Fatal(err)
		}
		if record, state, err := h.State(t.Context(), c.name); err != nil || record != c.record || string(state) != c.state {
			t.Errorf("%s: got %d, %q, %v, want %d, %q", c.name, record, state, err, c.record, c.state)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if record, state, err := again.State(t.Context(), "drift:b"); err != nil || record != 8 || string(state) != "two" {
		t.Errorf("got %d, %q, %v, want 8, two", record, state, err)
	}
	if record, state, err := again.State(t.Context(), "none"); err != nil || record != 0 || state != nil {
		t.Errorf("none: got %d, %q, %v", record, state, err)
	}
}

// TestEarlier: a file of before records had looks and masks, and there were states, is read as it is and gets them from who writes.
func TestEarlier(t *testing.T) {
	h, path := opened(t, nil)
	r := example("a.png")
	if err := h.Add(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	earlier := filepath.Join(t.TempDir(), "line.db")
	db, err := sql.Open(driver, (&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`ALTER TABLE records DROP COLUMN brightness; ALTER TABLE records DROP COLUMN sharpness; DROP INDEX records_mask;
		ALTER TABLE records DROP COLUMN mask; DROP TABLE masks; DROP TABLE states; VACUUM INTO ?`, earlier)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	looks := func(opt *Options) (all []*float64) {
		h, err := Open(earlier, opt)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if !opt.ReadOnly {
			r := example("b.png")
			r.Mask = []byte("mask")
			if err := h.Add(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
			if err := h.SetState(t.Context(), "a", 1, []byte("b")); err != nil {
				t.Fatal(err)
			}
		}
		for r, err := range h.List(t.Context(), Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if (r.MaskSHA256 == "") != (r.Image == "a.png") {
				t.Errorf("%s: got the mask %q", r.Image, r.MaskSHA256)
			}
			all = append(all, r.Brightness, r.Sharpness)
		}
		return all
	}
	if got := looks(&Options{ReadOnly: true}); len(got) != 2 || got[0] != nil || got[1] != nil {
		t.Errorf("read: got %v, want two that are not known", got)
	}
	for n := range 2 {
		got := looks(&Options{})
		if len(got) != 4+2*n || got[0] != nil || got[2] == nil || *got[2] != 0.5 || *got[3] != 0.125 {
			t.Errorf("written, %d times: got %v", n+1, got)
		}
	}
}
