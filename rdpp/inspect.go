package rdpp

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"

	"rdpp/rdpp/document"
	"rdpp/rdpp/engine"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/pretrain"
	"rdpp/rdpp/weights"
)

// What a weight file may be.
const (
	KindModel             = "model"              // that Train or Import made
	KindCheckpoint        = "checkpoint"         // of an rdpp training
	KindTeacher           = "teacher"            // that Pretrain made
	KindTeacherCheckpoint = "teacher checkpoint" // of a pre-training
	KindReleased          = "released"           // checkpoint of the released code of RD++ or RD, for Import
	KindResNet            = "resnet"             // that may serve as a teacher
	KindEfficientNet      = "efficientnet"       // likewise, for methods that take one
	KindTensors           = "tensors"            // of something else
	KindExported          = "exported"           // that Model.Export made: FormatONNX or FormatTorchScript
	KindONNX              = "onnx"               // another ONNX file; a ResNet in it may serve as a teacher
)

// FileInfo says what a weight file, or an exported one, holds.
type FileInfo struct {
	Path   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`           // of the file as it is
	Digest string `json:"digest,omitempty"` // that the file holds of itself, as weights.File's
	Format string `json:"format"`           // as weights.File's, or FormatONNX or FormatTorchScript
	Kind   string `json:"kind"`             // one of the kinds
	// Arch is the architecture, by torchvision's name; "" where it is not recognised. It is what the tensors look like,
	// not what a document in the file says.
	Arch   string `json:"arch,omitempty"`
	Naming string `json:"naming,omitempty"` // of a ResNet or an EfficientNet, as weights.Backbone's
	Prefix string `json:"prefix,omitempty"` // before all its names

	Producer string `json:"producer,omitempty"` // of an ONNX file: the program that wrote it

	Model   *modelfile.Info    `json:"model,omitempty"`   // of a KindModel, KindCheckpoint or KindExported
	Content string             `json:"content,omitempty"` // of a KindModel: SHA-256 of what it scores by, see modelfile.Content
	Teacher *pretrain.Document `json:"teacher,omitempty"` // of a KindTeacher

	Provenance *modelfile.Provenance `json:"provenance,omitempty"` // of a KindModel
	Damage     string                `json:"damage,omitempty"`     // what is wrong with the file, or why the document of this kind could not be read
	Metadata   map[string]string     `json:"metadata,omitempty"`   // further entries of a safetensors header, or of an exported file

	Elements int64        `json:"elements"` // numbers in all tensors
	Tensors  []TensorInfo `json:"tensors"`  // in file order
}

// TensorInfo is a tensor's entry in a FileInfo.
type TensorInfo struct {
	Name  string `json:"name"`
	DType string `json:"dtype"` // as safetensors names it, such as "F32"
	Shape []int  `json:"shape"`
}

// Inspect says what a weight, model or exported file holds. It makes no network of it, and does not check that one could be made.
func Inspect(path string) (*FileInfo, error) {
	if info, err := inspectExported(path); info != nil || err != nil {
		return info, err
	}
	file, err := weights.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("rdpp: no file at %s; name a .pth, .safetensors, ONNX or TorchScript file", path)
	}
	if err != nil {
		return nil, fmt.Errorf("rdpp: %w", err)
	}
	defer file.Close()
	info := describe(file)
	info.Bytes = file.Size()
	if info.Model != nil && info.Kind == KindModel {
		if info.Content, err = modelfile.Content(file); err != nil {
			return nil, fmt.Errorf("rdpp: %w", err)
		}
	}
	if info.SHA256, err = file.SHA256(); err != nil {
		return nil, fmt.Errorf("rdpp: %w", err)
	}
	return info, nil
}

// describe is Inspect of an opened file.
func describe(file *weights.File) *FileInfo {
	info := &FileInfo{Path: file.Path, Format: file.Format, Kind: KindTensors, Tensors: make([]TensorInfo, len(file.Tensors))}
	for i, t := range file.Tensors {
		info.Tensors[i] = TensorInfo{t.Name, t.DType.String(), append([]int{}, t.Shape...)}
		info.Elements += int64(t.Len())
	}
	if released, ok := file.Released(); ok {
		info.Kind, info.Arch = KindReleased, released.Arch
	}
	if nets := file.Backbones(); len(nets) > 0 {
		info.Kind, info.Arch, info.Naming, info.Prefix = KindResNet, nets[0].Arch, nets[0].Naming, nets[0].Prefix
		if nets[0].Family == weights.FamilyEfficientNet {
			info.Kind = KindEfficientNet
		}
	}
	info.Digest = file.Digest()
	info.readDocuments(file)
	return info
}

// readDocuments reads what rdpp has written into a header, and keeps the rest as it is.
func (info *FileInfo) readDocuments(file *weights.File) {
	if err := file.Verify(); err != nil {
		info.Damage = err.Error()
	}
	metadata := file.Metadata
	var saved engine.Saved
	for _, d := range []struct {
		key, kind string
		into      any
		read      func()
	}{
		{document.ModelKey, KindModel, &info.Model, nil},
		{document.CheckpointKey, KindCheckpoint, &saved, func() {
			info.Model = &saved.Info
			info.Model.Epoch = saved.State.Epoch // epochs that are done
		}},
		{modelfile.ProvenanceKey, "", &info.Provenance, nil},
		{document.TeacherKey, KindTeacher, &info.Teacher, nil},
		{document.TeacherCheckpointKey, KindTeacherCheckpoint, &pretrain.Saved{}, nil},
	} {
		text, found := metadata[d.key]
		if !found {
			continue
		}
		info.Kind = cmp.Or(d.kind, info.Kind)
		if _, err := document.Decode(text, d.into, info.Digest != ""); err != nil {
			info.Damage, info.Model, info.Teacher = fmt.Sprintf("the %q entry of the header: %v", d.key, err), nil, nil
		} else if d.read != nil {
			d.read()
		}
	}
	for key, value := range metadata {
		switch key {
		case document.ModelKey, document.CheckpointKey, document.TeacherKey, document.TeacherCheckpointKey, modelfile.ProvenanceKey,
			weights.DigestKey, weights.DigestOfKey:
		default:
			if info.Metadata == nil {
				info.Metadata = map[string]string{}
			}
			info.Metadata[key] = value
		}
	}
	if info.Model != nil {
		info.Model.Complete()
	}
}
