package server

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"testing"
)

// Whatever a body holds, it is refused by a failure of the client's, or makes pictures whose pixels are all there.
func FuzzV2(f *testing.F) {
	for _, text := range []string{
		`{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5,6]}]}`,
		`{"inputs":[{"name":"image","shape":[2,1,1,3],"datatype":"UINT8","data":[[[[1,2,3]]],[[[4,5,6]]]]}],"outputs":[{"name":"map"}]}`,
		`{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":["aGVsbG8="]}],"parameters":{"threshold":0.5}}`,
		`{"inputs":[{"name":"image","shape":[9223372036854775807,3,3],"datatype":"UINT8","data":[]}]}`,
	} {
		f.Add([]byte(text), "")
	}
	for text, tail := range map[string]string{
		`{"inputs":[{"name":"image","shape":[1,1,3],"datatype":"UINT8","parameters":{"binary_data_size":3}}]}`: "abc",
		`{"inputs":[{"name":"image","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}`:     "\x00\x00\x00\x00\x01\x00\x00\x00a",
	} {
		f.Add([]byte(text+tail), strconv.Itoa(len(text)))
	}
	f.Add([]byte("{}"), "99999999999999999999")
	limits := v2Limits{images: 4, maxPixels: 1000}
	f.Fuzz(func(t *testing.T, body []byte, length string) {
		before := bytes.Clone(body)
		r, err := parseV2(body, length, limits)
		if !bytes.Equal(body, before) {
			t.Fatal("the body has been changed")
		}
		if err != nil {
			if refused := (*failure)(nil); !errors.As(err, &refused) || refused.status != http.StatusBadRequest || err.Error() == "" {
				t.Fatalf("got error %v, want a failure of status 400", err)
			}
			return
		}
		if n := len(r.pictures); n < 1 || n > limits.images {
			t.Fatalf("got %d pictures, want 1 to %d", n, limits.images)
		}
		for _, p := range r.pictures {
			if p.pixels != nil && (p.pixels.W*p.pixels.H > int(limits.maxPixels) || len(p.pixels.Pix) != 3*p.pixels.W*p.pixels.H) {
				t.Fatalf("got %d bytes for %d x %d pixels", len(p.pixels.Pix), p.pixels.W, p.pixels.H)
			}
		}
	})
}
