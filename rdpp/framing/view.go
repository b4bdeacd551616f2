// Package framing is the one place that says how a picture becomes a network's input, and where on the picture the
// positions of its map lie: which part of a picture is looked at, how it is made square, and which positions count.
//
// Positions that do not count, padding and what the view's masks leave out, are filled with the nearest position that does before
// the network sees them. So nothing that is left out has a say in any score. What a mask of a single picture leaves out is filled
// in training alone. A network that learned without the mask would find the filled part anomalous, and what surrounds it too;
// so it sees the picture, and neither what is drawn nor what lies within Reach of it counts.
package framing

import (
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"slices"
	"strings"

	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/setting"
)

// Fit says how a picture that is not square becomes square. The empty string is Squash.
type Fit string

// The ways.
const (
	Squash Fit = "squash" // width and height are resized to the side, whatever the aspect ratio
	Pad    Fit = "pad"    // the longer one is resized to the side, and what is missing of the other one is not scored
	Crop   Fit = "crop"   // the square in the middle is taken
)

// Fits lists them.
func Fits() []string { return []string{string(Squash), string(Pad), string(Crop)} }

// IsZero says that it is the default, which model files leave out.
func (f Fit) IsZero() bool { return f == "" || f == Squash }

// Box is a rectangle in pixels of a picture.
type Box struct {
	X int `json:"x"` // left edge, from 0
	Y int `json:"y"` // upper edge, from 0
	W int `json:"w"` // at least 1
	H int `json:"h"` // at least 1
}

// Rectangle is the box as package image has it.
func (b Box) Rectangle() image.Rectangle { return image.Rect(b.X, b.Y, b.X+b.W, b.Y+b.H) }

// String is x,y,w,h.
func (b Box) String() string { return fmt.Sprintf("%d,%d,%d,%d", b.X, b.Y, b.W, b.H) }

// View is what of pictures a model looks at. Its fields travel in the model file, which has none of those that are
// zero. The zero View is the whole picture, squashed.
type View struct {
	Fit     Fit     `json:"fit,omitzero"`
	ROI     Box     `json:"roi,omitzero"`          // what is looked at; a picture that does not hold it is refused. Zero: all
	ROIMask Drawing `json:"roi_mask,omitempty"`    // instead of ROI: what is drawn is looked at, within the box around it
	Ignore  Drawing `json:"ignore_mask,omitempty"` // what is drawn is not scored
	Align   Align   `json:"align,omitzero"`        // whether the part is found first; boxes and masks are then of the training images' mean
}

// Plain says that the whole picture is looked at, squashed.
func (v *View) Plain() bool { return v.Fit.IsZero() && *v == View{Fit: v.Fit} }

// Masked says whether there can be positions that do not count.
func (v *View) Masked() bool {
	return v.Fit == Pad || v.ROIMask != "" || v.Ignore != "" || v.Align.On()
}

// Placed says whether it names places of a picture.
func (v *View) Placed() bool { return v.ROI != Box{} || v.ROIMask != "" || v.Ignore != "" }

// Text is what of pictures is looked at, in words; "" where it is the whole of them, squashed.
func (v *View) Text() string {
	var all []string
	if !v.Fit.IsZero() {
		all = append(all, "fit "+string(v.Fit))
	}
	if v.ROI != (Box{}) {
		all = append(all, fmt.Sprintf("%d x %d pixels from %d,%d on", v.ROI.W, v.ROI.H, v.ROI.X, v.ROI.Y))
	}
	if v.ROIMask != "" {
		all = append(all, "a mask of what is looked at")
	}
	if v.Ignore != "" {
		all = append(all, "a mask of what is ignored")
	}
	if v.Align.On() {
		all = append(all, fmt.Sprintf("aligned within %.3g %% and %.3g degrees", 100*v.Align.Shift, v.Align.Rotate))
	}
	return strings.Join(all, ", ")
}

// maxSide bounds the numbers of a Box, so that no sum of them overflows.
const maxSide = 1 << 24

// Check says which value cannot be, by a setting.Error.
func (v *View) Check() error {
	b := v.ROI
	switch {
	case !v.Fit.IsZero() && !slices.Contains(Fits(), string(v.Fit)):
		return setting.Refuse("fit", string(v.Fit), "use squash, pad or crop")
	case b != Box{} && (min(b.X, b.Y) < 0 || min(b.W, b.H) < 1 || max(b.X, b.Y, b.W, b.H) > maxSide):
		return setting.Refuse("roi", b.String(), "use x,y,w,h in pixels of the picture, x and y from 0, w and h from 1")
	case b != Box{} && v.ROIMask != "":
		return setting.Refuse("roi", b.String(), "there is a mask of what is looked at too; give one of them")
	}
	if err := v.Align.Check(); err != nil {
		return setting.Refuse("align", fmt.Sprintf("shift=%v,rotate=%v", v.Align.Shift, v.Align.Rotate), "%v", err)
	}
	for _, m := range []struct {
		field string
		Drawing
	}{{"roi_mask", v.ROIMask}, {"ignore_mask", v.Ignore}} {
		if _, err := m.Mask(); err != nil {
			return setting.Refuse(m.field, nil, "it is no drawing: %v", err)
		}
	}
	return nil
}

// Drawing is a mask as it travels in a model file: a PNG of one bit per pixel in base64. "" is none.
type Drawing string

// What a drawing is at most.
const (
	MaxPixels  = 1 << 25 // pixels; a smaller one is scaled to the picture
	maxDrawing = 1 << 20 // bytes of base64
)

// ErrNothingDrawn says that a mask is empty.
var ErrNothingDrawn = errors.New("a mask that draws nothing")

// Draw makes a drawing of a mask. A mask that is empty is ErrNothingDrawn.
func Draw(m *imagefile.Mask) (Drawing, error) {
	if !slices.Contains(m.Pix, 1) {
		return "", fmt.Errorf("framing: %w; draw in white on black", ErrNothingDrawn)
	}
	if int64(m.W)*int64(m.H) > MaxPixels {
		return "", fmt.Errorf("framing: a mask of %d x %d pixels; draw it smaller, it is scaled to the picture", m.W, m.H)
	}
	file, err := imagefile.EncodeMask(m)
	if err != nil {
		return "", fmt.Errorf("framing: %w", err)
	}
	d := Drawing(base64.StdEncoding.EncodeToString(file))
	if len(d) > maxDrawing {
		return "", fmt.Errorf("framing: a mask of %d x %d pixels that takes %d bytes, %d at most; draw it smaller or with smooth outlines",
			m.W, m.H, len(d), maxDrawing)
	}
	return d, nil
}

// DrawFile makes a drawing of the mask in a file, which its errors name.
func DrawFile(path string) (Drawing, error) {
	m, err := imagefile.DecodeMaskFile(path, &imagefile.Options{MaxPixels: MaxPixels})
	if err != nil {
		return "", fmt.Errorf("framing: reading mask: %w", err)
	}
	d, err := Draw(m)
	if err != nil {
		return "", fmt.Errorf("%w (%s)", err, path)
	}
	return d, nil
}

// Mask is the mask that was drawn; nil where there is none.
func (d Drawing) Mask() (*imagefile.Mask, error) {
	if d == "" {
		return nil, nil
	}
	if len(d) > maxDrawing {
		return nil, fmt.Errorf("framing: a mask of %d bytes, %d at most", len(d), maxDrawing)
	}
	file, err := base64.StdEncoding.Strict().DecodeString(string(d))
	if err != nil {
		return nil, fmt.Errorf("framing: mask: %w", err)
	}
	m, err := imagefile.DecodeMask(file, &imagefile.Options{MaxPixels: MaxPixels})
	if err != nil {
		return nil, fmt.Errorf("framing: mask: %w", err)
	}
	if !slices.Contains(m.Pix, 1) {
		return nil, fmt.Errorf("framing: %w", ErrNothingDrawn)
	}
	return m, nil
}
