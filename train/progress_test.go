package main

import (
	"bytes"
	"testing"
)

func TestDownloadShown(t *testing.T) {
	for _, c := range []struct {
		name   string
		asJSON bool
		want   string
	}{
		{"lines", false, "part: downloading w.pth: 1 of 83 MiB\npart: downloading w.pth: 83 of 83 MiB\npart: downloading v.pth: 3 MiB\n"},
		{"JSON", true, `{"bytes":1048576,"category":"part","event":"download","file":"w.pth","total":87031808}` + "\n" +
			`{"bytes":87031808,"category":"part","event":"download","file":"w.pth","total":87031808}` + "\n" +
			`{"bytes":3145728,"category":"part","event":"download","file":"v.pth","total":-1}` + "\n"},
	} {
		var stdout, stderr bytes.Buffer
		p := openProgress("part", &stdout, &stderr, c.asJSON)
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
