package server

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
)

// The Open Inference Protocol V2 in JSON, with the extensions for binary data and the repository of models. A body of the
// binary extension is a JSON header, whose length a field of the HTTP header tells, and after it the tensors' bytes.

// headerLength is the HTTP header field with the length of the JSON, in bytes.
const headerLength = "Inference-Header-Content-Length"

// Datatypes of tensors, by the protocol's names.
const (
	typeUint8   = "UINT8"
	typeBytes   = "BYTES"
	typeBool    = "BOOL"
	typeFloat32 = "FP32"
	typeFloat64 = "FP64"
)

// inputName is the one input of every model.
const inputName = "image"

// The outputs of every model.
const (
	outScore      = "score"
	outNormalised = "normalised"
	outAnomalous  = "anomalous"
	outPValue     = "p_value"
	outMap        = "map"
)

// v2Tensor is a tensor in a request's or an answer's JSON.
type v2Tensor struct {
	Name       string          `json:"name"`
	Shape      []int64         `json:"shape"`
	Datatype   string          `json:"datatype"`
	Parameters v2Parameters    `json:"parameters,omitzero"`
	Data       json.RawMessage `json:"data,omitempty"`
}

// v2Parameters are those parameters, of requests and tensors, that mean something here. Others are ignored.
type v2Parameters struct {
	BinarySize   *int64 `json:"binary_data_size,omitempty"` // of a tensor in the binary part, bytes
	Binary       *bool  `json:"binary_data,omitempty"`      // an output shall be in the binary part
	BinaryOutput *bool  `json:"binary_data_output,omitempty"`
}

// v2Request is the JSON of POST /v2/models/{model}/infer.
type v2Request struct {
	ID         string
	Parameters v2Parameters
	Inputs     []v2Tensor
	Outputs    []v2Output

	pictures []picture
	wishes   wishes
}

type v2Output struct {
	Name       string
	Parameters v2Parameters
}

// binary says whether an output shall be in the binary part.
func (r *v2Request) binary(o v2Output) bool {
	if o.Parameters.Binary != nil {
		return *o.Parameters.Binary
	}
	return r.Parameters.BinaryOutput != nil && *r.Parameters.BinaryOutput
}

// v2Limits bound what a request may ask for.
type v2Limits struct {
	images    int
	maxPixels int64 // of one image
}

func refuse(format string, args ...any) error { return failf(http.StatusBadRequest, format, args...) }

// parseV2 reads a request. length is the HTTP header field headerLength, "" where there is none. Pixels and encoded images
// may share memory with body. No length is believed before it has been compared with what is there.
func parseV2(body []byte, length string, limits v2Limits) (*v2Request, error) {
	text, tail := body, []byte(nil)
	if length != "" {
		n, err := strconv.ParseUint(length, 10, 63)
		if err != nil || n > uint64(len(body)) {
			return nil, refuse("%s %.40q: use the length of the JSON, at most the body's %d bytes", headerLength, length, len(body))
		}
		text, tail = body[:n], body[n:]
	}
	var r v2Request
	if err := r.read(newScanner(text)); errors.As(err, new(*failure)) {
		return nil, err
	} else if err != nil {
		return nil, refuse("the body is not a request of the V2 protocol: %w", err)
	}
	if len(r.Inputs) != 1 {
		return nil, errInputs()
	}
	in := &r.Inputs[0]
	var data elements = jsonElements{in.Data, in.Shape}
	if size := in.Parameters.BinarySize; size != nil {
		if *size != int64(len(tail)) {
			return nil, refuse("binary_data_size is %d, and %d bytes follow the JSON", *size, len(tail))
		}
		if in.Data != nil {
			return nil, refuse("the input has both data and binary_data_size; send one of them")
		}
		data = rawElements(tail)
	} else if len(tail) > 0 {
		return nil, refuse("%d bytes follow the JSON, and no input has a binary_data_size", len(tail))
	}
	var err error
	r.pictures, err = in.pictures(data, limits)
	in.Data = nil
	return &r, err
}

// What a request's JSON may hold of each, beside the data of its input.
const (
	maxWord       = 1024 // bytes of a string
	maxKeys       = 256  // of an object
	maxDimensions = 8
)

func errInputs() error { return refuse("there must be one input, named %q", inputName) }

// read takes the JSON apart, and stops at the first thing that is not wanted.
func (r *v2Request) read(s *scanner) error {
	err := fields(s, map[string]func() error{
		"id": func() (err error) { r.ID, err = s.word(maxWord); return err },
		"parameters": func() error {
			return r.Parameters.read(s, func(name, value string) error { _, err := r.wishes.set(name, value); return err })
		},
		"inputs": func() error {
			return s.array(func() error {
				if len(r.Inputs) == 1 {
					return errInputs()
				}
				var t v2Tensor
				if err := t.read(s); err != nil {
					return err
				}
				r.Inputs = append(r.Inputs, t)
				return nil
			})
		},
		"outputs": func() error {
			return s.array(func() error {
				var o v2Output
				err := fields(s, map[string]func() error{
					"name":       func() (err error) { o.Name, err = s.word(maxWord); return err },
					"parameters": func() error { return o.Parameters.read(s, nil) },
				})
				if err != nil {
					return err
				}
				r.Outputs = append(r.Outputs, o)
				return r.checkOutput()
			})
		},
	})
	if err != nil {
		return err
	}
	return s.end()
}

// fields reads an object. Keys without a reader are skipped, null is as good as nothing.
func fields(s *scanner, readers map[string]func() error) error {
	seen := map[string]bool{}
	keys := 0
	return s.object(func(key []byte) error {
		name := ""
		if len(key) < maxWord {
			name = unquote(key)
		}
		read := readers[name]
		keys++
		switch {
		case keys > maxKeys:
			return refuse("an object has more than %d keys; leave out what is not needed", maxKeys)
		case read == nil:
			_, err := s.skip()
			return err
		case seen[name]:
			return refuse("%q is there twice; send it once", name)
		}
		seen[name] = true
		if s.literal("null") {
			return nil
		}
		return read()
	})
}

// read reads a tensor. It keeps the data as they are written.
func (t *v2Tensor) read(s *scanner) error {
	err := fields(s, map[string]func() error{
		"name":       func() (err error) { t.Name, err = s.word(maxWord); return err },
		"datatype":   func() (err error) { t.Datatype, err = s.word(maxWord); return err },
		"parameters": func() error { return t.Parameters.read(s, nil) },
		"data":       func() (err error) { t.Data, err = s.skip(); return err },
		"shape": func() error {
			return s.array(func() error {
				n, err := whole(s)
				if err != nil {
					return err
				}
				return t.grow(n)
			})
		},
	})
	if err == nil && t.Name != inputName {
		return errInputs()
	}
	return err
}

// grow adds a dimension to the shape.
func (t *v2Tensor) grow(n int64) error {
	if len(t.Shape) == maxDimensions {
		return refuse("the shape has more than %d dimensions; use [H, W, 3] or [B, H, W, 3] for pixels, [B] for image files", maxDimensions)
	}
	t.Shape = append(t.Shape, n)
	return nil
}

// whole reads a whole number.
func whole(s *scanner) (int64, error) {
	written, err := s.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(written[:min(len(written), 40)]), 10, 64)
	if err != nil {
		return 0, refuse("%.40q: use a whole number of 64 bits", written)
	}
	return n, nil
}

// v2Wishes are the wishes among a request's parameters.
var v2Wishes = []string{"false_alarm", "threshold", "pixel_threshold", "region_low", "min_area", "min_length"}

// read reads parameters. wish takes those that are wishes, nil where there may be none.
func (p *v2Parameters) read(s *scanner, wish func(name, value string) error) error {
	flag := func(to **bool) func() error {
		return func() error {
			value := s.literal("true")
			if !value && !s.literal("false") {
				return s.fail("neither true nor false")
			}
			*to = &value
			return nil
		}
	}
	readers := map[string]func() error{
		"binary_data":        flag(&p.Binary),
		"binary_data_output": flag(&p.BinaryOutput),
		"binary_data_size": func() error {
			n, err := whole(s)
			p.BinarySize = &n
			return err
		},
	}
	for _, name := range v2Wishes {
		if wish == nil {
			break
		}
		readers[name] = func() error {
			if s.peek() == '"' { // some clients send numbers as text
				value, err := s.word(maxWord)
				if err != nil {
					return err
				}
				return wish(name, value)
			}
			written, err := s.number()
			if err != nil {
				return err
			}
			return wish(name, string(written[:min(len(written), maxWord)]))
		}
	}
	return fields(s, readers)
}

// checkOutput checks the output that was read last.
func (r *v2Request) checkOutput() error {
	known := []string{outScore, outNormalised, outAnomalous, outPValue, outMap}
	before, name := r.Outputs[:len(r.Outputs)-1], r.Outputs[len(r.Outputs)-1].Name
	if !slices.Contains(known, name) {
		return refuse("output %.40q is unknown; there are %q", name, known)
	}
	if slices.ContainsFunc(before, func(o v2Output) bool { return o.Name == name }) {
		return refuse("output %q is asked for twice", name)
	}
	return nil
}

// elements are those of an input tensor, in one of the ways that clients send them. Both methods take how many the shape
// says that there are, and believe that no further than what is there.
type elements interface {
	bytes(count int64) ([]byte, error)    // of UINT8; it may return another number of them
	files(count int64) ([]picture, error) // of BYTES
}

// pictures takes the input apart.
func (t *v2Tensor) pictures(data elements, limits v2Limits) ([]picture, error) {
	count := int64(1) // of elements
	for _, n := range t.Shape {
		if n < 1 || n > math.MaxInt64/count {
			return nil, refuse("shape %v: every dimension must be 1 or more, and their product fit into 63 bits", t.Shape)
		}
		count *= n
	}
	switch t.Datatype {
	case typeUint8:
		return t.pixels(data, count, limits)
	case typeBytes:
		if len(t.Shape) == 0 || count > int64(limits.images) {
			return nil, refuse("shape %v: use [B], B being 1 to %d images", t.Shape, limits.images)
		}
		return data.files(count)
	}
	return nil, refuse("datatype %.40q: use UINT8 for pixels or BYTES for image files", t.Datatype)
}

// pixels reads B x H x W x 3 or H x W x 3 values, RGB.
func (t *v2Tensor) pixels(data elements, count int64, limits v2Limits) ([]picture, error) {
	shape := t.Shape
	if len(shape) == 3 {
		shape = append([]int64{1}, shape...)
	}
	if len(shape) != 4 || shape[3] != 3 {
		return nil, refuse("shape %v: pixels must be [H, W, 3] or [B, H, W, 3]", t.Shape)
	}
	B, H, W := shape[0], shape[1], shape[2]
	switch {
	case B > int64(limits.images):
		return nil, refuse("%d images in one request, the limit is %d; send fewer", B, limits.images)
	case H*W > limits.maxPixels:
		return nil, refuse("images of %d x %d pixels, the limit is %d pixels: raise --max-pixels to accept them", W, H, limits.maxPixels)
	}
	values, err := data.bytes(count)
	if err != nil {
		return nil, err
	}
	if int64(len(values)) != count {
		return nil, refuse("shape %v needs %d bytes, got %d", t.Shape, count, len(values))
	}
	pictures := make([]picture, B)
	size := int(3 * H * W)
	for i := range pictures {
		pictures[i].pixels = &imagefile.Image{W: int(W), H: int(H), Pix: values[i*size:][:size:size]}
	}
	return pictures, nil
}

// jsonElements are elements as valid JSON has them.
type jsonElements struct {
	data  json.RawMessage
	shape []int64
}

// bytes reads an array of numbers, or arrays within arrays, which have to be of the shape: pixels by channels would have the
// same number of values.
func (e jsonElements) bytes(count int64) ([]byte, error) {
	data, shape := e.data, e.shape
	nested := func() error {
		return refuse("the data's arrays within arrays are not of shape %v; send them so, or all values in one array", e.shape)
	}
	inside := make([]int64, 0, maxDimensions) // how many elements each of the open arrays has so far
	depth := 0                                // of the numbers; 0: none yet
	// A number and what divides it from the next take two bytes.
	if count > int64(len(data)) {
		return nil, refuse("the shape needs %d numbers, and the data of %d bytes cannot hold them", count, len(data))
	}
	pixels := make([]byte, 0, count)
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c >= '0' && c <= '9':
			value := 0
			for ; i < len(data) && data[i] >= '0' && data[i] <= '9' && value < 256; i++ {
				value = 10*value + int(data[i]-'0')
			}
			i--
			if value > 255 || int64(len(pixels)) == count {
				return nil, refuse("the data must be %d whole numbers of 0 to 255", count)
			}
			pixels = append(pixels, byte(value))
			if depth == 0 {
				if depth = len(inside); depth == len(shape)-1 && shape[0] == 1 { // without the batch
					shape = shape[1:]
				}
			}
			if len(inside) != depth || depth != 1 && depth != len(shape) {
				return nil, nested()
			}
			inside[depth-1]++
		case c == '[':
			if len(inside) > 0 {
				inside[len(inside)-1]++
			}
			if inside = append(inside, 0); len(inside) > len(e.shape) || depth > 0 && len(inside) > depth {
				return nil, nested()
			}
		case c == ']':
			last := len(inside) - 1
			if depth > 1 && inside[last] != shape[last] {
				return nil, nested()
			}
			inside = inside[:last]
		case c == ',' || c == ' ' || c == '\n' || c == '\t' || c == '\r':
		default:
			return nil, refuse("the data must be whole numbers of 0 to 255, got %.20q", data[i:])
		}
	}
	return pixels, nil
}

// files reads an array of image files in base64.
func (e jsonElements) files(count int64) ([]picture, error) {
	var pictures []picture
	s := scanner{text: e.data}
	err := s.array(func() error {
		if int64(len(pictures)) == count {
			return refuse("the shape needs %d image files, and there are more", count)
		}
		var file []byte
		if !s.literal("null") {
			written, err := s.quoted()
			if err != nil {
				return err
			}
			if file, err = decodeBase64(written); err != nil {
				return err
			}
		}
		pictures = append(pictures, picture{encoded: file})
		return nil
	})
	switch {
	case errors.As(err, new(*failure)):
		return nil, err
	case err != nil:
		return nil, refuse("the data must be an array of image files in base64: %w", err)
	case int64(len(pictures)) < count:
		return nil, refuse("the shape needs %d image files, got %d", count, len(pictures))
	}
	return pictures, nil
}

// decodeBase64 reads a JSON string of base64.
func decodeBase64(written []byte) ([]byte, error) {
	text := written[1 : len(written)-1]
	if bytes.IndexByte(text, '\\') >= 0 { // some clients escape slashes
		text = []byte(unquote(written))
	}
	file := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(file, text)
	return file[:n], err
}

// rawElements are elements as the extension for binary data has them.
type rawElements []byte

func (data rawElements) bytes(int64) ([]byte, error) { return data, nil }

// files takes apart image files, each after its length in 4 bytes, little-endian.
func (data rawElements) files(count int64) ([]picture, error) {
	var pictures []picture
	for range count {
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			return nil, refuse("image file %d: its length is cut off, or is more than the bytes that follow", len(pictures)+1)
		}
		end := 4 + int(binary.LittleEndian.Uint32(data))
		pictures = append(pictures, picture{encoded: data[4:end:end]})
		data = data[end:]
	}
	if len(data) > 0 {
		return nil, refuse("%d bytes are left after %d image files", len(data), count)
	}
	return pictures, nil
}

// chooseOutputs puts in all outputs but the map where none were asked for.
func (r *v2Request) chooseOutputs(c *rdpp.Calibration) error {
	calibrated := c.PValue(0) != nil
	if len(r.Outputs) == 0 {
		r.Outputs = []v2Output{{Name: outScore}, {Name: outNormalised}, {Name: outAnomalous}}
		if calibrated {
			r.Outputs = append(r.Outputs, v2Output{Name: outPValue})
		}
	}
	if !calibrated && slices.ContainsFunc(r.Outputs, func(o v2Output) bool { return o.Name == outPValue }) {
		return refuse("the model is not calibrated, so it has no %s; train with --calibration", outPValue)
	}
	return nil
}

// v2Answer is the JSON of an answer.
type v2Answer struct {
	ModelName    string     `json:"model_name"`
	ModelVersion string     `json:"model_version"`
	ID           string     `json:"id,omitempty"`
	Outputs      []v2Tensor `json:"outputs"`
	Parameters   v2Said     `json:"parameters,omitzero"`
}

// v2Said are the parameters of an answer.
type v2Said struct {
	Warnings string `json:"warnings,omitempty"` // of images that are unlike those of training
}

// said gathers the results' warnings, each behind its image's number.
func said(results []*rdpp.Result) (s v2Said) {
	var all []string
	for i, r := range results {
		for _, w := range r.Warnings {
			all = append(all, fmt.Sprintf("image %d: %s", i+1, w))
		}
	}
	s.Warnings = strings.Join(all, "; ")
	return s
}

// encode is the answer to a request: its JSON, and the binary part.
func (r *v2Request) encode(model string, version int, results []*rdpp.Result) (text, tail []byte, err error) {
	a := v2Answer{ModelName: model, ModelVersion: strconv.Itoa(version), ID: r.ID, Parameters: said(results)}
	for _, o := range r.Outputs {
		t, values, err := output(o.Name, results)
		if err != nil {
			return nil, nil, err
		}
		if r.binary(o) {
			data := littleEndian(values)
			t.Parameters.BinarySize = new(int64(len(data)))
			tail = append(tail, data...)
		} else if t.Data, err = json.Marshal(values); err != nil {
			return nil, nil, fmt.Errorf("server: %w", err)
		}
		a.Outputs = append(a.Outputs, t)
	}
	if text, err = json.Marshal(a); err != nil {
		return nil, nil, fmt.Errorf("server: %w", err)
	}
	return text, tail, nil
}

// output makes a tensor of results, without its data, and its values, which are []float64, []bool or []float32.
func output(name string, results []*rdpp.Result) (t v2Tensor, values any, err error) {
	B := len(results)
	t = v2Tensor{Name: name, Shape: []int64{int64(B)}, Datatype: typeFloat64}
	numbers := func(of func(r *rdpp.Result) float64) []float64 {
		list := make([]float64, B)
		for i, r := range results {
			list[i] = of(r)
		}
		return list
	}
	switch name {
	case outScore:
		values = numbers(func(r *rdpp.Result) float64 { return r.Score })
	case outNormalised:
		values = numbers(func(r *rdpp.Result) float64 { return r.Normalised })
	case outPValue:
		values = numbers(func(r *rdpp.Result) float64 { return *r.PValue })
	case outAnomalous:
		list := make([]bool, B)
		for i, r := range results {
			list[i] = r.Anomalous
		}
		t.Datatype, values = typeBool, list
	case outMap:
		W, H := results[0].MapW, results[0].MapH
		list := make([]float32, 0, B*W*H)
		for _, r := range results {
			if r.MapW != W || r.MapH != H {
				return t, nil, failf(http.StatusBadRequest, "images of different sizes have maps of different sizes, %d x %d and %d x %d; ask for them one by one",
					W, H, r.MapW, r.MapH)
			}
			list = append(list, r.Map...)
		}
		t.Datatype, t.Shape, values = typeFloat32, []int64{int64(B), int64(H), int64(W)}, list
	}
	return t, values, nil
}
