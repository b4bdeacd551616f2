package printable

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"plain", "part 17 (ok).png", "part 17 (ok).png"},
		{"letters of the world", "Prüfling_测试_деталь_قطعة_🙂.png", "Prüfling_测试_деталь_قطعة_🙂.png"},
		{"decomposed umlaut", "a\u0308", "a\u0308"},
		{"escape sequence", "a\x1b[2Jb", `a\x1b[2Jb`},
		{"title of the window", "\x1b]0;owned\a", `\x1b]0;owned\x07`},
		{"lines", "a\nb\rc\td", `a\nb\rc\td`},
		{"nul and backspace", "a\x00b\b", `a\x00b\x08`},
		{"DEL", "\x7f", `\x7f`},
		{"C1", "\u0085\u009b2J", `\u0085\u009b2J`},
		{"C1 as a byte", "\x9b2J", `\x9b2J`},
		{"right to left override", "part_\u202egnp.exe", `part_\u202egnp.exe`},
		{"isolates", "\u2066\u2067\u2068\u2069", `\u2066\u2067\u2068\u2069`},
		{"marks of direction", "\u200e\u200f\u061c", `\u200e\u200f\u061c`},
		{"separators", "\u2028\u2029", `\u2028\u2029`},
		{"no width", "\u200b\u200c\u200d\u2060\ufeff\u00ad", `\u200b\u200c\u200d\u2060\ufeff\u00ad`},
		{"letters that are not seen", "\u3164\u115f\u034f\ufe0f\u2800", `\u3164\u115f\u034f\ufe0f\u2800`},
		{"other spaces", "\u00a0\u3000", `\u00a0\u3000`},
		{"tags", "\U000e0041", `\U000e0041`},
		{"private use", "\ue000", `\ue000`},
		{"Latin-1", "part_\xe4.png", `part_\xe4.png`},
		{"cut character", "\xe6\xb5", `\xe6\xb5`},
		{"surrogate", "\xed\xa0\x80", `\xed\xa0\x80`},
		{"replacement character", "\ufffd", "\ufffd"},
		{"backslash", `C:\x1b`, `C:\x1b`},
	} {
		got := Text(c.text)
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		check(t, got, Longest)
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		name, text string
		longest    int
		want       string
	}{
		{"fits", strings.Repeat("a", 120), 120, strings.Repeat("a", 120)},
		{"one too long", strings.Repeat("a", 121), 120, strings.Repeat("a", 38) + "[... 45 bytes left out ...]" + strings.Repeat("a", 38)},
		{"ends stay", "open " + strings.Repeat("x", 60000) + ": no such file", 120,
			"open " + strings.Repeat("x", 33) + "[... 59943 bytes left out ...]" + strings.Repeat("x", 24) + ": no such file"},
		{"whole characters", strings.Repeat("测", 100), 120, strings.Repeat("测", 12) + "[... 228 bytes left out ...]" + strings.Repeat("测", 12)},
		{"whole escapes", strings.Repeat("\x00", 1000), 120, strings.Repeat(`\x00`, 9) + "[... 982 bytes left out ...]" + strings.Repeat(`\x00`, 9)},
		{"never less than 100", strings.Repeat("b", 100), 7, strings.Repeat("b", 100)},
	} {
		got := Cut(c.text, c.longest)
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		check(t, got, max(c.longest, 100))
	}
	if got := Text(strings.Repeat("y", 60000)); len(got) > Longest || len(got) < Longest-50 {
		t.Errorf("a name of 60000 bytes has %d in print, want about %d", len(got), Longest)
	}
}

func TestBase64(t *testing.T) {
	for _, c := range []struct{ name, want string }{{"", ""}, {"part.png", ""}, {"Prüfling\u202e\x00.png", ""}, {"part_\xe4.png", "cGFydF/kLnBuZw=="}} {
		if got := Base64(c.name); got != c.want {
			t.Errorf("%q: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestAttr(t *testing.T) {
	evil := "a\x1b[31m\u202e\xff" + strings.Repeat("z", 60000)
	for _, kind := range []string{"text", "json"} {
		var out bytes.Buffer
		opt := &slog.HandlerOptions{ReplaceAttr: Attr, AddSource: true}
		handler := slog.Handler(slog.NewTextHandler(&out, opt))
		if kind == "json" {
			handler = slog.NewJSONHandler(&out, opt)
		}
		slog.New(handler).Info(evil, "path", evil, "error", errors.New(evil), "names", []string{evil, "b"}, evil, 7,
			slog.Group("g", "inner", evil), "address", netip.MustParseAddr("127.0.0.1"))
		line := strings.TrimSuffix(out.String(), "\n")
		if len(line) > 8*Longest {
			t.Errorf("%s: a line of %d bytes, want at most %d", kind, len(line), 8*Longest)
		}
		check(t, line, len(line))
		for _, want := range []string{"127.0.0.1", "printable_test.go", "bytes left out"} {
			if !strings.Contains(line, want) {
				t.Errorf("%s: got %s, want it to have %q", kind, line, want)
			}
		}
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{"", "part.png", "a\x1b[2J\u202e\xff", strings.Repeat("\u200b测", 900), strings.Repeat("\xf0\x9f", 1500)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Text(s)
		check(t, got, Longest)
		if again := Text(got); again != got {
			t.Errorf("%q once, %q twice", got, again)
		}
	})
}

// check fails where a text is not safe to print.
func check(t *testing.T, text string, longest int) {
	t.Helper()
	switch {
	case !utf8.ValidString(text):
		t.Errorf("%q is not valid UTF-8", text)
	case len(text) > longest:
		t.Errorf("%d bytes, want at most %d", len(text), longest)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) || invisible(r) {
			t.Errorf("%q has %U, which does not print", text, r)
		}
	}
}

func TestCount(t *testing.T) {
	for _, c := range []struct {
		n          int
		noun, want string
	}{{0, "image", "0 images"}, {1, "image", "1 image"}, {2, "image", "2 images"}, {1, "category", "1 category"}, {3, "category", "3 categories"}} {
		if got := Count(c.n, c.noun); got != c.want {
			t.Errorf("%d %s: got %q, want %q", c.n, c.noun, got, c.want)
		}
	}
}
