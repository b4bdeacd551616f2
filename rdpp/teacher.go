package rdpp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rdpp/rdpp/builtin"
	"rdpp/rdpp/weights"
)

// Words for a teacher other than a weight file's path.
const (
	TeacherRandom  = "random"  // random weights, for comparison
	TeacherBuiltin = "builtin" // the teacher inside the program (package builtin), for resnet18
	TeacherAuto    = "auto"    // torchvision's file for the architecture from the cache folder, else TeacherBuiltin
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

// findTeacher resolves TeacherAuto to a path or TeacherBuiltin; other names stay.
func findTeacher(name, arch string) (string, error) {
	if name != TeacherAuto {
		return name, nil
	}
	dir, err := TeacherCache()
	if err == nil {
		path := filepath.Join(dir, teacherFiles[arch])
		switch _, err := os.Stat(path); {
		case err == nil:
			return path, nil
		case !errors.Is(err, os.ErrNotExist):
			return "", fmt.Errorf("rdpp: looking for the teacher: %w; name one with --teacher FILE, %s or %s", err, TeacherBuiltin,
				TeacherRandom)
		}
	}
	if builtin.Has(arch) {
		return TeacherBuiltin, nil
	}
	if err != nil {
		return "", err
	}
	return "", fmt.Errorf("rdpp: no weights for the teacher: put torchvision's %s into %s, or name a file with --teacher FILE, "+
		"or use --arch %s, whose teacher is built in", teacherFiles[arch], dir, strings.Join(builtin.Architectures(), " or "))
}

// openTeacher opens a weight file or the teacher that is built in.
func openTeacher(name, arch string) (*weights.File, error) {
	if name == TeacherBuiltin {
		file, _, err := builtin.Open(arch)
		if err != nil {
			return nil, fmt.Errorf("rdpp: %w: %w; name a file with --teacher FILE", ErrConfig, err)
		}
		return file, nil
	}
	file, err := weights.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("rdpp: no teacher weights at %s; name a .pth or .safetensors file, or use --teacher %s or %s", name,
			TeacherBuiltin, TeacherRandom)
	}
	if err != nil {
		return nil, fmt.Errorf("rdpp: teacher: %w", err)
	}
	return file, nil
}

// teacherDigest returns the SHA-256 of a weight file or of the teacher that is built in.
func teacherDigest(name, arch string) (string, error) {
	if name == TeacherBuiltin {
		_, digest, err := builtin.Open(arch)
		return digest, err
	}
	digest, err := weights.SHA256(name)
	if err != nil {
		return "", fmt.Errorf("rdpp: teacher: %w", err)
	}
	return digest, nil
}

// LoadTeacher fills the teacher from a weight file: PyTorch's .pth in either format or safetensors, with
// torchvision's names, as they are or behind "encoder." (rdpp's own models) or "module.". Layers above layer3 are
// ignored. name may be TeacherRandom, which leaves the fresh weights, TeacherBuiltin or TeacherAuto.
func (m *Model) LoadTeacher(name string) error {
	if name == TeacherRandom {
		m.Info.Teacher = TeacherInfo{Origin: TeacherRandom}
		return nil
	}
	arch := m.Info.Config.Arch
	name, err := findTeacher(name, arch)
	if err != nil {
		return err
	}
	file, err := openTeacher(name, arch)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, found := file.Metadata[pretrainCheckpointKey]; found {
		return fmt.Errorf("rdpp: %w: %s is the checkpoint of an unfinished teacher; finish that with train teacher --resume", ErrConfig, name)
	}
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
			return fmt.Errorf("rdpp: %s as the teacher of %s: %w", name, arch, err)
		}
	}
	digest, err := teacherDigest(name, arch)
	if err != nil {
		return err
	}
	origin := name
	if name != TeacherBuiltin {
		origin = filepath.Base(name)
		if origin == TeacherBuiltin || origin == TeacherRandom {
			origin = "./" + origin
		}
	}
	m.Info.Teacher = TeacherInfo{Origin: origin, SHA256: digest}
	return nil
}
