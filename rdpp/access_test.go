package rdpp

import "testing"

// SetTeacherFile makes name the file that torchvision has for the architecture, until the test ends.
func SetTeacherFile(t testing.TB, arch, name string) {
	before := teacherFiles[arch]
	teacherFiles[arch] = name
	t.Cleanup(func() { teacherFiles[arch] = before })
}
