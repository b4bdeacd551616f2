// Package modelfile is the envelope that a trained net travels in: what method it is of, with which settings, from which
// teacher and images, and what its scores mean.
package modelfile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/config"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/document"
	"rdpp/rdpp/method"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
)

// Info is the JSON document in a model file's header.
type Info struct {
	FormatVersion int           `json:"format_version"`
	Software      string        `json:"software"`
	Category      string        `json:"category"`
	Config        config.Config `json:"config"`
	Teacher       teacher.Info  `json:"teacher"`
	Data          DataInfo      `json:"data"`
	anomaly.Facts
	Epoch       int                 `json:"epoch"` // that these weights are from, counted from 1
	Calibration anomaly.Calibration `json:"calibration"`
	Spots       Spots               `json:"spots,omitzero"` // how small a defect can be; zero: not measured
	// Looks are those of the good images that it was trained and calibrated with; zero: not known.
	Looks    dataset.Looks `json:"looks,omitzero"`
	Imported ImportInfo    `json:"imported,omitzero"` // of a model that Import made; its Config tells nothing of its training

	From ParentInfo `json:"from,omitzero"` // the model whose weights the training went on from; zero: it began anew

	Recalibrated RecalibrationInfo `json:"recalibrated,omitzero"` // where the calibration is not the training's
}

// RecalibrationInfo tells of the images that a calibration was made by after training.
type RecalibrationInfo struct {
	Images      int    `json:"images"`          // that were scored
	Fingerprint string `json:"fingerprint"`     // SHA-256 over names and contents
	Origin      string `json:"origin"`          // the data's name
	Added       bool   `json:"added,omitempty"` // their scores beside those that were there
}

// ImportInfo names the checkpoint that a model was imported from.
type ImportInfo struct {
	Origin string `json:"origin"` // the file's name
	SHA256 string `json:"sha256"`
}

// ParentInfo names a model that a training went on from.
type ParentInfo struct {
	Origin string `json:"origin"` // the file's name
	SHA256 string `json:"sha256"` // of the file
	Images int    `json:"images"` // that it and the models before it were trained on
}

// DataInfo describes the training images.
type DataInfo struct {
	Images      int    `json:"images"`          // trained on
	Tiles       int    `json:"tiles,omitempty"` // of a pass over the images; 0: they are not cut
	HeldOut     int    `json:"held_out"`        // kept out of training, for the calibration
	Fingerprint string `json:"fingerprint"`     // SHA-256 over names and contents
	Layout      string `json:"layout"`

	// Picture is the width and height of the first image trained on, pixels, where the model looks at certain places of images;
	// zero: not said.
	Picture [2]int `json:"picture,omitzero"`

	Range dataset.Range `json:"range,omitzero"` // of all that could be read, held out or not; zero: not known
}

// Formats of model files. A program that does not know a file's format refuses it.
const (
	modelFormat     = 1
	modelFormatBits = 2 // of models that read 16-bit images by fewer bits, which programs of format 1 would not

	modelFormatMethods = 3 // of other methods than reverse distillation, or whose scores are not the maxima of their maps
	modelFormatViews   = 4 // of models that look at a part of pictures, do not squash them, or look at tiles of them

	modelFormatScores = 5 // of models whose method was there before the way that they score

	modelFormatNewest = modelFormatScores
)

// formatOf is the oldest format whose programs score as the document says.
func formatOf(i *Info) int {
	learned := i.Config.Learned()
	known, old := learned.(method.Older)
	later, is := learned.(method.Later)
	switch {
	case is && later.Later():
		return modelFormatScores
	case !i.Config.View.Plain() || i.Config.Tiled():
		return modelFormatViews
	case !old || !known.Older() || i.Calibration.MapScores != nil:
		return modelFormatMethods
	case i.Config.BitDepth < 16:
		return modelFormatBits
	}
	return modelFormat
}

// Complete fills in what files of before a member was there lack.
func (i *Info) Complete() {
	i.Config.Complete()
	i.Calibration.Complete()
}

// needed are the members that every version has written and a verdict depends on.
var needed = []string{"config.arch", "config.method", "config.image_size", "config.mean", "config.std", "config.map_sigma",
	"calibration.rule", "calibration.provisional", "calibration.threshold"}

// check says which member cannot be, beside the settings and the calibration. What tells of the training changes no score, but a
// file in which it is wrong has been changed, and nobody knows where else.
func (i *Info) check() error {
	d, f, r, s := &i.Data, &i.From, &i.Recalibrated, &i.Spots
	for name, n := range map[string]int{"epoch": i.Epoch, "data.images": d.Images, "data.tiles": d.Tiles, "data.held_out": d.HeldOut,
		"data.picture": min(d.Picture[0], d.Picture[1]), "from.images": f.Images, "recalibrated.images": r.Images,
		"spots.smallest": s.Smallest, "spots.width": s.Width, "spots.height": s.Height} {
		if n < 0 {
			return fmt.Errorf("%s is %d", name, n)
		}
	}
	for name, digits := range map[string]string{"teacher.sha256": i.Teacher.SHA256, "data.fingerprint": d.Fingerprint,
		"imported.sha256": i.Imported.SHA256, "from.sha256": f.SHA256, "recalibrated.fingerprint": r.Fingerprint} {
		if sum, err := hex.DecodeString(digits); err != nil || len(sum) != 0 && len(sum) != sha256.Size {
			return fmt.Errorf("%s is %.70q, which is no SHA-256", name, digits)
		}
	}
	switch least := formatOf(i); {
	case i.FormatVersion < least:
		return fmt.Errorf("format %d, but what it says is of format %d", i.FormatVersion, least)
	case i.Epoch > i.Config.Epochs:
		return fmt.Errorf("epoch is %d of %d", i.Epoch, i.Config.Epochs)
	case s.Largest < s.Smallest:
		return fmt.Errorf("spots of %d to %d pixels", s.Smallest, s.Largest)
	case i.Config.Tile == method.TileAuto:
		return errors.New("tiles of no size")
	case i.Config.Align.On() && i.Config.Align.Mean == "":
		return errors.New("parts to align by no mean")
	}
	if err := d.Range.Check(); err != nil {
		return fmt.Errorf("data.range: %w", err)
	}
	if err := i.Looks.Check(); err != nil {
		return fmt.Errorf("looks: %w", err)
	}
	return nil
}

// ReadInfo reads the document of a model file, and refuses what cannot be.
func ReadInfo(file *weights.File) (info Info, o document.Opened, err error) {
	if o, err = document.Read(file, document.ModelKey, &info); err != nil {
		return info, o, err
	}
	if info.FormatVersion < modelFormat || info.FormatVersion > modelFormatNewest {
		return info, o, fmt.Errorf("model format %d, this program reads %d to %d; use the rdpp that wrote it, %s", info.FormatVersion,
			modelFormat, modelFormatNewest, info.Software)
	}
	if err := document.Lacking(file.Metadata[document.ModelKey], needed...); err != nil {
		return info, o, err
	}
	info.Complete()
	if err := info.Config.Validate(); err != nil {
		// It is the file that is wrong, and no setting of the caller's.
		return info, o, fmt.Errorf("a setting in it cannot be: %s; %w", strings.TrimPrefix(err.Error(), "rdpp: "), anomaly.ErrDamaged)
	}
	// Its net is made before a tensor is looked at.
	if m, sized := info.Config.Learned().(method.Sized); sized && m.WeightBytes() > file.Size() {
		return info, o, fmt.Errorf("its settings ask for %d bytes of weights, and it has %d, %w", m.WeightBytes(), file.Size(), anomaly.ErrDamaged)
	}
	if err := info.check(); err != nil {
		return info, o, fmt.Errorf("%w, %w", err, anomaly.ErrDamaged)
	}
	most, err := info.Config.Learned().MostScore(info.Facts)
	if err != nil {
		return info, o, err
	}
	return info, o, info.Calibration.Check(most)
}
