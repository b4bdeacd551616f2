package modelfile

import (
	"fmt"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/framing"
)

// How far an image's brightness may lie outside that of the training images: a lamp that ages, or a part that fills more
// of the picture, stays within.
const (
	darkFactor   = 0.5 // of the darkest
	brightFactor = 2.0 // of the brightest
)

// blackBelow is the value of 16 bits below which an image comes out nearly black, at most 31 of 255.
const blackBelow = 1 << 13

// Unlike says what of an image tells that it was not taken, or stored, as the training images were, in words for people;
// nil where nothing does. Of images from no file only the brightness is known, of old and imported models none.
func (i *Info) Unlike(l dataset.Look) (warnings []string) {
	bits, seen := i.Config.BitDepth, &i.Data.Range
	most := 1<<bits - 1
	s := &l.Stored
	switch {
	case s.Bits == 16 && s.Depth != bits:
		return []string{fmt.Sprintf("it was decoded as an image of %d bits, the model's use %d: decode it with the detector's ImageOptions", s.Depth, bits)}
	case s.Bits == 16 && int(s.Max) > most:
		warnings = append(warnings, fmt.Sprintf("it has values up to %d, the training images use %d bits, up to %d: what is above comes out white; "+
			"store it as those were", s.Max, bits, most))
	case s.Bits == 8 && bits < 16 && seen.Wide > 0 && seen.Wide == i.Data.Images+i.Data.HeldOut:
		warnings = append(warnings, fmt.Sprintf("it has 8 bits per sample, the training images use %d of 16: store it as those were", bits))
	case s.Bits == 16 && seen.Brightest == 0 && s.Max < blackBelow:
		warnings = append(warnings, fmt.Sprintf("its values of 16 bits end at %d of %d, so it comes out nearly black: does the camera use fewer bits? "+
			"Then train with a bit depth of auto", s.Max, most))
	}
	switch b := l.Brightness; {
	case seen.Brightest == 0: // not known
	case b < darkFactor*seen.Darkest:
		text := fmt.Sprintf("its mean brightness is %.3f, less than half of the darkest training image's %.3f", b, seen.Darkest)
		if s.Bits == 16 {
			text += fmt.Sprintf("; its largest value is %d of %d", s.Max, most)
		}
		warnings = append(warnings, text)
	case b > brightFactor*seen.Brightest:
		warnings = append(warnings, fmt.Sprintf("its mean brightness is %.3f, more than twice the brightest training image's %.3f", b, seen.Brightest))
	}
	return warnings
}

// Displaced says in words that an image of w x h pixels is of another size than those of training, where the model looks at
// certain places of images; nil: nothing.
func (i *Info) Displaced(w, h int) []string {
	of := i.Data.Picture
	view := &i.Config.View
	if of == [2]int{} || of == [2]int{w, h} || !view.Placed() {
		return nil
	}
	what := "the model's masks were scaled to it"
	if view.ROI != (framing.Box{}) {
		what = "what the model looks at may lie elsewhere in it"
	}
	return []string{fmt.Sprintf("it has %d x %d pixels, the training images %d x %d: %s", w, h, of[0], of[1], what)}
}

// BitDepthText says how images of 16 bits are read, in a few words; "" where the training images have none.
func (i *Info) BitDepthText() string {
	if i.Data.Range.Wide == 0 {
		return ""
	}
	black := ""
	if i.Data.Range.MostlyBlack() {
		black = fmt.Sprintf("; %d of %d come out nearly black", i.Data.Range.Black, i.Data.Range.Wide)
	}
	return fmt.Sprintf("16-bit images are read as %d bits (largest value %d%s)", i.Config.BitDepth, i.Data.Range.Largest, black)
}
