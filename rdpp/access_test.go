package rdpp_test

import (
	"testing"

	"rdpp/rdpp/internal/torchvision"
)

// setTeacherFile makes name the file that torchvision has for the architecture, and sha256 its digest, until the test ends.
func setTeacherFile(t testing.TB, arch, name, sha256 string) {
	before := torchvision.Files[arch]
	torchvision.Files[arch] = torchvision.File{Name: name, SHA256: sha256}
	t.Cleanup(func() { torchvision.Files[arch] = before })
}
