package server

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"rdpp/infer/server/inference"
	"rdpp/rdpp"
)

// The messages of ModelInfer. A request is taken apart field by field instead of by the generated code: that copies the
// pixels, and makes of a message of many small fields a hundred times as much before anybody can refuse it.

// callRequest is a ModelInferRequest.
type callRequest struct {
	v2Request
	model, version string
	raw            bool // the input came as raw_input_contents, as the outputs shall go
}

var errMessage = errors.New("the message is cut off or damaged")

// field is a field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	bits   uint64 // of a number
	data   []byte // of what has a length
}

// is says whether a field is the one of a number and kind. One of another kind is unknown, as the protocol buffers have it.
func (f *field) is(number protowire.Number, kind protowire.Type) bool {
	return f.number == number && f.kind == kind
}

// text is a field's text.
func (f *field) text() (string, error) {
	switch {
	case len(f.data) > maxWord:
		return "", refuse("a text has %d bytes, of at most %d", len(f.data), maxWord)
	case !utf8.Valid(f.data):
		return "", refuse("a text is not in UTF-8")
	}
	return string(f.data), nil
}

// consume reads a field's value from the front of data, and returns its length, below 0 where it is none.
func (f *field) consume(data []byte) (n int) {
	switch f.kind {
	case protowire.VarintType:
		f.bits, n = protowire.ConsumeVarint(data)
	case protowire.Fixed64Type:
		f.bits, n = protowire.ConsumeFixed64(data)
	case protowire.BytesType:
		f.data, n = protowire.ConsumeBytes(data)
	default:
		n = protowire.ConsumeFieldValue(f.number, f.kind, data)
	}
	return n
}

// eachField hands a message's fields to read, in their order, until it returns an error.
func eachField(data []byte, read func(f *field) error) error {
	for len(data) > 0 {
		var f field
		var n int
		if f.number, f.kind, n = protowire.ConsumeTag(data); n < 0 {
			return errMessage
		}
		data = data[n:]
		if n = f.consume(data); n < 0 {
			return errMessage
		}
		data = data[n:]
		if err := read(&f); err != nil {
			return err
		}
	}
	return nil
}

// numbers hands to read the numbers of a repeated field of varints, which may be packed.
func (f *field) numbers(read func(uint64) error) error {
	if f.kind == protowire.VarintType {
		return read(f.bits)
	}
	for data := f.data; len(data) > 0; {
		value, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return errMessage
		}
		data = data[n:]
		if err := read(value); err != nil {
			return err
		}
	}
	return nil
}

// repeated says whether a field is the repeated one of varints of a number.
func (f *field) repeated(number protowire.Number) bool {
	return f.is(number, protowire.VarintType) || f.is(number, protowire.BytesType)
}

// parseCall reads a ModelInferRequest, and stops at the first thing that is not wanted. Pixels and encoded images may share
// memory with message.
func parseCall(message []byte, limits v2Limits) (*callRequest, error) {
	r := &callRequest{}
	var contents, raw []byte
	err := r.read(message, &contents, &raw)
	switch {
	case errors.As(err, new(*failure)):
		return nil, err
	case err != nil:
		return nil, refuse("the request: %w", err)
	case len(r.Inputs) != 1:
		return nil, errInputs()
	case r.raw && contents != nil:
		return nil, refuse("the input has both contents and raw_input_contents; send one of them")
	}
	var data elements = wireElements(contents)
	if r.raw {
		data = rawElements(raw)
	}
	r.pictures, err = r.Inputs[0].pictures(data, limits)
	if errors.Is(err, errMessage) {
		err = refuse("the input's contents: %w", err)
	}
	return r, err
}

// read reads the message. contents and raw are what the input's elements are in.
func (r *callRequest) read(message []byte, contents, raw *[]byte) error {
	parameters := 0
	return eachField(message, func(f *field) (err error) {
		switch {
		case f.is(1, protowire.BytesType):
			r.model, err = f.text()
		case f.is(2, protowire.BytesType):
			r.version, err = f.text()
		case f.is(3, protowire.BytesType):
			r.ID, err = f.text()
		case f.is(4, protowire.BytesType):
			if parameters++; parameters > maxKeys {
				return refuse("there are more than %d parameters; leave out what is not needed", maxKeys)
			}
			err = r.wish(f.data)
		case f.is(5, protowire.BytesType):
			if len(r.Inputs) == 1 {
				return errInputs()
			}
			var t v2Tensor
			err = t.readCall(f.data, contents)
			r.Inputs = append(r.Inputs, t)
		case f.is(6, protowire.BytesType):
			err = r.output(f.data)
		case f.is(7, protowire.BytesType):
			if r.raw {
				return refuse("raw_input_contents is there twice; there is one input")
			}
			r.raw, *raw = true, f.data
		}
		return err
	})
}

// wish reads a parameter of the request, and keeps it where it is a wish.
func (r *callRequest) wish(entry []byte) error {
	name, value := "", ""
	err := eachField(entry, func(f *field) (err error) {
		switch {
		case f.is(1, protowire.BytesType):
			name, err = f.text()
		case f.is(2, protowire.BytesType):
			value, err = parameterText(f.data)
		}
		return err
	})
	if err != nil || !slices.Contains(v2Wishes, name) {
		return err
	}
	_, err = r.wishes.set(name, value)
	return err
}

// parameterText is the value of an InferParameter as text.
func parameterText(message []byte) (value string, err error) {
	err = eachField(message, func(f *field) (err error) {
		switch {
		case f.is(1, protowire.VarintType):
			value = strconv.FormatBool(f.bits != 0)
		case f.is(2, protowire.VarintType):
			value = strconv.FormatInt(int64(f.bits), 10)
		case f.is(3, protowire.BytesType):
			value, err = f.text()
		case f.is(4, protowire.Fixed64Type):
			value = strconv.FormatFloat(math.Float64frombits(f.bits), 'g', -1, 64)
		case f.is(5, protowire.VarintType):
			value = strconv.FormatUint(f.bits, 10)
		}
		return err
	})
	return value, err
}

// output reads an output that is asked for.
func (r *callRequest) output(message []byte) error {
	var o v2Output
	err := eachField(message, func(f *field) (err error) {
		if f.is(1, protowire.BytesType) {
			o.Name, err = f.text()
		}
		return err
	})
	if err != nil {
		return err
	}
	r.Outputs = append(r.Outputs, o)
	return r.checkOutput()
}

// readCall reads an InferInputTensor, but for its contents.
func (t *v2Tensor) readCall(message []byte, contents *[]byte) error {
	err := eachField(message, func(f *field) (err error) {
		switch {
		case f.is(1, protowire.BytesType):
			t.Name, err = f.text()
		case f.is(2, protowire.BytesType):
			t.Datatype, err = f.text()
		case f.repeated(3):
			err = f.numbers(func(n uint64) error { return t.grow(int64(n)) })
		case f.is(5, protowire.BytesType):
			if *contents != nil {
				return refuse("the input's contents are there twice; send them once")
			}
			*contents = f.data
		}
		return err
	})
	if err == nil && t.Name != inputName {
		return errInputs()
	}
	return err
}

// wireElements are elements as InferTensorContents has them.
type wireElements []byte

// bytes reads uint_contents.
func (data wireElements) bytes(count int64) ([]byte, error) {
	// A number takes a byte or more.
	if count > int64(len(data)) {
		return nil, refuse("the shape needs %d numbers, and the contents of %d bytes cannot hold them", count, len(data))
	}
	values := make([]byte, 0, count)
	err := eachField(data, func(f *field) error {
		if !f.repeated(4) {
			return refuse("the contents of %s must be uint_contents, and nothing else", typeUint8)
		}
		return f.numbers(func(n uint64) error {
			if n > 255 || int64(len(values)) == count {
				return refuse("uint_contents must be %d whole numbers of 0 to 255", count)
			}
			values = append(values, byte(n))
			return nil
		})
	})
	return values, err
}

// files reads bytes_contents.
func (data wireElements) files(count int64) ([]picture, error) {
	var pictures []picture
	err := eachField(data, func(f *field) error {
		switch {
		case !f.is(8, protowire.BytesType):
			return refuse("the contents of %s must be bytes_contents, and nothing else", typeBytes)
		case int64(len(pictures)) == count:
			return refuse("the shape needs %d image files, and there are more", count)
		}
		pictures = append(pictures, picture{encoded: f.data})
		return nil
	})
	if err == nil && int64(len(pictures)) < count {
		err = refuse("the shape needs %d image files, got %d", count, len(pictures))
	}
	return pictures, err
}

// answer is the answer to a request.
func (r *callRequest) answer(model string, version int, results []*rdpp.Result) (*inference.ModelInferResponse, error) {
	a := &inference.ModelInferResponse{ModelName: model, ModelVersion: strconv.Itoa(version), Id: r.ID}
	if text := said(results).Warnings; text != "" {
		a.Parameters = map[string]*inference.InferParameter{
			"warnings": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: text}}}
	}
	for _, o := range r.Outputs {
		t, values, err := output(o.Name, results)
		if err != nil {
			return nil, err
		}
		made := &inference.ModelInferResponse_InferOutputTensor{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape}
		if r.raw {
			a.RawOutputContents = append(a.RawOutputContents, littleEndian(values))
		} else if made.Contents, err = contentsOf(values); err != nil {
			return nil, err
		}
		a.Outputs = append(a.Outputs, made)
	}
	return a, nil
}

// contentsOf puts an output's values into the field of their type.
func contentsOf(values any) (*inference.InferTensorContents, error) {
	switch values := values.(type) {
	case []float64:
		return &inference.InferTensorContents{Fp64Contents: values}, nil
	case []float32:
		return &inference.InferTensorContents{Fp32Contents: values}, nil
	case []bool:
		return &inference.InferTensorContents{BoolContents: values}, nil
	}
	return nil, fmt.Errorf("server: an output of %T", values)
}
