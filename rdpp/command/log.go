package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"rdpp/rdpp/printable"
)

// LogTo is a log for people: a line per record, such as "train: left out (file a.png, reason no image)". Services log with
// times and levels instead, for programs.
func LogTo(w io.Writer, program string) slog.Handler { return &lines{w: w, program: program} }

// WarnTo is LogTo of warnings and errors alone.
func WarnTo(w io.Writer, program string) slog.Handler {
	return &lines{w: w, program: program, least: slog.LevelWarn}
}

type lines struct {
	w       io.Writer
	least   slog.Level // that is written; slog.LevelInfo is 0
	program string
	attrs   []slog.Attr
	group   string // before the names of attributes, with a full stop
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= l.least }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clone(l.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, l.named(a))
		return true
	})
	text := r.Message
	var told []string
	for _, a := range attrs {
		told = append(told, a.Key+" "+printable.Attr(nil, a).Value.String())
	}
	if len(told) > 0 {
		text += fmt.Sprintf(" (%s)", strings.Join(told, ", "))
	}
	return Say(l.w, "%s: %s", l.program, text)
}

func (l *lines) named(a slog.Attr) slog.Attr {
	return slog.Attr{Key: l.group + a.Key, Value: a.Value.Resolve()}
}

func (l *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *l
	more.attrs = slices.Clone(l.attrs)
	for _, a := range attrs {
		more.attrs = append(more.attrs, l.named(a))
	}
	return &more
}

func (l *lines) WithGroup(name string) slog.Handler {
	if name == "" {
		return l
	}
	more := *l
	more.group += name + "."
	return &more
}
