package rdpp

import "testing"

// SetTeacherFile makes name the file that torchvision has for the architecture, and sha256 its digest, until the test ends.
func SetTeacherFile(t testing.TB, arch, name, sha256 string) {
	before := teacherFiles[arch]
	now := before
	now.name, now.sha256 = name, sha256
	teacherFiles[arch] = now
	t.Cleanup(func() { teacherFiles[arch] = before })
}

// TeacherFile is the file that torchvision has for the architecture, and its SHA-256.
func TeacherFile(arch string) (name, sha256 string) {
	file := teacherFiles[arch]
	return file.name, file.sha256
}
