package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/torch"
)

const exportHelp = `Usage: infer export --model FILE --out FILE [flags]

Writes a model as one file that runs without rdpp: as ONNX (opset 17) for
onnxruntime and others, or as TorchScript for libtorch alone. It holds all that
happens between an image and its verdict, and gives the scores of infer image.

Input, for a batch of B images, S the model's image size:
  uint8   pixels  B x H x W x 3, RGB of any one size; resized inside
  float   images  B x 3 x S x S, RGB resized and normalised by the caller, to
                  whom the metadata tell the mean and the standard deviation
OpenCV's dnn reads float, with the same scores, in 4.12 and 5.0; 4.6 cannot.
Outputs, in this order: score (B), map (B x S x S), normalised (B; 0.5 at the
threshold), anomalous (B; true above it). Metadata hold the threshold and more.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

`

func runExport(ctx context.Context, args []string, t *command.Terminal) (int, error) {
	flags := pflag.NewFlagSet("export", pflag.ContinueOnError)
	model := flags.String("model", "", "model `FILE` that train wrote; required")
	out := flags.String("out", "", "`FILE` to write, such as model.onnx or model.pt; required")
	format := flags.String("format", "", "`NAME`: onnx or torchscript; default: torchscript for names\nthat end in .pt or .pth, else onnx")
	picture := flags.String("picture", "", "`W,H` of the pictures, where the model does not look at\nwhole ones, squashed")
	input := flags.String("input", rdpp.InputUint8, "`NAME`: uint8 or float, see above")
	if err := t.Parse(flags, args, command.Help{Text: exportHelp}); err != nil {
		return 0, err
	}
	if *format == "" {
		*format = rdpp.FormatONNX
		if ext := filepath.Ext(*out); ext == ".pt" || ext == ".pth" {
			*format = rdpp.FormatTorchScript
		}
	}
	switch {
	case flags.NArg() > 0:
		return 0, command.Usagef("%q is one argument too many; name the new file with --out", flags.Arg(0))
	case *model == "":
		return 0, command.Usagef("--model is missing; name the model.safetensors that train wrote")
	case *out == "":
		return 0, command.Usagef("--out is missing; name the file to write")
	case *format != rdpp.FormatONNX && *format != rdpp.FormatTorchScript:
		return 0, command.Usagef("--format %q; use onnx or torchscript", *format)
	case *input != rdpp.InputUint8 && *input != rdpp.InputFloat:
		return 0, command.Usagef("--input %q; use uint8 or float", *input)
	}
	var size image.Point
	if *picture != "" {
		if n, err := fmt.Sscanf(*picture, "%d,%d", &size.X, &size.Y); n != 2 || err != nil || min(size.X, size.Y) < 1 ||
			*picture != fmt.Sprintf("%d,%d", size.X, size.Y) {
			return 0, command.Usagef("--picture %q; use W,H in pixels, such as 1280,960", *picture)
		}
	}
	if err := checkExportFile(*out, *model); err != nil {
		return 0, err
	}
	m, err := rdpp.LoadModel(*model, torch.CPU)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	if err := m.Export(ctx, *out, &rdpp.ExportOptions{Format: *format, Input: *input, Picture: size}); err != nil {
		if errors.As(err, new(*fs.PathError)) {
			err = fmt.Errorf("%w; choose another file with --out", err)
		}
		return 0, err
	}
	info, err := os.Stat(*out)
	if err != nil {
		return 0, err
	}
	config := &m.Info.Config
	if bits := config.BitDepth; bits < 16 {
		fmt.Fprintf(t.Stderr, "infer: the model reads 16-bit images as %d bits; give the file's input their value >> %d, at most 255\n", bits, bits-8)
	}
	if config.Tiled() {
		fmt.Fprintf(t.Stderr, "infer: the file is of one tile of %d x %d pixels; cut images by a stride of %d at most, and blend, as its metadata say\n",
			config.Tile, config.Tile, config.TileStride)
	}
	return command.Done, command.Say(t.Stdout, "%s: %s of %s, %d x %d, input %s, %.1f MB", *out, *format, config.Arch, config.ImageSize,
		config.ImageSize, *input, float64(info.Size())/1e6)
}

// checkExportFile refuses to write over the model itself and over what is no regular file.
func checkExportFile(out, model string) error {
	if !replaceable(out) {
		return fmt.Errorf("%s: is no regular file; choose another one with --out", out)
	}
	a, errA := os.Stat(out)
	b, errB := os.Stat(model)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return command.Usagef("--out %s is the model itself; choose another file", out)
	}
	return nil
}
