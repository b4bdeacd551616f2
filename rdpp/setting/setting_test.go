package setting

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// flag is what a command with flags of these names makes of a field.
func flag(field string) string { return "--" + strings.ReplaceAll(field, "_", "-") }

func TestText(t *testing.T) {
	size := Wrong("image_size", 30, "use a multiple of %d", 32)
	large := Advise(errors.New("a.png: 9 pixels, the limit is 8"), "raise {max_pixels}")
	for _, c := range []struct {
		name         string
		err          error
		plain, flags string
	}{
		{"value", size, "image_size is 30; use a multiple of 32", "--image-size is 30; use a multiple of 32"},
		{"text", Wrong("ssot", "x y", "use pairwise or {score}"), `ssot is "x y"; use pairwise or score`, `--ssot is "x y"; use pairwise or --score`},
		{"missing", Wrong("out", nil, "name a folder"), "out is missing; name a folder", "--out is missing; name a folder"},
		{"wrapped twice", fmt.Errorf("train: %w", fmt.Errorf("rdpp: %w", size)), "train: rdpp: image_size is 30; use a multiple of 32",
			"train: rdpp: --image-size is 30; use a multiple of 32"},
		{"advice", large, "a.png: 9 pixels, the limit is 8; raise max_pixels", "a.png: 9 pixels, the limit is 8; raise --max-pixels"},
		{"advice about an error about a setting", Advise(size, "or {overwrite}"), "image_size is 30; use a multiple of 32; or overwrite",
			"--image-size is 30; use a multiple of 32; or --overwrite"},
		{"joined", errors.Join(size, large, size), "image_size is 30; use a multiple of 32\na.png: 9 pixels, the limit is 8; raise max_pixels\nimage_size is 30; use a multiple of 32",
			"--image-size is 30; use a multiple of 32\na.png: 9 pixels, the limit is 8; raise --max-pixels\n--image-size is 30; use a multiple of 32"},
		{"two in one text", fmt.Errorf("%w, and: %w", large, size), "a.png: 9 pixels, the limit is 8; raise max_pixels, and: image_size is 30; use a multiple of 32",
			"a.png: 9 pixels, the limit is 8; raise --max-pixels, and: --image-size is 30; use a multiple of 32"},
		{"a value like a setting", Wrong("out", "{resume}", "use {overwrite}"), `out is "{resume}"; use overwrite`, `--out is "{resume}"; use --overwrite`},
		{"no setting", fs.ErrNotExist, "file does not exist", "file does not exist"},
		{"told without the cause's text", hidden{size}, "hidden", "hidden"},
	} {
		if got := c.err.Error(); got != c.plain {
			t.Errorf("%s: got %q, want %q", c.name, got, c.plain)
		}
		if got := Text(c.err, flag); got != c.flags {
			t.Errorf("%s: got %q, want %q", c.name, got, c.flags)
		}
	}
}

// hidden is an error that does not tell what it wraps.
type hidden struct{ error }

func (h hidden) Error() string { return "hidden" }
func (h hidden) Unwrap() error { return h.error }

func TestKind(t *testing.T) {
	size := Wrong("image_size", 30, "use another")
	if !errors.Is(fmt.Errorf("a: %w", size), ErrValue) {
		t.Error("an error about a setting is not ErrValue")
	}
	if errors.Is(Advise(fs.ErrNotExist, "set {out}"), ErrValue) {
		t.Error("advice is ErrValue, though no setting is wrong")
	}
	if !errors.Is(Advise(fs.ErrNotExist, "set {out}"), fs.ErrNotExist) {
		t.Error("advice hides its cause")
	}
	var e *Error
	if !errors.As(fmt.Errorf("a: %w", Advise(size, "b")), &e) || e.Field != "image_size" || e.Value != 30 {
		t.Errorf("got %+v, want image_size, 30", e)
	}
}

func ExampleText() {
	err := fmt.Errorf("rdpp: %w", Wrong("image_size", 30, "use a multiple of 32"))
	fmt.Println(err)
	fmt.Println(Text(err, func(string) string { return "--image-size" }))
	// Output:
	// rdpp: image_size is 30; use a multiple of 32
	// rdpp: --image-size is 30; use a multiple of 32
}

// TestLibrariesNameNoFlags: what a library says names settings, in braces or as a field, for the same text reaches those who
// call it from Go, C or over HTTP. Whole arguments for a program are no text, and package command is the programs' own.
func TestLibrariesNameNoFlags(t *testing.T) {
	flag, argument := regexp.MustCompile(`(^|[^-\w])--[a-z]`), regexp.MustCompile(`^--[a-z-]+=?$`)
	files := 0
	for _, root := range []string{"..", "../../torch"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && path == filepath.Join("..", "command") {
				return filepath.SkipDir
			}
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files++
			set := token.NewFileSet()
			parsed, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					text, err := strconv.Unquote(literal.Value)
					if err != nil || flag.MatchString(text) && !argument.MatchString(text) {
						t.Errorf("%s: %s names a flag", set.Position(literal.Pos()), literal.Value)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 50 {
		t.Errorf("looked into %d files, want all of the libraries", files)
	}
}

// Errors of a package that begin with a package's name begin with its own. [Refuse] alone has the program's.
func TestPrefixes(t *testing.T) {
	beginning := regexp.MustCompile(`^([a-z0-9]+): `)
	type message struct{ at, text, own string }
	var messages []message
	names := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		own := parsed.Name.Name
		if own == "main" { // whose words are commands' names
			return nil
		}
		names[own] = true
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			made, _ := call.Fun.(*ast.SelectorExpr)
			literal, _ := call.Args[0].(*ast.BasicLit)
			if made == nil || literal == nil || made.Sel.Name != "Errorf" && made.Sel.Name != "New" {
				return true
			}
			if text, err := strconv.Unquote(literal.Value); err == nil && beginning.MatchString(text) {
				messages = append(messages, message{set.Position(literal.Pos()).String(), text, own})
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) < 150 {
		t.Errorf("found %d messages, want those of all packages", len(messages))
	}
	for _, m := range messages {
		got := beginning.FindStringSubmatch(m.text)[1]
		if names[got] && got != m.own && !(m.own == "setting" && got == "rdpp") {
			t.Errorf("%s: %q of package %s begins with the name of another", m.at, m.text, m.own)
		}
	}
}
