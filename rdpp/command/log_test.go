package command

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"
)

func TestLogTo(t *testing.T) {
	var out bytes.Buffer
	warnings := slog.New(WarnTo(&out, "prog")).With("a", 1)
	if warnings.Info("silent"); out.Len() > 0 {
		t.Errorf("warnings alone: got %q, want nothing", &out)
	}
	if warnings.Warn("told"); out.String() != "prog: told (a 1)\n" {
		t.Errorf("warnings alone: got %q, want the warning", &out)
	}
	out.Reset()
	log := slog.New(LogTo(&out, "prog"))
	for _, c := range []struct {
		say  func()
		want string
	}{
		{func() { log.Warn("left out", "file", "a b.png", "reason", errors.New("no\nimage \x1b[2J")) }, "prog: left out (file a b.png, reason no\\nimage \\x1b[2J)\n"},
		{func() { log.Info("waiting") }, "prog: waiting\n"},
		{func() { log.Debug("of no interest") }, ""},
		{func() { log.With("n", 3).WithGroup("fold").Warn("again", "after", time.Second, "of", 5) }, "prog: again (n 3, fold.after 1s, fold.of 5)\n"},
		{func() { log.WithGroup("").Info("names", "all", []string{"a", "b"}) }, "prog: names (all a, b)\n"},
	} {
		out.Reset()
		c.say()
		if got := out.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
