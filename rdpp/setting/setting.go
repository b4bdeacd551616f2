// Package setting is about errors that have to do with settings. They call a setting by its field's name, such as
// image_size; a command puts the name of its flag there instead ([Text]), so that everybody reads what they can type.
package setting

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrValue is what every [Error] is, by errors.Is.
var ErrValue = errors.New("wrong setting")

// Error refuses the value of a setting.
type Error struct {
	Field string // the setting's name, as in JSON: image_size
	Value any    // what it is; nil where it is missing
	Want  string // what to do, in words; names of other settings in it stand in braces: "below a quarter of {image_size}"
}

// Wrong is an Error whose Want is formatted. Names of files belong into value, since braces in them would be taken for settings.
func Wrong(field string, value any, want string, args ...any) error {
	return &Error{field, value, fmt.Sprintf(want, args...)}
}

func (e *Error) Error() string { return e.text(plain) }

// Is says that an Error is ErrValue.
func (e *Error) Is(target error) bool { return target == ErrValue }

func (e *Error) text(name func(string) string) string {
	value := fmt.Sprint(e.Value)
	switch v := e.Value.(type) {
	case nil:
		return fmt.Sprintf("%s is missing; %s", name(e.Field), Expand(e.Want, name))
	case string:
		value = fmt.Sprintf("%q", v)
	}
	return fmt.Sprintf("%s is %s; %s", name(e.Field), value, Expand(e.Want, name))
}

// Advice is an error that a setting helps against, which is not to blame for it.
type Advice struct {
	Err  error  // nil for what stands in another error beside the one that it is about
	Text string // what to do, in words; names of settings in it stand in braces: "raise {max_pixels}"
}

// Advise adds to an error what to do about it.
func Advise(err error, text string, args ...any) error {
	return &Advice{err, fmt.Sprintf(text, args...)}
}

func (a *Advice) Error() string { return a.text(plain) }

func (a *Advice) text(name func(string) string) string {
	if a.Err == nil {
		return Expand(a.Text, name)
	}
	return Text(a.Err, name) + "; " + Expand(a.Text, name)
}

// Unwrap returns the error that the advice is about.
func (a *Advice) Unwrap() error { return a.Err }

// Text is the text of an error in which settings are called what name makes of their fields' names, wherever in the
// chain they stand.
func Text(err error, name func(field string) string) string {
	switch e := err.(type) {
	case *Error:
		return e.text(name)
	case *Advice:
		return e.text(name)
	}
	var inner []error
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		inner = []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		inner = e.Unwrap()
	}
	text := err.Error()
	var told strings.Builder
	for _, e := range inner {
		if e == nil {
			continue
		}
		if before, after, found := strings.Cut(text, e.Error()); found {
			told.WriteString(before + Text(e, name))
			text = after
		}
	}
	return told.String() + text
}

var braced = regexp.MustCompile(`\{[a-z0-9_]+\}`)

// Expand puts the settings' names in the place of those in braces.
func Expand(text string, name func(string) string) string {
	return braced.ReplaceAllStringFunc(text, func(field string) string { return name(field[1 : len(field)-1]) })
}

func plain(field string) string { return field }

// Refuse is Wrong with the program's name before it, as those packages tell it whose settings travel in model files.
func Refuse(field string, value any, want string, args ...any) error {
	return fmt.Errorf("rdpp: %w", Wrong(field, value, want, args...))
}
