package testmain

import (
	"os"
	"slices"
	"testing"
)

// WantFiles holds the names in a folder, hidden ones too, sorted, equal to want.
func WantFiles(t testing.TB, folder string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: got files %q, want %q", folder, got, want)
	}
}

// WantContent holds a file's content equal to want.
func WantContent(t testing.TB, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: got %.200q and error %v, want %.200q", path, got, err, want)
	}
}
