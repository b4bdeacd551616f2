package pattern

import "math"

// random is SplitMix64 (Steele et al., 2014): its whole state is one number, which makes a stream per class and
// instance cheap.
type random struct{ state uint64 }

// newRandom returns the stream that belongs to the keys.
func newRandom(keys ...uint64) *random {
	r := new(random)
	for _, k := range keys {
		r.state = r.next() ^ k
	}
	return r
}

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// float is uniform in [0, 1).
func (r *random) float() float64 { return float64(r.next()>>11) / (1 << 53) }

func (r *random) between(low, high float64) float64 { return low + (high-low)*r.float() }

// ratio is between low and high, all magnitudes alike.
func (r *random) ratio(low, high float64) float64 { return low * math.Pow(high/low, r.float()) }

func (r *random) angle() float64 { return r.between(0, 2*math.Pi) }

func (r *random) chance(p float64) bool { return r.float() < p }

func (r *random) intn(n int) int { return int(r.next() >> 33 % uint64(n)) }

// jitter moves x by up to `share` of itself.
func (r *random) jitter(x, share float64) float64 { return x * r.between(1-share, 1+share) }

// normal is about Gaussian with deviation 1: the sum of four uniform 16-bit numbers.
func (r *random) normal() float32 {
	z := r.next()
	sum := int32(z&0xffff) + int32(z>>16&0xffff) + int32(z>>32&0xffff) + int32(z>>48)
	return float32(sum-2*0xffff) * (1.7320508 / 0xffff)
}
