package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/lookout"
)

var (
	driftData  = flag.String("drift-data", "", "measure the delay of warnings on the data set in `DIR`, of MVTec AD's layout, with -drift-model")
	driftModel = flag.String("drift-model", "", "model `FILE` that was trained on it")
)

// darkest is to how many percent of its light the measurement darkens a line.
const darkest = 80

// TestDarkened measures when a line of real parts is told of whose light fades by a hundredth every so many images, and how often
// one whose light stays. The line draws from the good test images; what the model does not know of the training images is read from
// their files.
func TestDarkened(t *testing.T) {
	if *driftData == "" || *driftModel == "" {
		t.Skip("no -drift-data and -drift-model")
	}
	d, err := rdpp.OpenDetector(*driftModel, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	opt := lookout.Options{Reference: d.Reference()}
	set, err := dataset.Open(*driftData, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(opt.Reference.Looks.Brightness) == 0 {
		cache := d.Cache()
		if _, _, err := dataset.Check(t.Context(), set.Train, cache, 0, false); err != nil {
			t.Fatal(err)
		}
		opt.Reference.Looks = cache.Looks(set.Train)
	}
	var sights [][]lookout.Sight // by percent of light lost, by image; those that are called anomalous are NaN
	for percent := 100; percent >= darkest; percent-- {
		var row []lookout.Sight
		for _, item := range set.Test {
			if item.Defective {
				continue
			}
			row = append(row, darkened(t, d, item.Path, percent))
		}
		sights = append(sights, row)
	}
	images := len(sights[0])
	called := 0
	for _, s := range sights[0] {
		if math.IsNaN(s.Score) {
			called++
		}
	}
	fmt.Printf("%s: %d good test images, %d of them called anomalous; %d scores and %d looks in the reference\n", filepath.Base(*driftData), images, called,
		len(opt.Reference.Scores), len(opt.Reference.Looks.Brightness))
	const lines, before = 50, 500
	for _, every := range []int{0, 1, 10, 30, 100} { // images per percent; 0: the light stays
		var delays, losses []int
		warned, length := 0, before+every*(100-darkest)
		if every == 0 {
			length = 10_000
		}
		first := map[string]int{}
		for line := range lines {
			chance, l, done := rand.New(rand.NewPCG(uint64(line), uint64(every))), lookout.New(opt), false
			for i := range length {
				lost := 0
				if every > 0 {
					lost = min(max(i-before, 0)/every, 100-darkest)
				}
				s := sights[lost][chance.IntN(images)]
				if math.IsNaN(s.Score) {
					continue
				}
				for _, w := range l.See(s) {
					if i < before || every == 0 {
						warned++
					} else if !done {
						done = true
						delays, losses = append(delays, i-before), append(losses, lost)
						first[w.Stream]++
					}
				}
			}
		}
		if every == 0 {
			fmt.Printf("light stays: %d warnings in %d lines of %d images, %.0f stated at most\n", warned, lines, length, lookout.DefaultRate*float64(lines*length)/1000)
			continue
		}
		slices.Sort(delays)
		slices.Sort(losses)
		if len(delays) == 0 {
			t.Errorf("1 %% in %d images: no line was told of", every)
			continue
		}
		fmt.Printf("1 %% darker every %d images: %d of %d lines told of, after %d images (median; %d to %d), %d %% darker (%d to %d); first by %v; before: %d warnings\n",
			every, len(delays), lines, delays[len(delays)/2], delays[0], delays[len(delays)-1], losses[len(losses)/2], losses[0], losses[len(losses)-1], first, warned)
	}
}

// darkened is what is seen of an image with so many percent of its light; with a score that is NaN where it is called anomalous.
func darkened(t *testing.T, d *rdpp.Detector, path string, percent int) lookout.Sight {
	t.Helper()
	img, err := imagefile.DecodeFile(path, new(d.ImageOptions()))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range img.Pix {
		img.Pix[i] = uint8((int(v)*percent + 50) / 100)
	}
	r, err := d.Detect(img)
	if err != nil {
		t.Fatal(err)
	}
	s := lookout.Sight{Score: r.Score, Look: r.Look}
	if r.Anomalous {
		s.Score = math.NaN()
	}
	return s
}
