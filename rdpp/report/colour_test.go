package report

import (
	"image/color"
	"math"
	"testing"
)

// lightness is a colour's L* in CIELAB, 0 to 100 (CIE 15; sRGB as in IEC 61966-2-1).
func lightness(c color.RGBA) float64 {
	linear := func(level uint8) float64 {
		v := float64(level) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	y := 0.2126729*linear(c.R) + 0.7151522*linear(c.G) + 0.0721750*linear(c.B)
	if y <= 216.0/24389 {
		return 24389.0 / 27 * y
	}
	return 116*math.Cbrt(y) - 16
}

func TestColourMapIsPerceptuallyUniform(t *testing.T) {
	for i := 1; i < len(inferno); i++ {
		if a, b := lightness(inferno[i-1]), lightness(inferno[i]); b <= a {
			t.Errorf("entry %d: got lightness %.2f after %.2f, want it to rise", i, b, a)
		}
	}
	// Sixteen entries are wide enough for the rounding to 8 bits not to show. The map was made uniform in another space
	// (CAM02-UCS), so that CIELAB's steps agree within a quarter of their mean, except at the black end, where they
	// are smaller.
	const width, tolerance = 16, 0.25
	mean := (lightness(inferno[255]) - lightness(inferno[width])) * width / (255 - width)
	for i := 2 * width; i < len(inferno); i += width {
		step := lightness(inferno[i]) - lightness(inferno[i-width])
		if math.Abs(step-mean) > tolerance*mean {
			t.Errorf("entries %d to %d: got a step of %.2f in lightness, want %.2f within %.0f %%", i-width, i, step, mean, 100*tolerance)
		}
	}
	if low, high := lightness(inferno[0]), lightness(inferno[255]); low > 1 || high < 95 {
		t.Errorf("ends: got lightness %.1f and %.1f, want nearly all of 0 to 100", low, high)
	}
}
