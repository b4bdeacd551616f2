package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rdpp/rdpp"
)

func TestDownloadShown(t *testing.T) {
	for _, c := range []struct {
		name   string
		asJSON bool
		want   string
	}{
		{"lines", false, "part: downloading w.pth: 1 of 83 MiB\npart: downloading w.pth: 83 of 83 MiB\npart: downloading v.pth: 3 MiB\n"},
		{"JSON", true, `{"bytes":1048576,"category":"part","event":"download","file":"w.pth","schema":1,"total":87031808}` + "\n" +
			`{"bytes":87031808,"category":"part","event":"download","file":"w.pth","schema":1,"total":87031808}` + "\n" +
			`{"bytes":3145728,"category":"part","event":"download","file":"v.pth","schema":1,"total":-1}` + "\n"},
	} {
		var stdout, stderr bytes.Buffer
		p := openProgress("part", &stdout, &stderr, c.asJSON, false)
		p.download("w.pth", 1<<20, 83<<20)
		p.download("w.pth", 2<<20, 83<<20) // too soon after the one before
		p.download("w.pth", 83<<20, 83<<20)
		p.download("v.pth", 3<<20, -1)
		p.stop()
		if got := stdout.String(); got != c.want || stderr.Len() > 0 {
			t.Errorf("%s: got %q and %q, want %q", c.name, got, &stderr, c.want)
		}
	}
}

// A line with a bar fits 80 columns, whatever its numbers are.
func TestStatusFits(t *testing.T) {
	losses := rdpp.Losses{{Name: "total", Value: 0.000012345}, {Name: "ssot", Value: 3}}
	for _, left := range []time.Duration{0, 59*time.Minute + 59*time.Second, 123 * time.Hour} {
		line := shownName("a category with a long name") + " 100 %" + strings.Repeat("=", barWidth) + statusText(losses, 12345.6, left, true)
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%v: got %d columns, want at most 80: %s", left, n, line)
		}
	}
	if got, want := statusText(losses, 12.345, 90*time.Second, true), " loss 1.2e-05  12.3 images/s  1m30s left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := statusText(nil, 12.345, 0, false), " 12.3 images/s"; got != want {
		t.Errorf("a method without losses: got %q, want %q", got, want)
	}
	for d, want := range map[time.Duration]string{0: "0s", 61 * time.Second: "1m1s", 2*time.Hour + 90*time.Second: "2h02m", 100 * time.Hour: "100h00m"} {
		if got := durationText(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
