package export

import "fmt"

const (
	stemEfficientNet = "encoder.features.0.0.weight" // which other teachers do not have
	epsEfficientNet  = 1e-3                          // of its batch norms
)

// efficientNet is csrc/efficientnet.cpp's teacher: what features.3, features.5 and features.6 put out.
func (n *network) efficientNet(x string) (f [scales]string) {
	x = n.swish(n.layer(x, "encoder.features.0", 2, false))
	for stage, stride := range []int{1, 2, 2, 2, 1, 2} {
		for i := 0; ; i++ {
			name := fmt.Sprintf("encoder.features.%d.%d", stage+1, i)
			if i > 0 && !n.has(name+".block.0.0.weight") {
				break
			}
			if i > 0 {
				stride = 1
			}
			if x = n.invertedBlock(x, name+".block", stride, i > 0); n.err != nil {
				return f
			}
		}
		if k, seen := map[int]int{3: 0, 5: 1, 6: 2}[stage+1]; seen {
			f[k] = x
		}
	}
	return f
}

// layer is a convolution and its batch norm.
func (n *network) layer(x, name string, stride int, depthwise bool) string {
	return n.normed(x, name+".1", epsEfficientNet, conv{name: name + ".0", stride: stride, depthwise: depthwise})
}

// invertedBlock is a mobile inverted bottleneck, whose first layer those without more channels inside do not have.
func (n *network) invertedBlock(x, name string, stride int, residual bool) string {
	place := 0
	next := func() string {
		place++
		return fmt.Sprint(name, ".", place-1)
	}
	y := x
	if n.has(name + ".3.0.weight") {
		y = n.swish(n.layer(y, next(), 1, false))
	}
	y = n.swish(n.layer(y, next(), stride, true))
	squeeze := next()
	s := n.biased(n.swish(n.biased(n.mean(y), squeeze+".fc1", 1)), squeeze+".fc2", 1)
	if n.err != nil {
		return x
	}
	y = n.layer(n.product(y, n.sigmoid(s)), next(), 1, false)
	if residual {
		y = n.add(y, x)
	}
	return y
}
