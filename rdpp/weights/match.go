package weights

import (
	"fmt"
	"slices"
	"strings"
)

// Want is a tensor that a network needs.
type Want struct {
	Name     string
	Shape    []int
	Optional bool // it may be missing
}

// MismatchError lists what keeps a file from filling a network. Its text names some of each kind and counts the rest.
type MismatchError struct {
	Missing    []string // names
	MisShaped  []string // names with the shape there and the shape needed
	WrongTypes []string // names with the type of the elements
	Unexpected []string // names of tensors that the network does not have
}

// listed is how many names of a kind an error's text has.
const listed = 4

func (e *MismatchError) Error() string {
	var parts []string
	for _, kind := range []struct {
		text  string
		names []string
	}{{"missing", e.Missing}, {"of another shape", e.MisShaped}, {"of a type that cannot be used", e.WrongTypes}, {"not expected", e.Unexpected}} {
		if n := len(kind.names); n > 0 {
			text := kind.text + ": " + strings.Join(kind.names[:min(n, listed)], ", ")
			if n > listed {
				text += fmt.Sprintf(" and %d more", n-listed)
			}
			parts = append(parts, text)
		}
	}
	return "its tensors do not fit; " + strings.Join(parts, "; ")
}

// Match compares a file's tensors with those that a network needs, which must be of floating-point numbers or int64. All names
// that within accepts must be needed; nil accepts none, so that further tensors do not matter. The error is a *MismatchError.
func (f *File) Match(wants []Want, within func(name string) bool) error {
	var e MismatchError
	needed := make(map[string]bool, len(wants))
	for _, w := range wants {
		needed[w.Name] = true
		t, found := f.Lookup(w.Name)
		switch {
		case !found && !w.Optional:
			e.Missing = append(e.Missing, quoted(w.Name))
		case !found:
		case !slices.Equal(t.Shape, w.Shape):
			e.MisShaped = append(e.MisShaped, fmt.Sprintf("%s %v instead of %v", quoted(w.Name), t.Shape, w.Shape))
		case !slices.Contains([]DType{F16, BF16, F32, F64, I64}, t.DType):
			e.WrongTypes = append(e.WrongTypes, quoted(w.Name)+" "+t.DType.String())
		}
	}
	for _, t := range f.Tensors {
		if within != nil && within(t.Name) && !needed[t.Name] {
			e.Unexpected = append(e.Unexpected, quoted(t.Name))
		}
	}
	if len(e.Missing)+len(e.MisShaped)+len(e.WrongTypes)+len(e.Unexpected) > 0 {
		return &e
	}
	return nil
}

// quoted is a name from a file, shortened, and in quotes where it has more than the characters of ordinary names.
func quoted(name string) string {
	const longest = 100
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/", r)
	}
	if len(name) > longest || strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) >= 0 {
		return fmt.Sprintf("%.100q", name)
	}
	return name
}
