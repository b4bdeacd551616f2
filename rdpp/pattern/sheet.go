package pattern

import (
	"image"
	"image/color"
)

// Sheet draws a contact sheet: per kind a row of four classes, three instances each, and below them a row of scenes.
func Sheet(opt *Options) (*image.RGBA, error) {
	const classes, instances, gap = 4, 3, 2
	all, err := New(opt)
	if err != nil {
		return nil, err
	}
	S := all.size
	pitch := S + gap
	sheet := image.NewRGBA(image.Rect(0, 0, classes*instances*pitch-gap, (len(all.kinds)+1)*pitch-gap))
	rgb, labels := make([]byte, 3*S*S), make([]int16, S*S)
	show := func(column, row int) {
		for i := range S * S {
			sheet.SetRGBA(column*pitch+i%S, row*pitch+i/S, color.RGBA{rgb[3*i], rgb[3*i+1], rgb[3*i+2], 255})
		}
	}
	for row, kind := range all.kinds {
		one := &Generator{size: S, seed: all.seed, kinds: []int{kind}, upto: []float64{1}}
		for i := range classes * instances {
			if err := one.Draw(uint64(i/instances), uint64(i%instances), rgb); err != nil {
				return nil, err
			}
			show(i, row)
		}
	}
	for i := range classes * instances {
		if err := all.DrawRegions(100, uint64(i), rgb, labels); err != nil {
			return nil, err
		}
		show(i, len(all.kinds))
	}
	return sheet, nil
}
