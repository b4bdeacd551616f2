package export

import (
	"fmt"
	"math"

	"rdpp/rdpp/weights"
)

const scales = 3 // K

// network adds the networks of csrc/networks.cpp and the map of csrc/losses.cpp, operation by operation, to a builder.
// After an error its methods do nothing sensible; err keeps the first.
type network struct {
	builder
	tensors map[string]weights.Source
	err     error
}

// has says whether the state dicts have an entry.
func (n *network) has(name string) bool {
	_, found := n.tensors[name]
	return found
}

func (n *network) fail(format string, args ...any) {
	if n.err == nil {
		n.err = fmt.Errorf(format, args...)
	}
}

// tensor is the entry of that name, which must have that many dimensions.
func (n *network) tensor(name string, dims int) weights.Source {
	t, found := n.tensors[name]
	switch {
	case !found:
		n.fail("tensor %s is missing; export a complete model", name)
	case t.DType != weights.F32:
		n.fail("tensor %s has elements of type %s; F32 is needed", name, t.DType)
	case len(t.Shape) != dims:
		n.fail("tensor %s has shape %v; %d dimensions are needed", name, t.Shape, dims)
	}
	return t
}

// vector is an entry of one value per channel.
func (n *network) vector(name string, channels int) weights.Source {
	t := n.tensor(name, 1)
	if n.err == nil && t.Shape[0] != channels {
		n.fail("tensor %s has %d values; %d are needed", name, t.Shape[0], channels)
	}
	return t
}

// convNorm is a convolution and the batch norm after it.
func (n *network) convNorm(x, name, norm string, stride int, transposed bool) string {
	return n.normed(x, norm, normEps, conv{name: name, stride: stride, transposed: transposed})
}

// normed is the convolution c, to which its values are given, and a batch norm after it.
func (n *network) normed(x, norm string, eps float64, c conv) string {
	weight := n.tensor(c.name+".weight", 4)
	if n.err != nil {
		return x
	}
	channels := weight.Shape[0]
	c.padding = weight.Shape[2] / 2
	if c.transposed {
		channels, c.padding = weight.Shape[1], 0
	}
	after := norms{n.vector(norm+".weight", channels), n.vector(norm+".bias", channels),
		n.vector(norm+".running_mean", channels), n.vector(norm+".running_var", channels), eps}
	c.weight, c.bias = fold(weight, after, c.transposed)
	return n.conv(x, c)
}

// block is a residual block. Its strided convolution and its shortcut are transposed ones where it upsamples.
func (n *network) block(x, name string, stride int, up bool) string {
	up = up && stride == 2
	first, second := stride, 1
	deep := n.has(name + ".conv3.weight") // 1x1-3x3-1x1
	if deep {
		first, second = 1, stride
	}
	y := n.relu(n.convNorm(x, name+".conv1", name+".bn1", first, up && !deep))
	y = n.convNorm(y, name+".conv2", name+".bn2", second, up && deep)
	if deep {
		y = n.convNorm(n.relu(y), name+".conv3", name+".bn3", 1, false)
	}
	for _, shortcut := range []string{".downsample", ".upsample"} {
		if n.has(name + shortcut + ".0.weight") {
			x = n.convNorm(x, name+shortcut+".0", name+shortcut+".1", stride, up)
		}
	}
	return n.relu(n.add(y, x))
}

// stage is a row of residual blocks, of which the first has the stride.
func (n *network) stage(x, name string, stride int, up bool) string {
	for i := 0; i == 0 || n.has(fmt.Sprintf("%s.%d.conv1.weight", name, i)); i++ {
		if i > 0 {
			stride = 1
		}
		x = n.block(x, fmt.Sprintf("%s.%d", name, i), stride, up)
	}
	return x
}

func (n *network) teacher(x string) (f [scales]string) {
	if n.has(stemEfficientNet) {
		return n.efficientNet(x)
	}
	x = n.maxPool(n.relu(n.convNorm(x, "encoder.conv1", "encoder.bn1", 2, false)))
	for k := range f {
		x = n.stage(x, fmt.Sprintf("encoder.layer%d", k+1), min(k+1, 2), false)
		f[k] = x
	}
	return f
}

// projection passes scales on that have none: all of them for the RD baseline.
func (n *network) projection(f [scales]string) [scales]string {
	for k, letter := range "abc" {
		if !n.has(fmt.Sprintf("proj.proj_%c.proj.0.weight", letter)) {
			continue
		}
		// Convolution, norm and activation take three places each.
		for i := 0; i < 12; i += 3 {
			f[k] = n.projectionLayer(f[k], fmt.Sprintf("proj.proj_%c.proj.%d", letter, i))
		}
	}
	return f
}

func (n *network) projectionLayer(x, name string) string {
	weight := n.tensor(name+".weight", 4)
	if n.err != nil {
		return x
	}
	channels := weight.Shape[0]
	c := conv{name: name, weight: weight, bias: n.vector(name+".bias", channels), stride: 1, padding: 1}
	return n.instanceNorm(n.conv(x, c), channels, 1e-5, 0.01)
}

func (n *network) bottleneck(p [scales]string) string {
	down := func(x, i string) string { return n.relu(n.convNorm(x, "bn.conv"+i, "bn.bn"+i, 2, false)) }
	return n.stage(n.concat(down(down(p[0], "1"), "2"), down(p[1], "3"), p[2]), "bn.bn_layer", 2, false)
}

func (n *network) student(z string) (g [scales]string) {
	for i := range g {
		z = n.stage(z, fmt.Sprintf("decoder.layer%d", i+1), 2, true)
		g[scales-1-i] = z
	}
	return g
}

// anomalyMap is the weighted sum of upsampled d = 1 - cos, or log(1 + d / level) where there is a level, over scales and over
// their features' averages over 3x3 positions: B x 1 x S x S.
func (n *network) anomalyMap(f, g [scales]string, weights, levels [Terms]float64, S int) (sum string) {
	factor := func(x, name string, i int, value float64) string {
		return n.times(x, float32s(fmt.Sprint(name, i+1), []float32{float32(value)}, 1))
	}
	for i, weight := range weights {
		if weight == 0 {
			continue
		}
		k := i % scales
		a, b := f[k], g[k]
		if i >= scales {
			a, b = n.averagePool(a), n.averagePool(b)
		}
		term := n.distance(a, b)
		if levels[i] > 0 {
			term = n.log1p(factor(term, "map.level.", i, 1/levels[i]))
		}
		if weight != 1 {
			term = factor(term, "map.weight.", i, weight)
		}
		term = n.upsample(term, S, 4<<k)
		if sum != "" {
			term = n.add(sum, term)
		}
		sum = term
	}
	return sum
}

// smooth is a Gaussian, truncated at 4 sigma. Edges are mirrored with the edge pixel repeated.
func (n *network) smooth(x string, S int, sigma float64) string {
	radius := int(4*sigma + 0.5)
	kernel := make([]float32, 2*radius+1)
	sum := 0.0
	for i := range kernel {
		sum += gauss(i-radius, sigma)
	}
	for i := range kernel {
		kernel[i] = float32(gauss(i-radius, sigma) / sum)
	}
	mirrored := make([]int64, S+2*radius)
	for i := range mirrored {
		at := ((i-radius)%(2*S) + 2*S) % (2 * S)
		mirrored[i] = int64(min(at, 2*S-1-at))
	}
	index := integers("blur.mirrored", mirrored)
	zero := float32s("blur.bias", []float32{0}, 1)
	pass := func(name string, shape ...int) conv {
		return conv{name: name, weight: float32s(name+".weight", kernel, shape...), bias: zero, stride: 1}
	}
	x = n.conv(n.gather(x, index, 2), pass("blur.rows", 1, 1, len(kernel), 1))
	return n.conv(n.gather(x, index, 3), pass("blur.columns", 1, 1, 1, len(kernel)))
}

func gauss(offset int, sigma float64) float64 {
	z := float64(offset) / sigma
	return math.Exp(-0.5 * z * z)
}
