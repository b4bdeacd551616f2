package imagefile

import (
	"image"
	"image/color"
)

// newImage allocates a w x h picture.
func newImage(w, h int) *Image {
	return &Image{W: w, H: h, Pix: make([]uint8, 3*w*h)}
}

// pack copies m into 8-bit RGB, dropping alpha and narrowing 16-bit samples.
// It reads the pixels as stored: m.At would return premultiplied colours, and
// slowly. Decoded images start at (0, 0).
func pack(m image.Image, n narrowing) *Image {
	w, h := m.Bounds().Dx(), m.Bounds().Dy()
	im := newImage(w, h)
	switch m := m.(type) {
	case *image.RGBA:
		im.packSamples(m.Pix, m.Stride, 4, 1)
	case *image.NRGBA:
		im.packSamples(m.Pix, m.Stride, 4, 1)
	case *image.RGBA64:
		im.packWide(m.Pix, m.Stride, 8, 2, n)
	case *image.NRGBA64:
		im.packWide(m.Pix, m.Stride, 8, 2, n)
	case *image.Gray:
		im.packSamples(m.Pix, m.Stride, 1, 0)
	case *image.Gray16:
		im.packWide(m.Pix, m.Stride, 2, 0, n)
	case *image.Paletted:
		im.packPaletted(m)
	case *image.YCbCr:
		im.packVP8(m)
	case *image.NYCbCrA:
		im.packVP8(&m.YCbCr)
	default:
		for y := range h {
			for x := range w {
				*(*[3]uint8)(im.Pix[3*(y*w+x):]) = rgb(m.At(x, y))
			}
		}
	}
	return im
}

// packSamples copies rows of stride bytes in which pixels are pixel bytes
// apart and R, G and B sample bytes apart (0: grey).
func (im *Image) packSamples(pix []uint8, stride, pixel, sample int) {
	for y := range im.H {
		src := pix[y*stride:][:im.W*pixel]
		dst := im.Pix[3*y*im.W:][:3*im.W]
		for len(dst) >= 3 {
			dst[0], dst[1], dst[2] = src[0], src[sample], src[2*sample]
			src, dst = src[pixel:], dst[3:]
		}
	}
}

// packPaletted looks colours up. An index beyond the palette stays black.
func (im *Image) packPaletted(m *image.Paletted) {
	var table [256][3]uint8
	for i, c := range m.Palette {
		table[i] = rgb(c)
	}
	for y := range im.H {
		dst := im.Pix[3*y*im.W:]
		for x, index := range m.Pix[y*m.Stride:][:im.W] {
			*(*[3]uint8)(dst[3*x:]) = table[index]
		}
	}
}

// rgb returns a colour's R, G and B without its alpha.
func rgb(c color.Color) [3]uint8 {
	n := color.NRGBAModel.Convert(c).(color.NRGBA)
	return [3]uint8{n.R, n.G, n.B}
}

// packVP8 converts lossy WebP's limited-range (16 to 235) YCbCr, its chroma at
// half the size, to RGB. The upsampling filter, the 14-bit coefficients and
// their roundings are libwebp's; image.YCbCr's own are JPEG's.
func (im *Image) packVP8(m *image.YCbCr) {
	lastX, lastY := (im.W-1)/2, (im.H-1)/2
	dst := im.Pix
	for y := range im.H {
		// Chroma samples lie between the pixels: the nearest has the same half
		// coordinate, the others are one before (even) or after (odd).
		near := y / 2 * m.CStride
		far := min(max(y/2+y%2*2-1, 0), lastY) * m.CStride
		luma := m.Y[y*m.YStride:][:im.W]
		for x, yy := range luma {
			i := x / 2
			j := min(max(i+x%2*2-1, 0), lastX)
			cb := upsample(m.Cb[near+i], m.Cb[near+j], m.Cb[far+i], m.Cb[far+j])
			cr := upsample(m.Cr[near+i], m.Cr[near+j], m.Cr[far+i], m.Cr[far+j])
			l := int(yy) * 19077 >> 8
			dst[0] = clip(l + cr*26149>>8 - 14234)
			dst[1] = clip(l - cb*6419>>8 - cr*13320>>8 + 8708)
			dst[2] = clip(l + cb*33050>>8 - 17685)
			dst = dst[3:]
		}
	}
}

// upsample interpolates between a chroma sample and its neighbours beside,
// above or below, and across, with weights 9, 3, 3, 1 of 16, rounded twice.
func upsample(near, beside, above, across uint8) int {
	n := int(near)
	return ((n+3*int(beside)+3*int(above)+int(across)+8)>>3 + n) >> 1
}

// clip takes the 6 fraction bits off v.
func clip(v int) uint8 {
	return uint8(min(max(v>>6, 0), 255))
}
