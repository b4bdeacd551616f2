// Package teacher finds, loads and converts teachers: the backbones, trained elsewhere, that every method's features come from.
package teacher

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
	"rdpp/rdpp/document"
	"rdpp/rdpp/fetch"
	"rdpp/rdpp/internal/torchvision"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/state"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Words for a teacher other than a weight file's path.
const (
	Random   = "random"   // random weights, for comparison
	Builtin  = "builtin"  // the teacher inside the program that has learned from ImageNet, for resnet18
	Drawn    = "drawn"    // the one inside the program that has learned from drawn pictures, for resnet18
	ImageNet = "imagenet" // torchvision's file for the architecture: from the cache folder, else downloaded into it
	Auto     = "auto"     // from the cache folder, else Builtin where there is one, else downloaded
)

// Words lists them.
func Words() []string {
	return []string{Auto, ImageNet, Builtin, Drawn, Random}
}

// Origins of teachers that are no files, in Info. They are not all words: versions whose only built-in teacher was
// that of drawn pictures called it "builtin", so no other may have that name.
const (
	OriginRandom   = Random
	OriginDrawn    = Drawn
	OriginImageNet = "builtin-imagenet"
	originOldDrawn = "builtin"
)

// inside are the teachers inside the program, by their words.
var inside = map[string]struct{ from, origin string }{
	Builtin: {builtin.ImageNet, OriginImageNet},
	Drawn:   {builtin.Drawn, OriginDrawn},
}

// Notice is the text of the repository's NOTICE: whose work is inside the program, and under which licences.
func Notice() string { return builtin.Notice }

// Info says where the teacher's weights come from.
type Info struct {
	Origin string `json:"origin"`           // OriginRandom, OriginDrawn, OriginImageNet or the weight file's name
	SHA256 string `json:"sha256,omitempty"` // of the weight file
}

// UnmarshalJSON reads the origins of older versions as today's.
func (t *Info) UnmarshalJSON(text []byte) error {
	type plain Info
	if _, err := document.Decode(string(text), (*plain)(t), true); err != nil {
		return err
	}
	if t.Origin == originOldDrawn {
		t.Origin = OriginDrawn
	}
	return nil
}

// word is what names the teacher again; "" where it came from a file.
func (t Info) word() string {
	if t.Origin == OriginRandom {
		return Random
	}
	for word, teacher := range inside {
		if t.Origin == teacher.origin {
			return word
		}
	}
	return ""
}

// Name is what names the teacher again: one of Words, or "" where it came from a file, which torchvision's is only where it is
// the one that Find looks for.
func (t Info) Name(arch string) string {
	if word := t.word(); word != "" {
		return word
	}
	if t.SHA256 != "" && t.SHA256 == torchvision.Files[arch].SHA256 {
		return ImageNet
	}
	return ""
}

// String names the teacher for people, with what it has learned from where its name does not say, and how its SHA-256
// begins.
func (t Info) String() string {
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

// mirror is where they are, unless $RDPP_TEACHER_URL names a mirror's folder.
const mirror = "https://download.pytorch.org/models"

// Cache returns the folder of downloaded teachers: $RDPP_CACHE, else rdpp in the user's cache folder.
func Cache() (string, error) {
	if dir := os.Getenv("RDPP_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("teacher: no cache folder: %w; set RDPP_CACHE", err)
	}
	return filepath.Join(dir, "rdpp"), nil
}

// Options say how a teacher is fetched. Zero fields mean the defaults.
type Options struct {
	OnDownload func(file string, done, total int64) // bytes of a download so far; total is -1 where unknown
	Log        *slog.Logger                         // of failures that are tried again, default slog.Default()
}

// Find resolves Auto and ImageNet to the path of a file or to Builtin, and downloads what has
// to be. Other names stay as they are. Factories are offline, so where a teacher is built in, Auto uses no
// network. Several processes may ask at once: one downloads.
func Find(ctx context.Context, name, arch string, opt Options) (string, error) {
	file := torchvision.Files[arch]
	if name != Auto && name != ImageNet {
		return name, nil
	}
	if unverified := torchvision.Unverified[arch]; unverified != "" {
		return "", setting.Refuse("teacher", name, "for %s name the weight file: torchvision's is %s, of which the program knows too few digits "+
			"of the SHA-256 to fetch it", arch, unverified)
	}
	if file.Name == "" {
		return "", setting.Refuse("arch", arch, "that has no teacher; use one of %v", torch.Backbones())
	}
	dir, err := Cache()
	builtIn := name == Auto && builtin.Has(builtin.ImageNet, arch)
	switch {
	case err != nil && builtIn:
		return Builtin, nil
	case err != nil:
		return "", err
	}
	path := filepath.Join(dir, file.Name)
	switch _, err := os.Stat(path); {
	case err == nil:
		return path, checkCached(path, file.SHA256)
	case !errors.Is(err, os.ErrNotExist):
		return "", setting.Advise(fmt.Errorf("teacher: looking for the teacher: %w", err), "name a file with {teacher}, or %s, %s or %s",
			Builtin, Drawn, Random)
	case builtIn:
		return Builtin, nil
	}
	if err := download(ctx, path, file.SHA256, opt); err != nil {
		return "", setting.Advise(fmt.Errorf("teacher: no weights for the teacher: %w", err), "put torchvision's %s into %s, or name a file with {teacher}, "+
			"or use {arch} %s with {teacher} %s", file.Name, dir, strings.Join(builtin.Architectures(builtin.ImageNet), " or "), Builtin)
	}
	return path, nil
}

// Settled is what Auto stands for on this machine, for others to take the same: Builtin or ImageNet. Other names stay as they are.
func Settled(name, arch string) string {
	file := torchvision.Files[arch].Name
	if name != Auto || file == "" {
		return name
	}
	dir, err := Cache()
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, file))
	}
	if err != nil && builtin.Has(builtin.ImageNet, arch) {
		return Builtin
	}
	return ImageNet
}

// Arch is the backbone of a training that names none: preferred, unless its weights would have to be downloaded, or a teacher
// inside the program is asked for; then one that has such.
func Arch(name, preferred string) string {
	inside, found := inside[name]
	switch {
	case name == Auto:
		dir, err := Cache()
		if err == nil {
			_, err = os.Stat(filepath.Join(dir, torchvision.Files[preferred].Name))
		}
		if err == nil {
			return preferred
		}
		inside.from = builtin.ImageNet
	case !found:
		return preferred
	}
	if built := builtin.Architectures(inside.from); !slices.Contains(built, preferred) {
		return built[0]
	}
	return preferred
}

// checkCached shows that a file in the cache folder is the one that its name promises.
func checkCached(path, want string) error {
	digest, err := weights.SHA256(path)
	if err != nil {
		return fmt.Errorf("teacher: teacher: %w", err)
	}
	if digest != want {
		return setting.Advise(fmt.Errorf("teacher: teacher: %s is damaged or another file: its SHA-256 is %s, not %s", path, digest, want),
			"remove it, or name it with {teacher}")
	}
	return nil
}

// download puts torchvision's file of path's name, which has the given SHA-256, at path.
func download(ctx context.Context, path, digest string, opt Options) error {
	base, file := os.Getenv("RDPP_TEACHER_URL"), filepath.Base(path)
	if base == "" {
		base = mirror
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

// open opens a weight file or a teacher that is built in.
func open(name, arch string) (*weights.File, error) {
	if teacher, found := inside[name]; found {
		file, _, err := builtin.Open(teacher.from, arch)
		if err != nil {
			return nil, setting.Refuse("teacher", name, "%v; name a file", err)
		}
		return file, nil
	}
	file, err := weights.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, setting.Advise(fmt.Errorf("teacher: no teacher weights at %s", name), "name a .pth or .safetensors file with {teacher}, or use %s, %s or %s",
			Builtin, Drawn, Random)
	}
	if err != nil {
		return nil, fmt.Errorf("teacher: teacher: %w", err)
	}
	return file, nil
}

// digestOf returns the SHA-256 of a weight file or of a teacher that is built in.
func digestOf(name, arch string) (string, error) {
	if teacher, found := inside[name]; found {
		_, digest, err := builtin.Open(teacher.from, arch)
		if err != nil {
			return "", setting.Refuse("teacher", name, "%v; name a file", err)
		}
		return digest, nil
	}
	digest, err := weights.SHA256(name)
	if err != nil {
		return "", fmt.Errorf("teacher: teacher: %w", err)
	}
	return digest, nil
}

// Load fills a teacher of an architecture from a weight file: PyTorch's .pth in either format or safetensors, in float16,
// bfloat16, float32 or float64, with torchvision's names (timm's of ResNets are the same) or, of ResNets, those of Hugging Face
// transformers, and whatever prefix before all of them, such as "encoder." (rdpp's own models) or "module.". Layers above layer3,
// of an EfficientNet above features.6, are ignored. name may be Random, which leaves the fresh weights, Builtin, Drawn, or a word that Find resolves. It says where
// the weights are from.
func Load(into torch.Teacher, arch, name string) (Info, error) {
	if name == Random {
		return Info{Origin: OriginRandom}, nil
	}
	name, err := Find(context.Background(), name, arch, Options{})
	if err != nil {
		return Info{}, err
	}
	file, err := open(name, arch)
	if err != nil {
		return Info{}, err
	}
	defer file.Close()
	if err := file.Verify(); err != nil {
		return Info{}, fmt.Errorf("teacher: teacher: %w; restore the file, or name another", err)
	}
	if _, found := file.Metadata[document.TeacherCheckpointKey]; found {
		return Info{}, setting.Refuse("teacher", name, "that is the checkpoint of an unfinished teacher; resume `train teacher`, which finishes it")
	}
	net, err := within(file, arch)
	if err != nil {
		return Info{}, fmt.Errorf("teacher: %s as the teacher of %s: %w", name, arch, err)
	}
	if err := state.Fill(file, net.Within, state.Filled{Net: into, Name: net.Name, CountsOptional: true}); err != nil {
		return Info{}, fmt.Errorf("teacher: %s as the teacher of %s: %w; name another file", name, arch, err)
	}
	digest, err := file.SHA256()
	if err != nil {
		return Info{}, fmt.Errorf("teacher: teacher: %w", err)
	}
	origin := filepath.Base(name)
	if teacher, found := inside[name]; found {
		origin = teacher.origin
	} else if (Info{Origin: origin}).word() != "" || origin == originOldDrawn {
		origin = "./" + origin // a file of that name
	}
	return Info{Origin: origin, SHA256: digest}, nil
}

// within finds the backbone in a file, which must be of the architecture.
func within(file *weights.File, arch string) (*weights.Backbone, error) {
	nets := file.Backbones()
	if len(nets) == 1 {
		net := &nets[0]
		if net.Arch == "" && net.Family != familyOf(arch) {
			return nil, fmt.Errorf("it holds no %s: %s; name another file", familyOf(arch), net)
		}
		return net, SameArch(net.Arch, arch)
	}
	if len(nets) > 1 {
		return nil, fmt.Errorf("it holds %d backbones, under %q, %q and so on; save one of them alone", len(nets), nets[0].Prefix, nets[1].Prefix)
	}
	if released, ok := file.Released(); ok {
		return nil, fmt.Errorf("it is a checkpoint of %s, which has no teacher; `infer import` makes a model of it", &released)
	}
	if arch == torch.EfficientNetB5 {
		return nil, errors.New("it holds no EfficientNet with torchvision's names, 48 x 3 x 3 x 3 numbers in features.0.0.weight and blocks behind " +
			"it; `infer info` shows what it holds")
	}
	return nil, errors.New("it holds no ResNet with the names of torchvision, timm or transformers, 64 x 3 x 7 x 7 numbers in " +
		"conv1.weight (transformers: embedder.embedder.convolution.weight) and layers behind it; `infer info` shows what it holds")
}

func familyOf(arch string) string {
	if arch == torch.EfficientNetB5 {
		return weights.FamilyEfficientNet
	}
	return weights.FamilyResNet
}

// SameArch compares the architecture found in a file, which may be unknown, with the one needed.
func SameArch(found, needed string) error {
	switch {
	case found == "" || found == needed:
		return nil
	case slices.Contains(torch.Backbones(), found):
		return setting.Advise(fmt.Errorf("it is of another architecture: %s, not %s", found, needed), "name another file, or use {arch} %s", found)
	}
	return fmt.Errorf("it is of another architecture: %s, not %s; name another file", found, needed)
}

// Same compares the teacher asked for with a run's own. Auto accepts any. The name that asks for the run's own again, where
// that is a word, comes back in place of Auto.
func (t Info) Same(name, arch string) (same bool, now string, err error) {
	switch name {
	case Auto:
		if word := t.word(); word != "" {
			return true, word, nil
		}
		return true, name, nil
	case Random:
		return t.Origin == OriginRandom, name, nil
	case ImageNet:
		return t.Name(arch) == ImageNet, name, nil
	}
	digest, err := digestOf(name, arch)
	return err == nil && digest == t.SHA256, name, err
}
