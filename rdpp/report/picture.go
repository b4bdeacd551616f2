package report

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"

	"rdpp/rdpp/imagefile"
)

const (
	pictureSide  = 320   // pixels, the longer side of an embedded picture
	pictureBytes = 40000 // of an embedded JPEG, at most
	outlineWidth = 2     // pixels
)

var haloColour = color.RGBA{0, 0, 0, 255} // inside the outline, for bright pictures

// figure is a case's pictures, ready for an src attribute; Mask, Outline and Near are empty where there is none.
type figure struct {
	Photo, Heatmap, Mask, Outline template.URL
	Near                          template.URL // of the nearest good image
	NearWidth, NearHeight         int          // pixels
	Width, Height                 int          // pixels
}

// draw makes the pictures; colours run from low to high.
func (c *Case) draw(low, high float32) (*figure, error) {
	photo := shrink(c.Picture, pictureSide)
	heatmap, err := Heatmap(photo, c.Map, c.H, c.W, &HeatmapOptions{Low: low, High: high, Opacity: 1})
	if err != nil {
		return nil, err
	}
	f := &figure{Width: photo.W, Height: photo.H}
	plain := opaque(photo)
	if c.Near != nil {
		near := shrink(c.Near, pictureSide)
		f.NearWidth, f.NearHeight = near.W, near.H
		if f.Near, err = embedJPEG(opaque(near)); err != nil {
			return nil, err
		}
	}
	if f.Photo, err = embedJPEG(plain); err != nil {
		return nil, err
	}
	if f.Heatmap, err = embedJPEG(heatmap); err != nil {
		return nil, err
	}
	if c.Mask != nil {
		if f.Mask, err = embedMask(c.Mask, c.H, c.W, photo.H, photo.W); err != nil {
			return nil, err
		}
	}
	if c.Levels != nil {
		inside := outlined(enlarge(c.Map, c.H, c.W, photo.H, photo.W), c.Levels, c.H, c.W, photo.H, photo.W)
		drawContour(plain, inside, photo.H, photo.W, outlineWidth+1, haloColour)
		drawContour(plain, inside, photo.H, photo.W, outlineWidth, contourColour)
		f.Outline, err = embedJPEG(plain)
	}
	return f, err
}

// opaque is a picture to draw on.
func opaque(img *imagefile.Image) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, img.W, img.H))
	for i := range img.W * img.H {
		copy(out.Pix[4*i:], img.Pix[3*i:][:3])
		out.Pix[4*i+3] = 255
	}
	return out
}

// Thumbnail is a picture as large as a report embeds it: what a Case needs of it. A smaller one is returned as it is.
func Thumbnail(img *imagefile.Image) *imagefile.Image { return shrink(img, pictureSide) }

// shrink averages a picture until neither side exceeds the limit; a smaller one is returned as it is.
func shrink(img *imagefile.Image, limit int) *imagefile.Image {
	longest := max(img.W, img.H)
	if longest <= limit {
		return img
	}
	out := &imagefile.Image{W: max(1, img.W*limit/longest), H: max(1, img.H*limit/longest)}
	out.Pix = make([]uint8, 3*out.W*out.H)
	sums := make([]int, 3*out.W) // of the pixels under a row of out
	for y := range out.H {
		top, bottom := y*img.H/out.H, (y+1)*img.H/out.H
		clear(sums)
		for from := top; from < bottom; from++ {
			row := img.Pix[3*img.W*from:][:3*img.W]
			for x := range out.W {
				sum := sums[3*x:][:3]
				for i := 3 * (x * img.W / out.W); i < 3*((x+1)*img.W/out.W); i += 3 {
					sum[0] += int(row[i])
					sum[1] += int(row[i+1])
					sum[2] += int(row[i+2])
				}
			}
		}
		for i, sum := range sums {
			x := i / 3
			n := (bottom - top) * ((x+1)*img.W/out.W - x*img.W/out.W)
			out.Pix[3*out.W*y+i] = uint8((sum + n/2) / n)
		}
	}
	return out
}

// embedJPEG takes the best quality that fits pictureBytes.
func embedJPEG(img image.Image) (template.URL, error) {
	var data bytes.Buffer
	for quality := 88; ; quality -= 20 {
		data.Reset()
		if err := jpeg.Encode(&data, img, &jpeg.Options{Quality: quality}); err != nil {
			return "", fmt.Errorf("report: %w", err)
		}
		if data.Len() <= pictureBytes || quality <= 20 {
			return dataURI("image/jpeg", data.Bytes()), nil
		}
	}
}

// embedMask draws what is non-zero white on black, in the size toH x toW.
func embedMask(mask []uint8, H, W, toH, toW int) (template.URL, error) {
	img := image.NewPaletted(image.Rect(0, 0, toW, toH), color.Palette{color.Black, color.White})
	for y := range toH {
		for x := range toW {
			if mask[y*H/toH*W+x*W/toW] != 0 {
				img.Pix[y*toW+x] = 1
			}
		}
	}
	var data bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&data, img); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	return dataURI("image/png", data.Bytes()), nil
}

func dataURI(kind string, data []byte) template.URL {
	return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data))
}
