package testmain

import (
	"runtime/debug"
	"strings"
	"testing"
)

// WantNotices fails where the notices have nothing about a Go module of this program. scripts/notices.sh writes them.
func WantNotices(t *testing.T, notices string) {
	t.Helper()
	info, ok := debug.ReadBuildInfo()
	if !ok || len(info.Deps) == 0 {
		t.Fatal("this program does not tell its modules")
	}
	for _, m := range info.Deps {
		if !strings.Contains(notices, "\n"+m.Path+"\n") {
			t.Errorf("NOTICE: got nothing about %s; call scripts/notices.sh", m.Path)
		}
	}
}
