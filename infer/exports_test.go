package main

import (
	"debug/elf"
	"os"
	"strings"
	"testing"
)

// The codecs and SQLite that are linked in are not what other libraries find: those that Debian's libtorch brings have their own.
func TestNothingIsExported(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF || elf.ST_TYPE(s.Info) != elf.STT_FUNC {
			continue
		}
		if s.Name != "crosscall2" && !strings.HasPrefix(s.Name, "_cgo_") { // Go's own
			t.Errorf("got %s exported, want Go's runtime alone", s.Name)
		}
	}
}
