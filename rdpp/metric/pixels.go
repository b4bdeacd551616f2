package metric

import (
	"fmt"
	"math"
	"slices"
)

// Pixels collects the anomaly maps and ground-truth masks of a data set and measures all their pixels together. The
// zero value is empty and ready. It keeps 8 bytes per pixel and needs as many again while it sorts. It is not safe for
// concurrent use: the first metric after an Add sorts.
type Pixels struct {
	// Each sample holds a pixel's score in its high half, encoded by descending, and the number of its defect region in
	// the low half, 0 outside defects. Sorting samples therefore walks thresholds from the highest score down.
	samples []uint64
	sorted  bool
	areas   []int // pixels of region i+1
	defects int   // samples inside regions

	released    float64 // sum of the released PRO over images with a defect
	defective   int     // their number
	releasedErr error   // of the first image for which the released PRO is undefined
}

// Add appends one image: its anomaly map and its mask (non-zero where defective, all zero for a good part), both
// row-major H x W. After an error (ErrLength, ErrEmpty or ErrNaN) the Pixels are as before.
func (p *Pixels) Add(anomaly []float32, mask []uint8, H, W int) error {
	if H < 0 || W < 0 || len(anomaly) != H*W || len(mask) != H*W {
		return fmt.Errorf("%w: a map of %d and a mask of %d pixels, to be %d x %d", ErrLength, len(anomaly), len(mask), H, W)
	}
	if len(anomaly) == 0 {
		return fmt.Errorf("%w: the map is empty", ErrEmpty)
	}
	if err := checkFinite(anomaly, W); err != nil {
		return err
	}
	labels, regions := label(mask, H, W)
	before := len(p.areas)
	p.areas = slices.Grow(p.areas, regions)[:before+regions]
	areas := p.areas[before:]
	clear(areas)
	p.samples = slices.Grow(p.samples, len(anomaly))
	for i, v := range anomaly {
		sample := uint64(descending(v)) << 32
		if l := int(labels[i]); l != 0 {
			areas[l-1]++
			p.defects++
			sample |= uint64(before + l)
		}
		p.samples = append(p.samples, sample)
	}
	p.sorted = false
	if regions > 0 {
		pro, err := releasedPRO(anomaly, labels, areas)
		if err != nil && p.releasedErr == nil {
			p.releasedErr = fmt.Errorf("%w: defective image %d", err, p.defective)
		}
		p.released += pro
		p.defective++
	}
	return nil
}

// AUROC is AUROC over all pixels of all images.
func (p *Pixels) AUROC() (float64, error) {
	c, err := p.curve()
	if err != nil {
		return 0, err
	}
	return c.auroc(), nil
}

// AveragePrecision is AveragePrecision over all pixels of all images.
func (p *Pixels) AveragePrecision() (float64, error) {
	c, err := p.curve()
	if err != nil {
		return 0, err
	}
	return c.averagePrecision(), nil
}

// F1Max is the largest F1 score of all pixels of all images over all thresholds.
func (p *Pixels) F1Max() (float64, error) {
	c, err := p.curve()
	if err != nil {
		return 0, err
	}
	f1, _ := c.f1Max()
	return f1, nil
}

// AUPRO is the area under the per-region overlap curve (Bergmann et al., IJCV 2021): the share of a defect region that
// is found, averaged over the 8-connected regions of all masks, against the false positive rate over all defect-free
// pixels of all images, integrated linearly up to limit and divided by it. The paper's limit is 0.3; a limit outside
// (0, 1] is ErrLimit.
func (p *Pixels) AUPRO(limit float64) (float64, error) {
	if !(limit > 0 && limit <= 1) {
		return 0, fmt.Errorf("%w: %g", ErrLimit, limit)
	}
	if err := p.sort(); err != nil {
		return 0, err
	}
	share := make([]float64, len(p.areas)+1) // what a pixel of each region adds to the mean overlap
	for i, area := range p.areas {
		share[i+1] = 1 / float64(area*len(p.areas))
	}
	normal := float64(len(p.samples) - p.defects)
	area, fpr, pro, falsePositives := 0.0, 0.0, 0.0, 0
	for i := 0; i < len(p.samples) && fpr < limit; {
		lastFPR, lastPRO := fpr, pro
		for score := p.samples[i] >> 32; i < len(p.samples) && p.samples[i]>>32 == score; i++ {
			if region := uint32(p.samples[i]); region == 0 {
				falsePositives++
			} else {
				pro += share[region]
			}
		}
		fpr = float64(falsePositives) / normal
		if fpr > limit {
			pro = lastPRO + (pro-lastPRO)*(limit-lastFPR)/(fpr-lastFPR)
			fpr = limit
		}
		area += (fpr - lastFPR) * (pro + lastPRO) / 2
	}
	return area / limit, nil
}

// ReleasedPRO is the figure that the released code reports as AUPRO, for comparison with the paper only: per image with
// a defect, 200 evenly spaced thresholds between the map's extremes, false positive rates below 0.3 divided by the
// largest of them, and the area under that; averaged over those images. An image for which this divides by zero, such
// as a constant map, makes it ErrUndefined.
func (p *Pixels) ReleasedPRO() (float64, error) {
	if err := p.check(); err != nil {
		return 0, err
	}
	if p.releasedErr != nil {
		return 0, p.releasedErr
	}
	return p.released / float64(p.defective), nil
}

// releasedPRO is the released figure of one image. labels are the regions of its pixels, 0 outside, and areas theirs.
func releasedPRO(anomaly []float32, labels []int32, areas []int) (float64, error) {
	const thresholds, limit = 200, 0.3
	low, high := float64(slices.Min(anomaly)), float64(slices.Max(anomaly))
	if low == high {
		return 0, fmt.Errorf("%w: constant map", ErrUndefined)
	}
	delta := (high - low) / thresholds
	// Thresholds have the precision of the map, so that a score can fall exactly on one.
	var at [thresholds]float32
	for k := range at {
		at[k] = float32(low + float64(k)*delta)
	}
	// falsePositives[k] and overlap[k] are of pixels above exactly the first k thresholds.
	var falsePositives [thresholds + 1]int
	var overlap [thresholds + 1]float64
	normal := 0
	for i, v := range anomaly {
		// The quotient may be off by a rounding, the thresholds themselves decide.
		k := min(int((float64(v)-low)/delta), thresholds)
		for k < thresholds && v > at[k] {
			k++
		}
		for k > 0 && v <= at[k-1] {
			k--
		}
		if l := labels[i]; l == 0 {
			falsePositives[k]++
			normal++
		} else {
			overlap[k] += 1 / float64(areas[l-1]*len(areas))
		}
	}
	area, fpr, pro, found, points := 0.0, 0.0, 0.0, 0, 0
	for k := thresholds; k > 0; k-- {
		found += falsePositives[k]
		next := float64(found) / float64(normal)
		if !(next < limit) {
			break
		}
		lastPRO := pro
		pro += overlap[k]
		if points > 0 {
			area += (next - fpr) * (pro + lastPRO) / 2
		}
		fpr = next
		points++
	}
	if fpr == 0 {
		return 0, fmt.Errorf("%w: no threshold with a false positive rate between 0 and %g", ErrUndefined, limit)
	}
	return area / fpr, nil
}

func (p *Pixels) check() error {
	return checkClasses(p.defects, len(p.samples)-p.defects)
}

func (p *Pixels) sort() error {
	if err := p.check(); err != nil {
		return err
	}
	if !p.sorted {
		sortByHighHalf(p.samples)
		p.sorted = true
	}
	return nil
}

func (p *Pixels) curve() (curve, error) {
	if err := p.sort(); err != nil {
		return curve{}, err
	}
	steps := func(yield func(step) bool) {
		for i := 0; i < len(p.samples); {
			key := p.samples[i] >> 32
			s := step{score: float64(ascending(uint32(key)))}
			for ; i < len(p.samples) && p.samples[i]>>32 == key; i++ {
				if uint32(p.samples[i]) == 0 {
					s.negatives++
				} else {
					s.positives++
				}
			}
			if !yield(s) {
				return
			}
		}
	}
	return curve{steps, p.defects, len(p.samples) - p.defects}, nil
}

// descending maps finite scores to integers of the opposite order, both zeros to the same one.
func descending(v float32) uint32 {
	if v == 0 {
		v = 0 // drops the sign of a negative zero
	}
	bits := math.Float32bits(v)
	if bits>>31 == 1 {
		return bits
	}
	return bits ^ math.MaxInt32
}

// ascending undoes descending.
func ascending(key uint32) float32 {
	if key>>31 == 0 {
		key ^= math.MaxInt32
	}
	return math.Float32frombits(key)
}

// sortByHighHalf sorts a by the upper 32 bits of its elements: a radix sort in three passes of 11 bits, 11 and 10.
func sortByHighHalf(a []uint64) {
	const width, passes = 11, 3
	var counts [passes][1 << width]int
	for _, v := range a {
		for pass := range passes {
			counts[pass][v>>(32+pass*width)&(1<<width-1)]++
		}
	}
	from, to := a, make([]uint64, len(a))
	for pass := range passes {
		next := &counts[pass]
		sum := 0
		for digit, n := range next {
			next[digit] = sum
			sum += n
		}
		for _, v := range from {
			digit := v >> (32 + pass*width) & (1<<width - 1)
			to[next[digit]] = v
			next[digit]++
		}
		from, to = to, from
	}
	copy(a, from)
}
