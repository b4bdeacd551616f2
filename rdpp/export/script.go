package export

import (
	"fmt"
	"strconv"
	"strings"

	"rdpp/rdpp/weights"
)

// Script is a model as TorchScript: what defines it, for libtorch to compile and save.
type Script struct {
	// Source is the text of the module's method
	//
	//	forward(x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]
	//
	// from the input to score, map, normalised and anomalous.
	Source string
	// Attributes are the tensors that it reads, by their names in the text, in the order of their use.
	Attributes []weights.Source
}

// TorchScript returns the model as TorchScript.
func (m *Model) TorchScript(in Input) (*Script, error) {
	s := script{defined: map[string]bool{}}
	if err := m.build(in, &s); err != nil {
		return nil, fmt.Errorf("export: torchscript: %w", err)
	}
	return &Script{Source: s.text.String(), Attributes: s.attributes}, nil
}

// script is the builder of TorchScript: a line of text per operation.
type script struct {
	text       strings.Builder
	lines      int
	attributes []weights.Source
	defined    map[string]bool // names of attributes
}

// line assigns an expression to a new variable and returns its name.
func (s *script) line(format string, args ...any) string {
	s.lines++
	name := "x" + strconv.Itoa(s.lines)
	fmt.Fprintf(&s.text, "    %s = %s\n", name, fmt.Sprintf(format, args...))
	return name
}

// attribute adds a tensor and returns the expression that reads it.
func (s *script) attribute(t weights.Source) string {
	t.Name = strings.ReplaceAll(t.Name, ".", "_")
	if !s.defined[t.Name] {
		s.defined[t.Name] = true
		s.attributes = append(s.attributes, t)
	}
	return "self." + t.Name
}

func (s *script) images(in Input, m *Model) string {
	name := NamePixels
	if in == Planes {
		name = NamePlanes
	}
	fmt.Fprintf(&s.text, "def forward(self, %s: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:\n", name)
	if in == Planes {
		return name
	}
	x := name
	part, to := m.cut()
	if !part.Empty() {
		size := m.Frame.Picture
		fmt.Fprintf(&s.text, "    assert %s.size(1) == %d and %s.size(2) == %d, \"this file reads pictures of %d x %d pixels alone\"\n", name, size.Y,
			name, size.X, size.X, size.Y)
		x = s.line("%s[:, %d:%d, %d:%d]", x, part.Min.Y, part.Max.Y, part.Min.X, part.Max.X)
	}
	x = s.line("%s.permute([0, 3, 1, 2]).float() / 255.0", x)
	x = s.line("torch.upsample_bilinear2d(%s, [%d, %d], False)", x, to.Y, to.X)
	mean := s.attribute(float32s("preprocess.mean", m.Mean[:], 1, 3, 1, 1))
	std := s.attribute(float32s("preprocess.std", m.Std[:], 1, 3, 1, 1))
	return s.line("(%s - %s) / %s", x, mean, std)
}

func (s *script) conv(x string, c conv) string {
	w, b := s.attribute(c.weight), s.attribute(c.bias)
	if c.transposed {
		return s.line("torch.conv_transpose2d(%s, %s, %s, [%d, %d])", x, w, b, c.stride, c.stride)
	}
	if c.depthwise {
		return s.line("torch.conv2d(%s, %s, %s, [%d, %d], [%d, %d], [1, 1], %d)", x, w, b, c.stride, c.stride, c.padding, c.padding, c.groups())
	}
	return s.line("torch.conv2d(%s, %s, %s, [%d, %d], [%d, %d])", x, w, b, c.stride, c.stride, c.padding, c.padding)
}

func (s *script) relu(x string) string { return s.line("torch.relu(%s)", x) }

func (s *script) swish(x string) string { return s.line("torch.silu(%s)", x) }

func (s *script) sigmoid(x string) string { return s.line("torch.sigmoid(%s)", x) }

func (s *script) mean(x string) string { return s.line("torch.mean(%s, [2, 3], True)", x) }

func (s *script) instanceNorm(x string, _ int, eps, slope float32) string {
	x = s.line("torch.instance_norm(%s, None, None, None, None, True, 0.0, %v, True)", x, eps)
	return s.leaky(x, slope)
}

func (s *script) maxPool(x string) string {
	return s.line("torch.max_pool2d(%s, [3, 3], [2, 2], [1, 1])", x)
}

func (s *script) add(x, y string) string { return s.line("%s + %s", x, y) }

func (s *script) concat(x ...string) string {
	return s.line("torch.cat([%s], 1)", strings.Join(x, ", "))
}

func (s *script) distance(f, g string) string {
	dot := func(x, y string) string { return s.line("torch.sum(%s * %s, [1], True)", x, y) }
	norms := s.line("torch.sqrt(torch.clamp_min(%s * %s, %v))", dot(f, f), dot(g, g), normFloor)
	return s.line("1.0 - %s / %s", dot(f, g), norms)
}

func (s *script) averagePool(x string) string {
	return s.line("torch.avg_pool2d(%s, [3, 3], [1, 1], [1, 1], False, False)", x)
}

func (s *script) times(x string, factor weights.Source) string {
	return s.line("%s * %s", x, s.attribute(factor))
}

func (s *script) plus(x string, constant weights.Source) string {
	return s.line("%s + %s", x, s.attribute(constant))
}

func (s *script) exp(x string) string { return s.line("torch.exp(%s)", x) }

func (s *script) tanh(x string) string { return s.line("torch.tanh(%s)", x) }

func (s *script) layerNorm(x string, weight, bias weights.Source) string {
	sizes := strings.Join(strings.Fields(strings.Trim(fmt.Sprint(weight.Shape), "[]")), ", ")
	return s.line("torch.layer_norm(%s, [%s], %s, %s, %v)", x, sizes, s.attribute(weight), s.attribute(bias), normEps)
}

func (s *script) log1p(x string) string { return s.line("torch.log1p(%s)", x) }

func (s *script) upsample(x string, S, _ int) string {
	return s.line("torch.upsample_bilinear2d(%s, [%d, %d], True)", x, S, S)
}

func (s *script) gather(x string, index weights.Source, axis int) string {
	return s.line("torch.index_select(%s, %d, %s)", x, axis, s.attribute(index))
}

func (s *script) meanPool(x string) string {
	return s.line("torch.avg_pool2d(%s, [3, 3], [1, 1], [1, 1])", x)
}

func (s *script) stretch(x string, side int) string {
	return s.line("torch.upsample_bilinear2d(%s, [%d, %d], False)", x, side, side)
}

func (s *script) places(x string, index weights.Source, S int) string {
	return s.line("torch.index_select(torch.flatten(%s, 2), 2, %s).view([-1, 3, %d, %d])", x, s.attribute(index), S, S)
}

func (s *script) product(x, y string) string { return s.line("%s * %s", x, y) }

func (s *script) leaky(x string, slope float32) string {
	return s.line("torch.leaky_relu(%s, %v)", x, slope)
}

func (s *script) atan(x string) string { return s.line("torch.atan(%s)", x) }

func (s *script) meanSquare(x string) string { return s.line("torch.mean(%s * %s, [1], True)", x, x) }

func (s *script) average(x string) string {
	return s.line("torch.mean(%s.double(), [1, 2, 3]).float()", x)
}

func (s *script) top(x string, n int) string {
	values := s.line("torch.topk(torch.flatten(%s, 1), %d, 1, True, False)[0]", x, n)
	return s.line("torch.mean(%s.double(), [1]).float()", values)
}

func (s *script) highest(x string) string { return s.line("torch.amax(%s, [1, 2, 3])", x) }

// apart are the squares of the distances of patches x to the rows of a bank, less those of the patches' own lengths: ... x D
// -> ... x M.
func (s *script) apart(x string, bank rows) string {
	return s.line("%s - 2.0 * torch.matmul(%s, %s.t())", s.attribute(bank.lengths), x, s.attribute(bank.patches))
}

func (s *script) nearest(x string, bank rows, side int) (c compared) {
	c.patches = s.line("%s.permute([0, 2, 3, 1]).flatten(1, 2)", x)
	c.row = s.line("torch.argmin(%s, 2)", s.apart(c.patches, bank))
	chosen := s.line("torch.index_select(%s, 0, %s.flatten()).view_as(%s)", s.attribute(bank.patches), c.row, c.patches)
	c.distance = s.line("torch.sqrt(torch.sum((%s - %s) * (%s - %s), [2]))", c.patches, chosen, c.patches, chosen)
	c.distances = s.line("%s.view([-1, 1, %d, %d])", c.distance, side, side)
	return c
}

func (s *script) nearness(x string, bank rows, side, k, atATime int) string {
	patches := s.line("%s.permute([0, 2, 3, 1]).flatten(1, 2)", x) // B x N x D
	var parts []string                                             // B x n each
	for first := 0; first < side*side; first += atATime {
		part := s.line("%s[:, %d:%d]", patches, first, min(first+atATime, side*side)) // B x n x D
		near := s.line("torch.topk(%s, %d, 2, False)[1]", s.apart(part, bank), k)     // B x n x k
		nearest, distances := "", make([]string, k)                                   // B x n each
		for i := range distances {
			chosen := s.line("torch.index_select(%s, 0, torch.select(%s, 2, %d).flatten()).view_as(%s)", s.attribute(bank.patches), near, i, part)
			if distances[i] = s.line("torch.sqrt(torch.sum(torch.square(%s - %s), [2]))", part, chosen); i == 0 {
				nearest = distances[i]
			} else {
				nearest = s.line("torch.minimum(%s, %s)", nearest, distances[i])
			}
		}
		for i, d := range distances {
			distances[i] = fmt.Sprintf("torch.exp(%s - %s)", nearest, d)
		}
		parts = append(parts, s.line("%s / (%s)", nearest, strings.Join(distances, " + ")))
	}
	return s.line("%s.view([-1, 1, %d, %d])", s.concat(parts...), side, side)
}

func (s *script) farthest(c compared) string { return s.line("torch.amax(%s, [1])", c.distance) }

func (s *script) rarity(c compared, bank rows, b int) string {
	at := s.line("torch.argmax(%s, 1, True)", c.distance) // B x 1
	patch := s.line("torch.gather(%s, 1, %s.unsqueeze(2).expand([-1, 1, %d]))", c.patches, at, bank.D)
	row := s.line("torch.gather(%s, 1, %s).flatten()", c.row, at)
	own := s.line("torch.index_select(%s, 0, %s)", s.attribute(bank.patches), row)
	near := s.line("torch.topk(%s, %d, 1, False)[1]", s.apart(own, bank), b) // B x b
	around := s.line("torch.index_select(%s, 0, %s.flatten()).view([-1, %d, %d])", s.attribute(bank.patches), near, b, bank.D)
	lengths := s.line("torch.sqrt(torch.sum((%s - %s) * (%s - %s), [2]))", around, patch, around, patch)
	return s.line("1.0 - torch.select(torch.softmax(%s, 1), 1, 0)", lengths) // less the share of the nearest row itself
}

func (s *script) finish(x, score string, m *Model) {
	x = s.line("torch.squeeze(%s, 1)", x)
	if score == "" {
		score = s.line("torch.amax(%s, [1, 2])", x)
	}
	// Not a number in the text: the comparison must be of two float32.
	limit := s.attribute(float32s("threshold", []float32{m.Threshold}))
	anomalous := s.line("%s > %s", score, limit)
	normalised := s.line("torch.relu(%s) / (torch.relu(%s) + %s)", score, score, limit)
	if !(m.Threshold > 0) { // no scale: 0.5 up to the threshold, 1 above it
		normalised = s.line("%s.float() * 0.5 + 0.5", anomalous)
	}
	fmt.Fprintf(&s.text, "    return (%s, %s, %s, %s)\n", score, x, normalised, anomalous)
}
