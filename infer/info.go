package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/printable"
)

const infoHelp = `Usage: infer info [flags] FILE

Says what a file holds: rdpp's models, teachers and checkpoints, what infer
export wrote (ONNX, TorchScript), checkpoints of the released code, and any
other .pth, .safetensors or ONNX. Nothing in the file is executed.
Exit codes: 0 done, 1 failed, 2 wrong usage.

`

// shownTensors is how many tensors the text lists without --all.
const shownTensors = 10

// longestText bounds a name or an entry of the metadata in the text, in bytes.
const longestText = 200

// kindTexts says what the kinds of files are.
var kindTexts = map[string]string{
	rdpp.KindModel:             "model file of rdpp",
	rdpp.KindCheckpoint:        "checkpoint of a training; train --resume continues it",
	rdpp.KindTeacher:           "teacher made by train teacher",
	rdpp.KindTeacherCheckpoint: "checkpoint of an unfinished teacher; train teacher --resume continues it",
	rdpp.KindReleased:          "checkpoint of the released code, without its teacher; infer import makes a model of it",
	rdpp.KindResNet:            "ResNet; it may serve as a teacher",
	rdpp.KindEfficientNet:      "EfficientNet; B5 may serve as CSFlow's teacher",
	rdpp.KindTensors:           "tensors of no network that rdpp knows",
	rdpp.KindExported:          "model that infer export wrote; it runs without rdpp",
	rdpp.KindONNX:              "ONNX file; train teacher --onnx makes a teacher of a ResNet in it",
}

func runInfo(_ context.Context, args []string, t *command.Terminal) (int, error) {
	flags := pflag.NewFlagSet("info", pflag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object")
	all := flags.Bool("all", false, fmt.Sprintf("list all tensors, not the first %d alone", shownTensors))
	switch err := t.Parse(flags, args, command.Help{Text: infoHelp}); {
	case err != nil:
		return 0, err
	case flags.NArg() != 1:
		return 0, command.Usagef("%d files named; name one", flags.NArg())
	}
	info, err := rdpp.Inspect(flags.Arg(0))
	if err != nil {
		return 0, err
	}
	if *asJSON {
		object := json.NewEncoder(t.Stdout)
		object.SetEscapeHTML(false)
		return command.Done, object.Encode(info)
	}
	_, err = fmt.Fprint(t.Stdout, infoText(info, *all))
	return command.Done, err
}

// infoText is the table for people.
func infoText(info *rdpp.FileInfo, all bool) string {
	var s strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&s, "%-13s%s\n", name, printable.Text(fmt.Sprintf(format, args...)))
	}
	row("file", "%s", info.Path)
	row("format", "%s, %d bytes", info.Format, info.Bytes)
	row("SHA-256", "%s", info.SHA256)
	switch {
	case info.Digest != "":
		row("digest", "%s, which the file holds of itself", info.Digest)
	case info.Kind == rdpp.KindModel || info.Kind == rdpp.KindCheckpoint:
		row("digest", "none: damage can pass unseen")
	}
	row("kind", "%s", kindTexts[info.Kind])
	if info.Damage != "" {
		row("damaged", "%s", info.Damage)
	}
	if info.Arch != "" {
		row("architecture", "%s", info.Arch)
	}
	if info.Kind == rdpp.KindResNet || info.Kind == rdpp.KindEfficientNet {
		row("names", "%s's, behind %q", info.Naming, info.Prefix)
	}
	if info.Model != nil {
		modelRows(info.Model, row)
	}
	if info.Content != "" {
		row("content", "SHA-256 %s, without how it was made", info.Content)
	}
	if info.Provenance != nil {
		for _, fact := range info.Provenance.Facts() {
			row(fact.Name, "%s", fact.Value)
		}
	}
	if d := info.Teacher; d != nil {
		row("made by", "%s, libtorch %s, %d drawn pictures, last loss %.4f", d.Software, d.Libtorch, d.Pictures, d.Loss)
	}
	for _, key := range slices.Sorted(maps.Keys(info.Metadata)) {
		row("metadata", "%s: %s", printable.Cut(key, longestText), printable.Cut(info.Metadata[key], longestText))
	}
	if info.Producer != "" {
		row("producer", "%s", info.Producer)
	}
	if info.Kind == rdpp.KindExported || info.Kind == rdpp.KindONNX {
		return s.String()
	}
	row("tensors", "%d, %d numbers", len(info.Tensors), info.Elements)
	shown := info.Tensors
	if !all {
		shown = shown[:min(len(shown), shownTensors)]
	}
	for _, tensor := range shown {
		row("", "%-5s %v %s", tensor.DType, tensor.Shape, printable.Cut(tensor.Name, longestText))
	}
	if left := len(info.Tensors) - len(shown); left > 0 {
		row("", "and %d more; --all lists them", left)
	}
	return s.String()
}

// modelRows describes a model.
func modelRows(m *rdpp.Info, row func(name, format string, args ...any)) {
	c := &m.Config
	row("model", "%s, %s, %d x %d pixels, by %s", c.Method, c.Arch, c.ImageSize, c.ImageSize, m.Software)
	if c.Tiled() {
		row("tiles", "%d x %d pixels, %d apart at most", c.Tile, c.Tile, c.TileStride)
	}
	if text := m.Spots.Text(); text != "" {
		row("defects", "%s", text)
	}
	row("teacher", "%s", m.Teacher)
	if m.Imported.Origin != "" {
		row("imported", "from %s, SHA-256 %.8s", m.Imported.Origin, m.Imported.SHA256)
	} else {
		row("trained", "on %s, epoch %d of %d, seed %d", printable.Count(m.Data.Images, "image"), m.Epoch, c.Epochs, c.Seed)
	}
	if m.From.Origin != "" {
		row("from", "%s, SHA-256 %.8s, trained on %s", printable.Text(m.From.Origin), m.From.SHA256, printable.Count(m.From.Images, "image"))
	}
	if m.Category != "" {
		row("category", "%s", m.Category)
	}
	if text := c.View.Text(); text != "" {
		row("looks at", "%s", text)
	}
	if text := m.BitDepthText(); text != "" {
		row("images", "%s", text)
	}
	if seen := m.Data.Range; seen.Brightest > 0 {
		row("brightness", "%.3f to %.3f, mean of a training image", seen.Darkest, seen.Brightest)
	}
	if cal := &m.Calibration; cal.Rule != "" {
		row("threshold", "%.6f of scores, %.6f of the map", cal.Threshold, cal.PixelThreshold)
		row("calibration", "%s; %d scores", cal.Rule, len(cal.Scores))
		if by := &m.Recalibrated; by.Images > 0 {
			beside := ""
			if by.Added {
				beside = ", beside the scores that it had"
			}
			row("", "by %s of %s, after training%s", printable.Count(by.Images, "image"), printable.Text(by.Origin), beside)
		}
		if cal.Provisional {
			row("", "provisional: no rate of false alarms is promised")
		}
	}
}
