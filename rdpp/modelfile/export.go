package modelfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"strconv"

	"rdpp/rdpp/atomicfile"
	"rdpp/rdpp/document"
	"rdpp/rdpp/export"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/tiling"
	"rdpp/rdpp/weights"
	"rdpp/torch"
)

// Formats of Model.Export.
const (
	FormatONNX        = "onnx"        // opset 17, for onnxruntime and others
	FormatTorchScript = "torchscript" // for libtorch and PyTorch
)

// Inputs of an exported model.
const (
	InputUint8 = "uint8" // RGB pixels, B x H x W x 3 of any H and W: preprocessing is part of the file
	InputFloat = "float" // normalised float32 planes, B x 3 x S x S
)

// ExportOptions say what Export writes. Nil or zero means the defaults.
type ExportOptions struct {
	Format string // default FormatONNX
	Input  string // default InputUint8

	// Picture is the width and height, in pixels, of the pictures that the file reads: needed of a model that does not look
	// at whole pictures, squashed, since what it looks at is then written down in positions; else of no matter.
	Picture image.Point
}

// Export writes the model, with all that happens between an image and its verdict, as a file that runs without rdpp.
//
// Its outputs, for B images: score (B), map (B x S x S), normalised (B, as Result's) and anomalous (B, of bool). Its
// metadata, which in TorchScript are further entries of the file: threshold, pixel_threshold, false_alarm, provisional,
// architecture, category, teacher, software, image_size, and the whole of Info as JSON under the key rdpp. Of a model that
// looks at tiles the file is of one tile: who runs it cuts the image and blends the maps, as tile, tile_stride and tile_blend
// in the metadata say and package tiling does.
//
// What is at path stays there until the new file is complete, also when ctx ends before. An unknown format
// or input is a SettingError.
func (m *Model) Export(ctx context.Context, path string, opt *ExportOptions) error {
	if m.released {
		return errReleased
	}
	o := ExportOptions{Format: FormatONNX, Input: InputUint8}
	if opt != nil && opt.Format != "" {
		o.Format = opt.Format
	}
	if opt != nil && opt.Input != "" {
		o.Input = opt.Input
	}
	if opt != nil {
		o.Picture = opt.Picture
	}
	input, known := map[string]export.Input{InputUint8: export.Pixels, InputFloat: export.Planes}[o.Input]
	if !known {
		return setting.Refuse("input", o.Input, "use %s or %s", InputUint8, InputFloat)
	}
	described, err := m.described()
	if err != nil {
		return fmt.Errorf("modelfile: export: %w", err)
	}
	if m.Info.Config.Align.On() {
		return errors.New("modelfile: export: the model looks for the part in each picture first, which no graph can; train without aligning to export it")
	}
	if !m.Info.Config.View.Plain() {
		if o.Picture == (image.Point{}) {
			return setting.Refuse("picture", nil, "the model looks at a part of pictures or fits them its own way, so name their width and height")
		}
		if described.Frame, err = m.Framer.Frame(o.Picture.X, o.Picture.Y, nil); err != nil {
			return fmt.Errorf("modelfile: export: %w", err)
		}
		described.Metadata["picture"] = fmt.Sprintf("%d,%d", o.Picture.X, o.Picture.Y)
	}
	var write func(w io.Writer) error
	switch o.Format {
	case FormatONNX:
		write = func(w io.Writer) error { return described.ONNX(w, input) }
	case FormatTorchScript:
		write = func(w io.Writer) error { return writeScript(w, described, input) }
	default:
		return setting.Refuse("format", o.Format, "use %s or %s", FormatONNX, FormatTorchScript)
	}
	err = atomicfile.Write(path, func(w io.Writer) error { return write(interruptible{ctx, w}) })
	if err != nil {
		return fmt.Errorf("modelfile: %w", err)
	}
	return nil
}

// interruptible is a writer that ends with its context.
type interruptible struct {
	ctx context.Context
	w   io.Writer
}

func (i interruptible) Write(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.w.Write(p)
}

// described is the model as package export wants it.
func (m *Model) described() (*export.Model, error) {
	net, able := m.Net.(method.Exporter)
	if !able {
		return nil, fmt.Errorf("models of the method %s cannot be exported", m.Info.Config.Method)
	}
	text, err := json.Marshal(m.Info)
	if err != nil {
		return nil, err
	}
	config, calibration := &m.Info.Config, &m.Info.Calibration
	e := &export.Model{
		Size: config.ImageSize, Mean: config.Mean, Std: config.Std,
		Threshold: FloorFloat32(calibration.Threshold), // judges every float32 as the float64 does
		Producer:  "rdpp", Version: document.Version,
		Metadata: map[string]string{
			"threshold":       strconv.FormatFloat(calibration.Threshold, 'g', -1, 64),
			"pixel_threshold": strconv.FormatFloat(calibration.PixelThreshold, 'g', -1, 64),
			"false_alarm":     strconv.FormatFloat(calibration.FalseAlarm, 'g', -1, 64),
			"provisional":     strconv.FormatBool(calibration.Provisional),
			"architecture":    config.Arch,
			"category":        m.Info.Category,
			"teacher":         m.Info.Teacher.Origin,
			"software":        m.Info.Software,
			"image_size":      strconv.Itoa(config.ImageSize),
			document.ModelKey: string(text),
		},
	}
	if config.Tiled() {
		e.Metadata["tile"], e.Metadata["tile_stride"] = strconv.Itoa(config.Tile), strconv.Itoa(config.TileStride)
		e.Metadata["tile_blend"] = tiling.BlendName
	}
	net.Export(e)
	return e, nil
}

// writeScript makes the tensors that a script reads and lets libtorch save both.
func writeScript(w io.Writer, m *export.Model, input export.Input) error {
	script, err := m.TorchScript(input)
	if err != nil {
		return err
	}
	var s torch.Scope
	defer s.Close()
	var tensors []torch.NamedTensor
	for _, t := range script.Attributes {
		made := s.Tensor(newTensor(t))
		if err := s.Err(); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		tensors = append(tensors, torch.NamedTensor{Name: t.Name, Tensor: made})
	}
	return torch.SaveScript(w, script.Source, tensors, m.Metadata)
}

// newTensor is a tensor with a source's elements, on the CPU.
func newTensor(t weights.Source) (*torch.Tensor, error) {
	data, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	var shape []int64
	for _, d := range t.Shape {
		shape = append(shape, int64(d))
	}
	values := weights.Tensor{DType: t.DType, Shape: t.Shape, Data: data}
	if t.DType == weights.I64 {
		var numbers []int64
		for _, v := range values.Float64() {
			numbers = append(numbers, int64(v))
		}
		return torch.FromSlice(numbers, shape...)
	}
	return torch.FromSlice(values.Float32(), shape...)
}
