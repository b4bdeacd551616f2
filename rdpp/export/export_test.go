package export

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"rdpp/rdpp/onnxfile"
	"rdpp/rdpp/weights"
)

// state builds state dicts of the right names and of few channels.
type state struct{ tensors []weights.Source }

// add adds a tensor whose elements are 1/8, 2/8 and so on.
func (s *state) add(name string, shape ...int) {
	values := make([]float32, weights.Tensor{Shape: shape}.Len())
	for i := range values {
		values[i] = float32(i+1) / 8
	}
	s.tensors = append(s.tensors, float32s(name, values, shape...))
}

func (s *state) convNorm(conv, norm string, channels int, weight ...int) {
	s.add(conv+".weight", weight...)
	for _, entry := range []string{".weight", ".bias", ".running_mean", ".running_var"} {
		s.add(norm+entry, channels)
	}
}

// stage adds two blocks, the first with a shortcut where that has a name.
func (s *state) stage(name string, deep, up bool, shortcut string) {
	for i := range 2 {
		block := fmt.Sprintf("%s.%d", name, i)
		for j := range 3 {
			kernel := 3
			switch {
			case j == 2 && !deep:
				continue
			case deep && j != 1:
				kernel = 1
			case up && i == 0 && j == map[bool]int{false: 0, true: 1}[deep]:
				kernel = 2
			}
			s.convNorm(fmt.Sprintf("%s.conv%d", block, j+1), fmt.Sprintf("%s.bn%d", block, j+1), 4, 4, 4, kernel, kernel)
		}
		if i == 0 && shortcut != "" {
			s.convNorm(block+"."+shortcut+".0", block+"."+shortcut+".1", 4, 4, 4, 1, 1)
		}
	}
}

// smallModel is of the family of resnet18, or deep, of that of resnet50.
func smallModel(deep, projected bool) *Model {
	var s state
	s.convNorm("encoder.conv1", "encoder.bn1", 4, 4, 3, 7, 7)
	for k := range scales {
		shortcut := "downsample"
		if k == 0 && !deep {
			shortcut = ""
		}
		s.stage(fmt.Sprintf("encoder.layer%d", k+1), deep, false, shortcut)
	}
	if projected {
		for _, letter := range "abc" {
			for i := 0; i < 12; i += 3 {
				name := fmt.Sprintf("proj.proj_%c.proj.%d", letter, i)
				s.add(name+".weight", 4, 4, 3, 3)
				s.add(name+".bias", 4)
			}
		}
	}
	for _, i := range "123" {
		s.convNorm("bn.conv"+string(i), "bn.bn"+string(i), 4, 4, 4, 3, 3)
	}
	s.convNorm("bn.conv4", "bn.bn4", 4, 4, 4, 1, 1) // in every checkpoint, and not used
	s.stage("bn.bn_layer", deep, false, "downsample")
	for k := range scales {
		s.stage(fmt.Sprintf("decoder.layer%d", k+1), deep, true, "upsample")
	}
	return &Model{Tensors: s.tensors, Size: 64, Mean: [3]float32{0.1, 0.2, 0.3}, Std: [3]float32{1, 2, 3}, Sigma: 1,
		Threshold: 0.5, Producer: "test", Version: "1", Metadata: map[string]string{"b": "zwei", "a": "1"}}
}

// field is a field of an encoded message: a number, or bytes.
type field struct {
	number int64
	data   []byte
}

// fields decodes a message.
func fields(t *testing.T, data []byte) map[protowire.Number][]field {
	t.Helper()
	all := map[protowire.Number][]field{}
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			t.Fatalf("got a damaged tag: %v", protowire.ParseError(n))
		}
		data = data[n:]
		var f field
		switch kind {
		case protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(data)
			f.number = int64(v)
		case protowire.Fixed32Type:
			_, n = protowire.ConsumeFixed32(data)
		case protowire.BytesType:
			f.data, n = protowire.ConsumeBytes(data)
		default:
			t.Fatalf("got field %d of kind %d, want a kind that ONNX files have", number, kind)
		}
		if n < 0 {
			t.Fatalf("field %d: got damaged content: %v", number, protowire.ParseError(n))
		}
		all[number] = append(all[number], f)
		data = data[n:]
	}
	return all
}

func first(t *testing.T, data []byte, number protowire.Number) field {
	t.Helper()
	f := fields(t, data)[number]
	if len(f) == 0 {
		t.Fatalf("got no field %d, want one", number)
	}
	return f[0]
}

// onnx returns the fields of the model, and those of its graph.
func onnx(t *testing.T, m *Model, in Input) (model, graph map[protowire.Number][]field) {
	t.Helper()
	var file bytes.Buffer
	if err := m.ONNX(&file, in); err != nil {
		t.Fatal(err)
	}
	model = fields(t, file.Bytes())
	return model, fields(t, model[onnxfile.ModelGraph][0].data)
}

func TestONNX(t *testing.T) {
	// Convolutions of teacher, bottleneck, student and blur.
	const shallow, deep, projection = 15 + 8 + 9 + 2, 22 + 10 + 15 + 2, 12
	for _, c := range []struct {
		name            string
		deep, projected bool
		in              Input
		input           string
		convolutions    int
	}{
		{"shallow", false, true, Pixels, NamePixels, shallow + projection},
		{"deep", true, true, Pixels, NamePixels, deep + projection},
		{"baseline", false, false, Pixels, NamePixels, shallow},
		{"planes", false, true, Planes, NamePlanes, shallow + projection},
	} {
		t.Run(c.name, func(t *testing.T) {
			model, graph := onnx(t, smallModel(c.deep, c.projected), c.in)
			if got := model[onnxfile.ModelIRVersion][0].number; got != 8 {
				t.Errorf("got IR version %d, want 8", got)
			}
			if got := first(t, model[onnxfile.ModelOpset][0].data, onnxfile.OpsetVersion).number; got != 17 {
				t.Errorf("got opset %d, want 17", got)
			}
			var metadata []string
			for _, entry := range model[onnxfile.ModelMetadata] {
				key, value := first(t, entry.data, onnxfile.EntryKey).data, first(t, entry.data, onnxfile.EntryValue).data
				metadata = append(metadata, fmt.Sprintf("%s=%s", key, value))
			}
			if want := []string{"a=1", "b=zwei"}; !slices.Equal(metadata, want) {
				t.Errorf("got metadata %q, want %q", metadata, want)
			}
			if got := string(first(t, graph[onnxfile.GraphInput][0].data, onnxfile.ValueName).data); got != c.input || len(graph[onnxfile.GraphInput]) != 1 {
				t.Errorf("got input %q of %d, want %q alone", got, len(graph[onnxfile.GraphInput]), c.input)
			}
			counts := checkGraph(t, graph)
			if got := counts["Conv"]; got != c.convolutions {
				t.Errorf("got %d convolutions, want %d", got, c.convolutions)
			}
			if got := counts["ConvTranspose"]; got != 6 {
				t.Errorf("got %d transposed convolutions, want 6", got)
			}
		})
	}
}

// checkGraph checks that every value has one name and is there before its use, and counts the operations.
func checkGraph(t *testing.T, graph map[protowire.Number][]field) (counts map[string]int) {
	t.Helper()
	uses := map[string]int{} // by name of a value that is there
	declare := func(name string) {
		if _, found := uses[name]; found {
			t.Errorf("got two values named %q", name)
		}
		uses[name] = 0
	}
	for _, input := range graph[onnxfile.GraphInput] {
		declare(string(first(t, input.data, onnxfile.ValueName).data))
	}
	for _, tensor := range graph[onnxfile.GraphInitializer] {
		declare(string(first(t, tensor.data, onnxfile.TensorName).data))
		size := map[int64]int{onnxfile.ElementFloat: 4, onnxfile.ElementInt64: 8}[first(t, tensor.data, onnxfile.TensorType).number]
		for _, d := range fields(t, tensor.data)[onnxfile.TensorDims] {
			size *= int(d.number)
		}
		if got := len(first(t, tensor.data, onnxfile.TensorRaw).data); got != size {
			t.Errorf("%s: got %d bytes, want %d", first(t, tensor.data, onnxfile.TensorName).data, got, size)
		}
	}
	counts = map[string]int{}
	for _, node := range graph[onnxfile.GraphNode] {
		f := fields(t, node.data)
		counts[string(f[onnxfile.NodeOp][0].data)]++
		for _, input := range f[onnxfile.NodeInput] {
			name := string(input.data)
			if _, found := uses[name]; !found && name != "" {
				t.Errorf("%s: got input %q, which is not there", f[onnxfile.NodeName][0].data, name)
			}
			uses[name]++
		}
		declare(string(f[onnxfile.NodeOutput][0].data))
	}
	for _, output := range graph[onnxfile.GraphOutput] {
		name := string(first(t, output.data, onnxfile.ValueName).data)
		if _, found := uses[name]; !found {
			t.Errorf("got no output %q, want one", name)
		}
		uses[name]++
	}
	for name, n := range uses {
		if n == 0 {
			t.Errorf("got %q, which nothing uses", name)
		}
	}
	return counts
}

// constant returns a constant's data.
func constant(t *testing.T, graph map[protowire.Number][]field, name string) []byte {
	t.Helper()
	for _, tensor := range graph[onnxfile.GraphInitializer] {
		if string(first(t, tensor.data, onnxfile.TensorName).data) == name {
			return first(t, tensor.data, onnxfile.TensorRaw).data
		}
	}
	t.Fatalf("got no constant %q, want one", name)
	return nil
}

func TestBlur(t *testing.T) {
	_, graph := onnx(t, smallModel(false, false), Planes)
	var mirrored []int64
	for data := constant(t, graph, "blur.mirrored"); len(data) > 0; data = data[8:] {
		mirrored = append(mirrored, int64(binary.LittleEndian.Uint64(data)))
	}
	want := []int64{3, 2, 1, 0}
	for i := range int64(64) {
		want = append(want, i)
	}
	want = append(want, 63, 62, 61, 60)
	if !slices.Equal(mirrored, want) {
		t.Errorf("got rows %v, want %v", mirrored, want)
	}
	kernel := weights.Tensor{DType: weights.F32, Data: constant(t, graph, "blur.rows.weight")}.Float64()
	// exp(-k*k/2) over the sum of the nine
	wantKernel := []float64{0.0001338306, 0.0044318616, 0.0539911274, 0.2419714457, 0.3989434694}
	for i, v := range kernel {
		if want := wantKernel[min(i, 8-i)]; math.Abs(v-want) > 5e-8 {
			t.Errorf("kernel %d: got %v, want %v", i, v, want)
		}
	}
}

func TestFold(t *testing.T) {
	n := norms{eps: normEps, weight: float32s("weight", []float32{2, 3}, 2), bias: float32s("bias", []float32{1, -1}, 2),
		mean: float32s("mean", []float32{0.5, 4}, 2), variance: float32s("variance", []float32{1 - normEps, 4 - normEps}, 2)}
	for _, c := range []struct {
		what       string
		transposed bool
		shape      []int
		want       []float64
	}{
		// Scales are 2/1 and 3/2, shifts 1 - 0.5*2 and -1 - 4*1.5.
		{"plain", false, []int{2, 3, 1, 1}, []float64{2, 4, 6, 6, 7.5, 9}},
		{"transposed", true, []int{1, 2, 3, 1}, []float64{2, 4, 6, 6, 7.5, 9}},
		{"transposed, inputs outside", true, []int{3, 2, 1, 1}, []float64{2, 3, 6, 6, 10, 9}},
	} {
		w, b := fold(float32s("w", []float32{1, 2, 3, 4, 5, 6}, c.shape...), n, c.transposed)
		for _, part := range []struct {
			tensor weights.Source
			want   []float64
		}{{w, c.want}, {b, []float64{0, -7}}} {
			values, err := read(part.tensor)
			if err != nil {
				t.Fatal(err)
			}
			for i, got := range values {
				if len(values) != len(part.want) || math.Abs(float64(got)-part.want[i]) > 1e-5 {
					t.Errorf("%s: got %s %v, want %v", c.what, part.tensor.Name, values, part.want)
					break
				}
			}
		}
	}
}

func TestTorchScript(t *testing.T) {
	for _, in := range []Input{Pixels, Planes} {
		s, err := smallModel(true, true).TorchScript(in)
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{NamePixels: in == Pixels, NamePlanes: in == Planes}
		for _, a := range s.Attributes {
			if !regexp.MustCompile(`^[a-z]\w*$`).MatchString(a.Name) || there["self."+a.Name] {
				t.Errorf("got attribute %q, want a name that is new", a.Name)
			}
			there["self."+a.Name] = true
			if !regexp.MustCompile(`self\.` + a.Name + `\b`).MatchString(s.Source) {
				t.Errorf("got attribute %q, which nothing uses", a.Name)
			}
		}
		lines := strings.Split(strings.TrimSpace(s.Source), "\n")
		for _, line := range lines[1:] {
			name, expression, isLine := strings.Cut(strings.TrimSpace(line), " = ")
			for _, value := range regexp.MustCompile(`\b(self\.\w+|x\d+|pixels|images)\b`).FindAllString(expression, -1) {
				if !there[value] {
					t.Errorf("%s: got %q, which is not there", line, value)
				}
			}
			there[name] = isLine
		}
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "    return (") {
			t.Errorf("got the last line %q, want a return", last)
		}
	}
}

func TestErrors(t *testing.T) {
	at := func(m *Model, name string) *weights.Source {
		i := slices.IndexFunc(m.Tensors, func(t weights.Source) bool { return t.Name == name })
		return &m.Tensors[i]
	}
	errLost := errors.New("lost")
	for _, c := range []struct {
		what   string
		change func(m *Model)
		want   string
	}{
		{"no bias", func(m *Model) { at(m, "decoder.layer3.1.bn2.bias").Name = "x" }, "decoder.layer3.1.bn2.bias is missing"},
		{"no tensors", func(m *Model) { m.Tensors = nil }, "encoder.conv1.weight is missing"},
		{"integers", func(m *Model) { at(m, "bn.conv1.weight").DType = weights.I64 }, "bn.conv1.weight has elements of type I64"},
		{"a flat weight", func(m *Model) { at(m, "bn.conv1.weight").Shape = []int{144} }, "bn.conv1.weight has shape [144]"},
		{"a short norm", func(m *Model) { at(m, "bn.bn1.bias").Shape = []int{3} }, "bn.bn1.bias has 3 values; 4 are needed"},
		{"a short bias", func(m *Model) { at(m, "proj.proj_c.proj.9.bias").Shape = []int{3} }, "proj.9.bias has 3 values"},
		{"side", func(m *Model) { m.Size = 65 }, "side of 65 pixels"},
		{"sigma", func(m *Model) { m.Sigma = math.NaN() }, "sigma of NaN"},
		{"weights", func(m *Model) { m.Weights[4] = -1 }, "weights [0 0 0 0 -1 0] of the map's terms"},
		{"levels", func(m *Model) { m.Levels[1] = math.Inf(1) }, "levels [0 +Inf 0 0 0 0] of the map's terms"},
		{"a tiny level", func(m *Model) { m.Levels[1] = 1e-300 }, "of the map's terms; use 0, or 1e-05 and more"},
		{"weight", func(m *Model) { m.Weights[0] = math.NaN() }, "of the map's terms"},
		{"deviation", func(m *Model) { m.Std[1] = 0 }, "standard deviations"},
		{"threshold", func(m *Model) { m.Threshold = float32(math.NaN()) }, "threshold"},
	} {
		m := smallModel(false, true)
		c.change(m)
		_, script := m.TorchScript(Pixels)
		for format, err := range map[string]error{"onnx": m.ONNX(io.Discard, Pixels), "torchscript": script} {
			if err == nil || !strings.HasPrefix(err.Error(), "export: "+format+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got error %v, want one with %q", c.what, err, c.want)
			}
		}
	}
	for what, name := range map[string]string{"weight": "encoder.conv1.weight", "norm": "encoder.bn1.running_var",
		"bias": "proj.proj_a.proj.0.bias"} {
		m := smallModel(false, true)
		at(m, name).Bytes = func() ([]byte, error) { return nil, errLost }
		if err := m.ONNX(io.Discard, Pixels); !errors.Is(err, errLost) || !strings.Contains(err.Error(), name) {
			t.Errorf("a lost %s: got error %v, want %v of %s", what, err, errLost, name)
		}
		at(m, name).Bytes = func() ([]byte, error) { return make([]byte, 3), nil }
		if err := m.ONNX(io.Discard, Pixels); err == nil || !strings.Contains(err.Error(), name+" was given 3 bytes") {
			t.Errorf("a short %s: got error %v, want one about %s", what, err, name)
		}
	}
}

// A bank is of the teacher that it is exported with.
func TestBankErrors(t *testing.T) {
	for _, c := range []struct {
		deep       bool
		count, D   int // of the bank
		dimensions int // of a patch; 0: 4 channels of layer2 and 4 of layer3
		want       string
	}{
		{false, 3, 8, 0, ""}, {true, 3, 8, 0, ""}, {false, 3, 6, 6, ""},
		{false, 3, 7, 0, "bank.patches has shape [3 7]; at least one row of 8 is needed"},
		{true, 8, 3, 0, "bank.patches has shape [8 3]; at least one row of 8 is needed"},
		{false, 3, 8, 6, "bank.patches has shape [3 8]; at least one row of 6 is needed"},
		{false, 0, 8, 0, "bank.patches has shape [0 8]; at least one row of 8 is needed"},
		{false, 3, 7, 7, "patches of 7 dimensions"},
	} {
		m := smallModel(c.deep, false)
		s := state{m.Tensors}
		s.add("bank.patches", c.count, c.D)
		m.Tensors, m.Bank = s.tensors, &Bank{Dimensions: c.dimensions, Neighbours: 2}
		_, script := m.TorchScript(Planes)
		for format, err := range map[string]error{"onnx": m.ONNX(io.Discard, Planes), "torchscript": script} {
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %s: got error %v, want one with %q", c, format, err, c.want)
			}
		}
	}
}

// Descriptor and bank are of the teacher that they are exported with.
func TestSpheresErrors(t *testing.T) {
	const channels = 4 * scales // of smallModel's features
	for _, c := range []struct {
		deep                    bool
		D, seen, rows, of, near int // of the descriptor, what it sees, and the bank
		want                    string
	}{
		{false, 3, channels + 2, 5, 3, 3, ""}, {true, 3, channels + 2, 5, 3, 5, ""},
		{false, 3, channels, 5, 3, 3, "descriptor.conv.weight has shape [3 12 1 1]; [D 14 1 1] is needed"},
		{false, 3, channels + 2, 5, 4, 3, "descriptor.centres has shape [5 4]; at least 3 rows of 3 are needed"},
		{false, 3, channels + 2, 5, 3, 6, "at least 6 rows of 3 are needed"}, {false, 3, channels + 2, 5, 3, 0, "the nearest 0 rows"},
	} {
		m := smallModel(c.deep, false)
		s := state{m.Tensors}
		s.add("descriptor.conv.weight", c.D, c.seen, 1, 1)
		s.add("descriptor.conv.bias", c.D)
		s.add("descriptor.centres", c.rows, c.of)
		m.Tensors, m.Spheres = s.tensors, &Spheres{Near: c.near}
		_, script := m.TorchScript(Planes)
		for format, err := range map[string]error{"onnx": m.ONNX(io.Discard, Planes), "torchscript": script} {
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %s: got error %v, want one with %q", c, format, err, c.want)
			}
		}
	}
}

// full is a writer that takes nothing.
type full struct{ error }

func (f full) Write([]byte) (int, error) { return 0, f.error }

func TestONNXDoesNotFit(t *testing.T) {
	errFull := errors.New("full")
	if err := smallModel(false, true).ONNX(full{errFull}, Pixels); !errors.Is(err, errFull) {
		t.Errorf("got error %v, want %v", err, errFull)
	}
	m := smallModel(false, true)
	for i := range m.Tensors {
		if m.Tensors[i].Name == "encoder.layer1.0.conv1.weight" {
			m.Tensors[i].Shape = []int{4, 4, 10000, 10000}
		}
	}
	// Nothing is written, and so nothing is asked for that is not there.
	if err := m.ONNX(full{errFull}, Pixels); err == nil || !strings.Contains(err.Error(), "export to TorchScript") {
		t.Errorf("6.4 GB: got error %v, want one about the format's limit", err)
	}
}
