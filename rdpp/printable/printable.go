// Package printable makes text that came from a file or a request safe to show on a terminal or to put into a log, and says how
// many of something there are.
package printable

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Longest is how many bytes the result of Text has at most: a screen of text.
const Longest = 2000

// notice says what was cut out. It takes up to noticeBytes.
const (
	notice      = "[... %d bytes left out ...]"
	noticeBytes = len(notice) + 17 // a count of 19 digits takes the place of two characters
)

// Text returns s on one line of valid UTF-8, in which every character shows, and is what it looks like:
//
//   - control characters, those of C1 and DEL among them, so also the escape sequences that move a terminal's cursor,
//     are written \n, \x1b, \u0085;
//   - so are line and paragraph separators, spaces other than the common one, what changes the direction of writing, what
//     has no width (\u202e, \u200b) and characters of no known meaning;
//   - a byte that belongs to no character of UTF-8 is written \xff;
//   - where that takes more than [Longest] bytes, the middle gives way to the number of bytes of s that are left out.
//
// Anything else stays as it is. A backslash does too, so that Text(Text(s)) is Text(s), and a name that has the four
// characters \x1b in it is shown like one with an escape character.
func Text(s string) string { return Cut(s, Longest) }

// Cut is [Text] with at most longest bytes, of which it takes 100 at least.
func Cut(s string, longest int) string {
	longest = max(longest, 100)
	if whole, rest := front(s, longest); rest == 0 {
		return whole
	}
	half := (longest - noticeBytes) / 2
	head, rest := front(s, half)
	tail, begin := back(s, half)
	return head + fmt.Sprintf(notice, begin-(len(s)-rest)) + tail
}

// Base64 returns a name's bytes in standard base64 where the name is not valid UTF-8, and nothing where it is. JSON cannot hold
// such a name; this leads back to its file.
func Base64(name string) string {
	if utf8.ValidString(name) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(name))
}

// Attr makes messages, texts and errors of a log safe. It is for slog.HandlerOptions.ReplaceAttr.
func Attr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Text(a.Value.String()))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case *slog.Source: // of the program, not of a file
		case error:
			a.Value = slog.StringValue(Text(v.Error()))
		case fmt.Stringer:
			a.Value = slog.StringValue(Text(v.String()))
		case []string:
			a.Value = slog.StringValue(Text(strings.Join(v, ", ")))
		}
	}
	a.Key = Text(a.Key)
	return a
}

// front escapes characters from the start of s while they take up to longest bytes, and returns how many bytes of s are
// left.
func front(s string, longest int) (escaped string, rest int) {
	var out strings.Builder
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		shown := escape(r, s[:size])
		if out.Len()+len(shown) > longest {
			break
		}
		out.WriteString(shown)
		s = s[size:]
	}
	return out.String(), len(s)
}

// back escapes characters from the end of s while they take up to longest bytes, and returns where in s they begin.
func back(s string, longest int) (escaped string, begin int) {
	var shown []string
	for s != "" {
		r, size := utf8.DecodeLastRuneInString(s)
		text := escape(r, s[len(s)-size:])
		if longest -= len(text); longest < 0 {
			break
		}
		shown = append(shown, text)
		s = s[:len(s)-size]
	}
	var out strings.Builder
	for i := range shown {
		out.WriteString(shown[len(shown)-1-i])
	}
	return out.String(), len(s)
}

// escape returns how the rune r is shown, which is encoded as raw.
func escape(r rune, raw string) string {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		return fmt.Sprintf(`\x%02x`, raw[0])
	case unicode.IsPrint(r) && !invisible(r):
		return raw
	case r == '\n':
		return `\n`
	case r == '\r':
		return `\r`
	case r == '\t':
		return `\t`
	case r < utf8.RuneSelf:
		return fmt.Sprintf(`\x%02x`, r)
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// invisible says whether r takes no place or shows nothing though Unicode counts it as a letter, a mark or a symbol.
func invisible(r rune) bool {
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) || r == '\u2800' // braille without dots
}

// Count is a number with its noun, the plural where it takes one: 1 image, 2 images, 2 categories.
func Count(n int, noun string) string {
	stem, y := strings.CutSuffix(noun, "y")
	switch {
	case n == 1:
		return "1 " + noun
	case y:
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
