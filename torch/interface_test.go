package torch

import (
	"crypto/sha256"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestInterface: another interface of the C boundary has another name, by which programs and libraries of different versions
// are told apart when they are linked and started.
func TestInterface(t *testing.T) {
	text, err := os.ReadFile("../csrc/rdpp.h")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\brdpp_interface_[0-9a-f]+`)
	code := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(string(text), " ")
	code = names.ReplaceAllString(code, "")
	digest := sha256.Sum256([]byte(strings.Join(strings.Fields(code), " ")))
	want := fmt.Sprintf("rdpp_interface_%x", digest[:4])
	for _, file := range []string{"../csrc/rdpp.h", "cgo.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := names.FindAllString(string(text), -1); len(got) != 1 || got[0] != want {
			t.Errorf("%s has %q, but the declarations of csrc/rdpp.h make it %s: write that", file, got, want)
		}
	}
}
