package rdpp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rdpp/rdpp/weights"
)

// Words for a teacher other than a weight file's path.
const (
	TeacherRandom = "random" // random weights: needs no file, suits only parts that differ boldly
	TeacherAuto   = "auto"   // torchvision's file for the architecture, from the cache folder
)

// torchvision's IMAGENET1K_V1 weight files; the digits begin the SHA-256.
var teacherFiles = map[string]string{
	"resnet18":        "resnet18-f37072fd.pth",
	"resnet34":        "resnet34-b627a593.pth",
	"resnet50":        "resnet50-0676ba61.pth",
	"wide_resnet50_2": "wide_resnet50_2-95faca4d.pth",
}

// TeacherCache returns where TeacherAuto looks: $RDPP_CACHE, else rdpp in the user's cache folder.
func TeacherCache() (string, error) {
	if dir := os.Getenv("RDPP_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("rdpp: no cache folder: %w; set RDPP_CACHE", err)
	}
	return filepath.Join(dir, "rdpp"), nil
}

// findTeacher resolves TeacherAuto to a path; other names stay.
func findTeacher(name, arch string) (string, error) {
	if name != TeacherAuto {
		return name, nil
	}
	dir, err := TeacherCache()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, teacherFiles[arch])
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("rdpp: no weights for the teacher: put torchvision's %s into %s, or name a file with "+
			"--teacher FILE, or use --teacher random", teacherFiles[arch], dir)
	}
	return path, nil
}

// LoadTeacher fills the teacher from a weight file: PyTorch's .pth in either format or safetensors, with
// torchvision's names, as they are or behind "encoder." (rdpp's own models) or "module.". Layers above layer3 are
// ignored. name may be TeacherRandom, which leaves the fresh weights, or TeacherAuto.
func (m *Model) LoadTeacher(name string) error {
	if name == TeacherRandom {
		m.Info.Teacher = TeacherInfo{Origin: TeacherRandom}
		return nil
	}
	path, err := findTeacher(name, m.Info.Config.Arch)
	if err != nil {
		return err
	}
	file, err := weights.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rdpp: no teacher weights at %s; name a .pth or .safetensors file, or use --teacher random", path)
	}
	if err != nil {
		return fmt.Errorf("rdpp: teacher: %w", err)
	}
	defer file.Close()
	prefix := ""
	for _, candidate := range []string{prefixTeacher, "module."} {
		if _, found := file.Lookup(candidate + "conv1.weight"); found {
			prefix = candidate
		}
	}
	for _, e := range m.Teacher.State() {
		// The count of batches plays no part in eval mode, and older files lack it.
		if _, found := file.Lookup(prefix + e.Name); !found && strings.HasSuffix(e.Name, "num_batches_tracked") {
			continue
		}
		if err := loadTensor(file, prefix+e.Name, e.Tensor); err != nil {
			return fmt.Errorf("rdpp: %s as the teacher of %s: %w", path, m.Info.Config.Arch, err)
		}
	}
	digest, err := weights.SHA256(path)
	if err != nil {
		return fmt.Errorf("rdpp: teacher: %w", err)
	}
	m.Info.Teacher = TeacherInfo{Origin: filepath.Base(path), SHA256: digest}
	return nil
}
