package rdpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rdpp/rdpp/builtin"
	"rdpp/rdpp/fetch"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Words for a teacher other than a weight file's path.
const (
	TeacherRandom   = "random"   // random weights, for comparison
	TeacherBuiltin  = "builtin"  // the teacher inside the program that has learned from ImageNet, for resnet18
	TeacherDrawn    = "drawn"    // the one inside the program that has learned from drawn pictures, for resnet18
	TeacherImageNet = "imagenet" // torchvision's file for the architecture: from the cache folder, else downloaded into it
	TeacherAuto     = "auto"     // from the cache folder, else TeacherBuiltin where there is one, else downloaded
)

// TeacherWords lists them.
func TeacherWords() []string {
	return []string{TeacherAuto, TeacherImageNet, TeacherBuiltin, TeacherDrawn, TeacherRandom}
}

// Origins of teachers that are no files, in TeacherInfo. They are not all words: versions whose only built-in teacher was
// that of drawn pictures called it "builtin", so no other may have that name.
const (
	OriginRandom   = TeacherRandom
	OriginDrawn    = TeacherDrawn
	OriginImageNet = "builtin-imagenet"
	originOldDrawn = "builtin"
)

// inside are the teachers inside the program, by their words.
var inside = map[string]struct{ from, origin string }{
	TeacherBuiltin: {builtin.ImageNet, OriginImageNet},
	TeacherDrawn:   {builtin.Drawn, OriginDrawn},
}

// Notice is the text of the repository's NOTICE: whose work is inside the program, and under which licences.
func Notice() string { return builtin.Notice }

// UnmarshalJSON reads the origins of older versions as today's.
func (t *TeacherInfo) UnmarshalJSON(text []byte) error {
	type plain TeacherInfo
	if _, err := decode(string(text), (*plain)(t), true); err != nil {
		return err
	}
	if t.Origin == originOldDrawn {
		t.Origin = OriginDrawn
	}
	return nil
}

// word is what names the teacher again; "" where it came from a file.
func (t TeacherInfo) word() string {
	if t.Origin == OriginRandom {
		return TeacherRandom
	}
	for word, teacher := range inside {
		if t.Origin == teacher.origin {
			return word
		}
	}
	return ""
}

// String names the teacher for people, with what it has learned from where its name does not say, and how its SHA-256
// begins.
func (t TeacherInfo) String() string {
	text := t.Origin
	switch t.Origin {
	case OriginImageNet:
		text += " (built in, learned from ImageNet; not torchvision's weights)"
	case OriginDrawn:
		text += " (built in, learned from drawn pictures)"
	}
	if t.SHA256 != "" {
		text += ", SHA-256 " + t.SHA256[:min(8, len(t.SHA256))]
	}
	return text
}

// teacherFiles are torchvision's IMAGENET1K_V1 weight files and their SHA-256, which the digits in the names begin.
var teacherFiles = map[string]struct{ name, sha256 string }{
	"resnet18":        {"resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"},
	"resnet34":        {"resnet34-b627a593.pth", "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f"},
	"resnet50":        {"resnet50-0676ba61.pth", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"},
	"wide_resnet50_2": {"wide_resnet50_2-95faca4d.pth", "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8"},
}

// teacherURL is where they are, unless $RDPP_TEACHER_URL names a mirror's folder.
const teacherURL = "https://download.pytorch.org/models"

// TeacherCache returns the folder of downloaded teachers: $RDPP_CACHE, else rdpp in the user's cache folder.
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

// TeacherOptions say how a teacher is fetched. Zero fields mean the defaults.
type TeacherOptions struct {
	OnDownload func(file string, done, total int64) // bytes of a download so far; total is -1 where unknown
	Log        *slog.Logger                         // of failures that are tried again, default slog.Default()
}

// DrawnImageSize is the side of the network input, pixels, at which the teacher of drawn pictures, which has learned from
// pictures of 64 x 64, told good from defective images best, of 128, 192 and 256.
const DrawnImageSize = 192

// DefaultImageSize is the side of the network input where nobody has asked for one: it depends on the teacher, which is
// given as for FindTeacher.
func DefaultImageSize(teacher string) int {
	if teacher == TeacherDrawn {
		return DrawnImageSize
	}
	return DefaultConfig().ImageSize
}

// FindTeacher resolves TeacherAuto and TeacherImageNet to the path of a file or to TeacherBuiltin, and downloads what has
// to be. Other names stay as they are. Factories are offline, so where a teacher is built in, TeacherAuto uses no
// network. Several processes may ask at once: one downloads.
func FindTeacher(ctx context.Context, name, arch string, opt TeacherOptions) (string, error) {
	file := teacherFiles[arch]
	if name != TeacherAuto && name != TeacherImageNet {
		return name, nil
	}
	if file.name == "" {
		return "", wrong("arch", arch, "that has no teacher; use one of %v", torch.Architectures())
	}
	dir, err := TeacherCache()
	builtIn := name == TeacherAuto && builtin.Has(builtin.ImageNet, arch)
	switch {
	case err != nil && builtIn:
		return TeacherBuiltin, nil
	case err != nil:
		return "", err
	}
	path := filepath.Join(dir, file.name)
	switch _, err := os.Stat(path); {
	case err == nil:
		return path, checkCached(path, file.sha256)
	case !errors.Is(err, os.ErrNotExist):
		return "", setting.Advise(fmt.Errorf("rdpp: looking for the teacher: %w", err), "name a file with {teacher}, or %s, %s or %s",
			TeacherBuiltin, TeacherDrawn, TeacherRandom)
	case builtIn:
		return TeacherBuiltin, nil
	}
	if err := download(ctx, path, file.sha256, opt); err != nil {
		return "", setting.Advise(fmt.Errorf("rdpp: no weights for the teacher: %w", err), "put torchvision's %s into %s, or name a file with {teacher}, "+
			"or use {arch} %s with {teacher} %s", file.name, dir, strings.Join(builtin.Architectures(builtin.ImageNet), " or "), TeacherBuiltin)
	}
	return path, nil
}

// checkCached shows that a file in the cache folder is the one that its name promises.
func checkCached(path, want string) error {
	digest, err := weights.SHA256(path)
	if err != nil {
		return fmt.Errorf("rdpp: teacher: %w", err)
	}
	if digest != want {
		return setting.Advise(fmt.Errorf("rdpp: teacher: %s is damaged or another file: its SHA-256 is %s, not %s", path, digest, want),
			"remove it, or name it with {teacher}")
	}
	return nil
}

// download puts torchvision's file of path's name, which has the given SHA-256, at path.
func download(ctx context.Context, path, digest string, opt TeacherOptions) error {
	base, file := os.Getenv("RDPP_TEACHER_URL"), filepath.Base(path)
	if base == "" {
		base = teacherURL
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	o := fetch.Options{SHA256: digest}
	if opt.OnDownload != nil {
		o.OnProgress = func(done, total int64) { opt.OnDownload(file, done, total) }
	}
	o.OnRetry = func(reason error, pause time.Duration) {
		opt.Log.Warn("the teacher's download is tried again", "file", file, "reason", reason, "after", pause)
	}
	o.OnWait = func() { opt.Log.Info("waiting for another process that downloads the teacher", "file", file) }
	return fetch.File(ctx, strings.TrimSuffix(base, "/")+"/"+file, path, o)
}

// openTeacher opens a weight file or a teacher that is built in.
func openTeacher(name, arch string) (*weights.File, error) {
	if teacher, found := inside[name]; found {
		file, _, err := builtin.Open(teacher.from, arch)
		if err != nil {
			return nil, wrong("teacher", name, "%v; name a file", err)
		}
		return file, nil
	}
	file, err := weights.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, setting.Advise(fmt.Errorf("rdpp: no teacher weights at %s", name), "name a .pth or .safetensors file with {teacher}, or use %s, %s or %s",
			TeacherBuiltin, TeacherDrawn, TeacherRandom)
	}
	if err != nil {
		return nil, fmt.Errorf("rdpp: teacher: %w", err)
	}
	return file, nil
}

// teacherDigest returns the SHA-256 of a weight file or of a teacher that is built in.
func teacherDigest(name, arch string) (string, error) {
	if teacher, found := inside[name]; found {
		_, digest, err := builtin.Open(teacher.from, arch)
		if err != nil {
			return "", wrong("teacher", name, "%v; name a file", err)
		}
		return digest, nil
	}
	digest, err := weights.SHA256(name)
	if err != nil {
		return "", fmt.Errorf("rdpp: teacher: %w", err)
	}
	return digest, nil
}

// LoadTeacher fills the teacher from a weight file: PyTorch's .pth in either format or safetensors, in float16, bfloat16,
// float32 or float64, with torchvision's names (timm's are the same) or those of Hugging Face transformers, and
// whatever prefix before all of them, such as "encoder." (rdpp's own models) or "module.". Layers above layer3 are
// ignored. name may be TeacherRandom, which leaves the fresh weights, TeacherBuiltin, TeacherDrawn, or a word that
// FindTeacher resolves.
func (m *Model) LoadTeacher(name string) error {
	if name == TeacherRandom {
		m.Info.Teacher = TeacherInfo{Origin: OriginRandom}
		return nil
	}
	arch := m.Info.Config.Arch
	name, err := FindTeacher(context.Background(), name, arch, TeacherOptions{})
	if err != nil {
		return err
	}
	file, err := openTeacher(name, arch)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Verify(); err != nil {
		return fmt.Errorf("rdpp: teacher: %w; restore the file, or name another", err)
	}
	if _, found := file.Metadata[pretrainCheckpointKey]; found {
		return wrong("teacher", name, "that is the checkpoint of an unfinished teacher; resume `train teacher`, which finishes it")
	}
	net, err := teacherIn(file, arch)
	if err != nil {
		return fmt.Errorf("rdpp: %s as the teacher of %s: %w", name, arch, err)
	}
	if err := fill(file, net.Within, filled{net: m.Teacher, name: net.Name, countsOptional: true}); err != nil {
		return fmt.Errorf("rdpp: %s as the teacher of %s: %w; name another file", name, arch, err)
	}
	digest, err := file.SHA256()
	if err != nil {
		return fmt.Errorf("rdpp: teacher: %w", err)
	}
	origin := filepath.Base(name)
	if teacher, found := inside[name]; found {
		origin = teacher.origin
	} else if (TeacherInfo{Origin: origin}).word() != "" || origin == originOldDrawn {
		origin = "./" + origin // a file of that name
	}
	m.Info.Teacher = TeacherInfo{Origin: origin, SHA256: digest}
	return nil
}

// teacherIn finds the ResNet in a file, which must be of the architecture.
func teacherIn(file *weights.File, arch string) (*weights.ResNet, error) {
	nets := file.ResNets()
	if len(nets) == 1 {
		return &nets[0], sameArch(nets[0].Arch, arch)
	}
	if len(nets) > 1 {
		return nil, fmt.Errorf("it holds %d ResNets, under %q, %q and so on; save one of them alone", len(nets), nets[0].Prefix, nets[1].Prefix)
	}
	if released, ok := file.Released(); ok {
		return nil, fmt.Errorf("it is a checkpoint of %s, which has no teacher; `infer import` makes a model of it", &released)
	}
	return nil, errors.New("it holds no ResNet with the names of torchvision, timm or transformers, 64 x 3 x 7 x 7 numbers in " +
		"conv1.weight (transformers: embedder.embedder.convolution.weight) and layers behind it; `infer info` shows what it holds")
}

// sameArch compares the architecture found in a file, which may be unknown, with the one needed.
func sameArch(found, needed string) error {
	switch {
	case found == "" || found == needed:
		return nil
	case slices.Contains(torch.Architectures(), found):
		return setting.Advise(fmt.Errorf("it is of another architecture: %s, not %s", found, needed), "name another file, or use {arch} %s", found)
	}
	return fmt.Errorf("it is of another architecture: %s, not %s; name another file", found, needed)
}
