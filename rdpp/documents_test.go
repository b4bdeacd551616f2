package rdpp_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// TestDocuments follows every link within the repository's documents: the file is there, and so is the heading.
func TestDocuments(t *testing.T) {
	headings := map[string]map[string]bool{} // by document, the anchors of its headings
	links := map[string][]string{}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != ".." && (d.Name() == "build" || strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		headings[path] = map[string]bool{}
		code := false
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "```") {
				code = !code
			}
			if code {
				continue
			}
			if marks, title, found := strings.Cut(line, " "); found && marks != "" && strings.Trim(marks, "#") == "" {
				name := anchor(title)
				for n := 1; headings[path][name]; n++ {
					name = anchor(title) + "-" + strconv.Itoa(n)
				}
				headings[path][name] = true
			}
			for _, match := range link.FindAllStringSubmatch(line, -1) {
				links[path] = append(links[path], match[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	followed := 0
	for from, targets := range links {
		for _, target := range targets {
			if strings.Contains(target, "://") {
				continue
			}
			followed++
			file, heading, _ := strings.Cut(target, "#")
			to := from
			if file != "" {
				to = filepath.Join(filepath.Dir(from), file)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s has a link to %s: %v", from, target, err)
			} else if heading != "" && !headings[to][heading] {
				t.Errorf("%s has a link to %s: no such heading", from, target)
			}
		}
	}
	if followed == 0 {
		t.Error("no links were found")
	}
}

// anchor returns what a heading is called in a link: small letters, digits and hyphens.
func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(title))
}
