package server

import (
	"bytes"
	_ "embed"
	"net/http"

	"rdpp/rdpp"
)

// description describes addresses, in OpenAPI 3.0, for people and for what makes clients of it.
//
//go:embed openapi.json
var description []byte

// openapi answers GET /openapi.json.
func openapi(x *exchange, r *http.Request) error {
	write(x, http.StatusOK, "application/json", bytes.Replace(description, []byte(`"version": "VERSION"`), []byte(`"version": "`+rdpp.Version+`"`), 1))
	return nil
}
