package teacher

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/document"
	"rdpp/rdpp/onnxfile"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// How a teacher's file holds its numbers.
const (
	StoreFP16 = "fp16"
	StoreFP32 = "fp32"
)

// ConvertOptions say which teacher Convert makes of what. Zero fields mean the defaults.
type ConvertOptions struct {
	ONNX       string // file of a ResNet; required
	Preprocess string // ONNX file of what happens to pictures before it; "": it reads torchvision's input
	Out        string // the teacher's file; required
	Store      string // StoreFP16 (default) or StoreFP32
	Arch       string // that it must be of; default any
	Overwrite  bool   // replace Out
}

// ConvertSummary is the outcome of Convert.
type ConvertSummary struct {
	File     string   `json:"file"`
	Arch     string   `json:"arch"` // torchvision's name
	Store    string   `json:"store"`
	Numbers  int      `json:"numbers"`            // in the file
	Producer string   `json:"producer,omitempty"` // the program that wrote the ONNX file
	LeftOut  []string `json:"left_out,omitempty"` // what the ONNX file has beyond layer3, in words
	Notes    []string `json:"notes,omitempty"`    // what is not as in the ONNX file, in words
}

// Convert makes a teacher's file, for training, of an ONNX file of a ResNet: conv1 to layer3 under
// torchvision's names. The network is found by the order of its operations, whatever its names. It has to read RGB of 0
// to 1, normalised as dataset.ImageNet says, unless Preprocess names the ONNX file of what is done to BGR of 0 to 255 before
// it; that then becomes part of the first layer. Errors name the file and what to do.
func Convert(opt ConvertOptions) (*ConvertSummary, error) {
	if opt.Store == "" {
		opt.Store = StoreFP16
	}
	if err := opt.check(); err != nil {
		return nil, err
	}
	file, err := onnxfile.Open(opt.ONNX)
	if err != nil {
		return nil, fmt.Errorf("teacher: %w", err)
	}
	var preprocess *onnxfile.Preprocess
	sources := describeFile(opt.ONNX)
	if opt.Preprocess != "" {
		before, err := onnxfile.Open(opt.Preprocess)
		if err != nil {
			return nil, fmt.Errorf("teacher: preprocessing: %w", err)
		}
		if preprocess, err = before.Preprocess(); err != nil {
			return nil, fmt.Errorf("teacher: preprocessing: %w", err)
		}
		sources += "; " + describeFile(opt.Preprocess)
	}
	net, err := file.ResNet(preprocess, dataset.ImageNet.Mean, dataset.ImageNet.Std)
	if err != nil {
		return nil, fmt.Errorf("teacher: %w; torchvision's, exported by torch.onnx.export, is one", err)
	}
	if opt.Arch != "" && opt.Arch != net.Arch || !slices.Contains(torch.Architectures(), net.Arch) {
		return nil, setting.Refuse("onnx", opt.ONNX, "it is of the architecture %s, not %s: name another file or another {arch}", net.Arch,
			strings.Join(architecturesFor(opt.Arch), " or "))
	}
	summary := &ConvertSummary{File: opt.Out, Arch: net.Arch, Store: opt.Store, Producer: file.Producer, LeftOut: net.LeftOut, Notes: net.Notes}
	tensors, err := stored(net, opt.Store)
	if err != nil {
		return nil, fmt.Errorf("teacher: %s: %w", opt.ONNX, err)
	}
	for _, t := range tensors {
		summary.Numbers += weights.Tensor{Shape: t.Shape}.Len()
	}
	metadata := map[string]string{"format": "pt", "source": sources, "converted_by": document.Software}
	if err := weights.WriteFile(opt.Out, metadata, tensors); err != nil {
		return nil, fmt.Errorf("teacher: %w", err)
	}
	return summary, nil
}

func architecturesFor(arch string) []string {
	if arch != "" {
		return []string{arch}
	}
	return torch.Architectures()
}

// check finds what is wrong with the options before anything is read.
func (o *ConvertOptions) check() error {
	if o.ONNX == "" {
		return setting.Refuse("onnx", nil, "name the file to convert")
	}
	if o.Out == "" {
		return setting.Refuse("out", nil, "name a file for the teacher")
	}
	if o.Store != StoreFP16 && o.Store != StoreFP32 {
		return setting.Refuse("store", o.Store, "use %s or %s", StoreFP16, StoreFP32)
	}
	if o.Arch != "" && !slices.Contains(torch.Architectures(), o.Arch) {
		return setting.Refuse("arch", o.Arch, "use one of %v", torch.Architectures())
	}
	out, err := os.Stat(o.Out)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("teacher: the teacher's file: %w", err)
	case out.IsDir():
		return setting.Refuse("out", o.Out, "that is a folder; name a file")
	case !o.Overwrite:
		return setting.Refuse("out", o.Out, "it is there already; choose another, or replace it with {overwrite}")
	}
	for _, path := range []string{o.ONNX, o.Preprocess} {
		if in, err := os.Stat(path); err == nil && os.SameFile(in, out) {
			return setting.Refuse("out", o.Out, "a file that is read would be overwritten; choose another")
		}
	}
	return nil
}

// describeFile names a file and its SHA-256, for a header.
func describeFile(path string) string {
	digest, err := weights.SHA256(path)
	if err != nil {
		return filepath.Base(path)
	}
	return strings.ToValidUTF8(filepath.Base(path), "?") + ", SHA-256 " + digest
}

// stored are a ResNet's tensors as a file holds them, in the order of their names.
func stored(net *onnxfile.ResNet, store string) (sources []weights.Source, err error) {
	for _, name := range slices.Sorted(maps.Keys(net.Tensors)) {
		t := net.Tensors[name]
		s := weights.Source{Name: name, DType: weights.F32, Shape: t.Shape}
		var data []byte
		if store == StoreFP16 {
			s.DType = weights.F16
			data = weights.AppendFloat16(nil, t.Values)
			for i, v := range (weights.Tensor{DType: weights.F16, Data: data}).Float32() {
				if math.IsInf(float64(v), 0) {
					return nil, setting.Advise(fmt.Errorf("%s has the number %v, which %s cannot hold", name, t.Values[i], store), "use %s for {store}", StoreFP32)
				}
			}
		} else {
			data = weights.AppendFloat32(nil, t.Values)
		}
		s.Bytes = func() ([]byte, error) { return data, nil }
		sources = append(sources, s)
	}
	return sources, nil
}
