package metric

import (
	"fmt"
	"math"
	"runtime"
	"sync"
)

// Pixels collects the anomaly maps and ground-truth masks of a data set and measures all their pixels together. The
// zero value is empty and ready. It keeps 4 bytes per good pixel and 8 per defective one, and needs up to twice as many
// again while it sorts. It is not safe for concurrent use: the first metric after an Add sorts, on all processors.
type Pixels struct {
	// Good pixels are their scores, encoded by descending. A defective one holds its score in the high half and the
	// number of its region, from 1, in the low half. A chunk comes from one image, or is what was sorted last.
	good      [][]uint32
	defective [][]uint64
	sorted    bool  // there is one chunk of each class, and it is in order
	areas     []int // pixels of region i+1

	pixels, defects int // in all chunks, and in those of defective ones

	released    float64 // sum of the released PRO over images with a defect
	regional    int     // their number
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
	if _, err := highestOf(anomaly, W); err != nil {
		return err
	}
	labels, regions := label(mask, H, W)
	return p.add(anomaly, labels, regions)
}

// AddCounted is Add of the positions alone that count, of which i is row i/W, column i%W; the others are in no metric. Where
// none counts nothing is added.
func (p *Pixels) AddCounted(anomaly []float32, mask []uint8, counts func(i int) bool, H, W int) error {
	if H < 0 || W < 0 || len(anomaly) != H*W || len(mask) != H*W {
		return fmt.Errorf("%w: a map of %d and a mask of %d pixels, to be %d x %d", ErrLength, len(anomaly), len(mask), H, W)
	}
	if _, err := highestOf(anomaly, W); err != nil {
		return err
	}
	drawn := make([]uint8, len(mask))
	for i, v := range mask {
		if counts(i) {
			drawn[i] = v
		}
	}
	all, regions := label(drawn, H, W)
	var values []float32
	var labels []int32
	for i, v := range anomaly {
		if counts(i) {
			values, labels = append(values, v), append(labels, all[i])
		}
	}
	return p.add(values, labels, regions)
}

// add appends the values of an image and the regions, numbered from 1, that they are in.
func (p *Pixels) add(anomaly []float32, labels []int32, regions int) error {
	before := len(p.areas)
	p.areas = append(p.areas, make([]int, regions)...)
	areas := p.areas[before:]
	defects := 0
	for _, l := range labels {
		if l != 0 {
			areas[l-1]++
			defects++
		}
	}
	good, defective := make([]uint32, len(anomaly)-defects), make([]uint64, 0, defects)
	g := 0
	for i, v := range anomaly {
		if labels[i] == 0 {
			good[g] = descending(v)
			g++
		} else {
			defective = append(defective, uint64(descending(v))<<32|uint64(before+int(labels[i])))
		}
	}
	p.good, p.defective = append(p.good, good), append(p.defective, defective)
	p.pixels += len(anomaly)
	p.defects += defects
	p.sorted = false
	if regions > 0 {
		pro, err := releasedPRO(anomaly, labels, areas)
		if err != nil && p.releasedErr == nil {
			p.releasedErr = fmt.Errorf("%w: defective image %d", err, p.regional)
		}
		p.released += pro
		p.regional++
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

// F1Max is F1Max over all pixels of all images.
func (p *Pixels) F1Max() (f1, threshold float64, err error) {
	c, err := p.curve()
	if err != nil {
		return 0, 0, err
	}
	f1, threshold = c.f1Max()
	return f1, threshold, nil
}

// AUPRO is the area under the per-region overlap curve (Bergmann et al., IJCV 2021): the share of a defect region that
// is found, averaged over the 8-connected regions of all masks, against the false positive rate over all defect-free
// pixels of all images, integrated linearly up to limit and divided by it. The paper's limit is 0.3; a limit outside
// (0, 1] is ErrLimit.
func (p *Pixels) AUPRO(limit float64) (float64, error) {
	if err := checkLimit(limit); err != nil {
		return 0, err
	}
	c, err := p.curve()
	if err != nil {
		return 0, err
	}
	area, last := 0.0, Point{}
	for v := range c.pro(limit) {
		area += (v.X - last.X) * (v.Y + last.Y) / 2
		last = v
	}
	return area / limit, nil
}

func checkLimit(limit float64) error {
	if !(limit > 0 && limit <= 1) {
		return fmt.Errorf("%w: %g", ErrLimit, limit)
	}
	return nil
}

// ReleasedPRO is the figure that the released code reports as AUPRO, for comparison with the paper only: per image with
// a defect, 200 evenly spaced thresholds between the map's extremes, or 201 where NumPy's arange makes so many, false
// positive rates below 0.3 divided by the largest of them, and the area under that; averaged over those images. It is what
// that code gives for maps of float32 with the NumPy it asks for, 1.24; NumPy 2 rounds the steps otherwise. An image for
// which it has no answer, such as a constant map, makes it ErrUndefined.
func (p *Pixels) ReleasedPRO() (float64, error) {
	if err := p.check(); err != nil {
		return 0, err
	}
	if p.releasedErr != nil {
		return 0, p.releasedErr
	}
	return p.released / float64(p.regional), nil
}

// releasedPRO is the released figure of one image. labels are the regions of its pixels, 0 outside, and areas theirs.
func releasedPRO(anomaly []float32, labels []int32, areas []int) (float64, error) {
	const limit = 0.3
	lowest, highest := anomaly[0], anomaly[0]
	for _, v := range anomaly {
		lowest, highest = min(lowest, v), max(highest, v)
	}
	if lowest == highest {
		return 0, fmt.Errorf("%w: constant map", ErrUndefined)
	}
	var room [mostThresholds]float32
	at := arange(room[:0], lowest, highest)
	if at == nil {
		return 0, fmt.Errorf("%w: map from %g to %g", ErrUndefined, lowest, highest)
	}
	thresholds := len(at)
	low := float64(lowest)
	perDelta := evenThresholds / (float64(highest) - low)
	// falsePositives[k] and overlap[k] are of pixels above exactly the first k thresholds.
	var falsePositives [mostThresholds + 1]int
	var overlap [mostThresholds + 1]float64
	normal := 0
	for i, v := range anomaly {
		// The product may be off by a rounding, the thresholds themselves decide.
		k := min(int((float64(v)-low)*perDelta), thresholds)
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
	if fpr == 0 || points < 2 {
		return 0, fmt.Errorf("%w: no two thresholds with a false positive rate below %g, one of them above 0", ErrUndefined, limit)
	}
	return area / fpr, nil
}

// How many thresholds the released PRO is to have, and may have: one more where the range over the step is rounded up.
const evenThresholds, mostThresholds = 200, 201

// arange appends np.arange(low, high, (high - low) / 200) as NumPy 1 computes it for a low and a high of float32, and
// compares it with such a map. The range is rounded to float32, the step and the thresholds are float64, and a comparison
// rounds them to float32, so that a score can fall exactly on one. nil where the range is too large for float32.
func arange(to []float32, low, high float32) []float32 {
	span := float64(high - low)
	step := span / evenThresholds
	count := math.Ceil(span / step)
	if math.IsNaN(count) { // NumPy refuses to make an array of that length
		return nil
	}
	first := float64(low)
	delta := first + step - first
	for k := range min(int(count), mostThresholds) {
		to = append(to, float32(first+float64(float64(k)*delta))) // the inner conversion forbids a fused multiply-add
	}
	return to
}

func (p *Pixels) check() error {
	return checkClasses(p.defects, p.pixels-p.defects)
}

// curve sorts what is not yet sorted.
func (p *Pixels) curve() (curve, error) {
	if err := p.check(); err != nil {
		return curve{}, err
	}
	if !p.sorted {
		// The chunks are let go, so that the collector can have them as soon as they are read.
		good, defective := p.good, p.defective
		p.good, p.defective = nil, nil
		p.good = [][]uint32{sortKeys(good, 0, runtime.GOMAXPROCS(0))}
		p.defective = [][]uint64{sortKeys(defective, 32, runtime.GOMAXPROCS(0))}
		p.sorted = true
	}
	share := make([]float64, len(p.areas)+1)
	for i, area := range p.areas {
		share[i+1] = 1 / float64(area*len(p.areas))
	}
	score := func(key uint32) float64 { return float64(ascending(key)) }
	return curve{p.good[0], p.defective[0], score, share}, nil
}

// descending maps finite scores to integers of the opposite order, both zeros to the same one.
func descending(v float32) uint32 {
	bits := math.Float32bits(v + 0)                      // -0 becomes 0
	return bits ^ math.MaxInt32&^uint32(int32(bits)>>31) // all but the sign turned round where that is 0
}

// ascending undoes descending.
func ascending(key uint32) float32 {
	if key>>31 == 0 {
		key ^= math.MaxInt32
	}
	return math.Float32frombits(key)
}

// sortKeys returns the samples of all chunks in the order of the 32 bits from bit shift up, equal ones in the order of
// the chunks, however many goroutines share the work: a radix sort in three passes of 11 bits, 11 and 10.
func sortKeys[T uint32 | uint64](chunks [][]T, shift, goroutines int) []T {
	const width, passes = 11, 3
	n := 0
	for _, chunk := range chunks {
		n += len(chunk)
	}
	goroutines = max(1, min(goroutines, n>>14)) // fewer samples are not worth a goroutine
	next := make([][1 << width]int, goroutines)
	var free []T
	for pass := range passes {
		digit := shift + pass*width
		parts := cut(chunks, goroutines)
		parallel(goroutines, func(g int) {
			clear(next[g][:])
			for _, chunk := range parts[g] {
				for _, v := range chunk {
					next[g][v>>digit&(1<<width-1)]++
				}
			}
		})
		sum := 0
		for d := range 1 << width {
			for g := range next {
				next[g][d], sum = sum, sum+next[g][d]
			}
		}
		to := free
		if to == nil {
			to = make([]T, n)
		}
		parallel(goroutines, func(g int) {
			for _, chunk := range parts[g] {
				for _, v := range chunk {
					at := &next[g][v>>digit&(1<<width-1)]
					to[*at] = v
					*at++
				}
			}
		})
		if pass > 0 {
			free = chunks[0]
		}
		chunks = [][]T{to}
	}
	return chunks[0]
}

// cut divides the samples of chunks, in their order, into n parts of the same size but for one sample.
func cut[T any](chunks [][]T, n int) [][][]T {
	total := 0
	for _, chunk := range chunks {
		total += len(chunk)
	}
	parts, seen := make([][][]T, n), 0
	for _, chunk := range chunks {
		for len(chunk) > 0 {
			part := seen * n / total
			end := ((part+1)*total + n - 1) / n // the first sample of the next part
			taken := min(len(chunk), end-seen)
			parts[part] = append(parts[part], chunk[:taken])
			chunk, seen = chunk[taken:], seen+taken
		}
	}
	return parts
}

// parallel calls f with 0 to n-1, each in a goroutine of its own.
func parallel(n int, f func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
