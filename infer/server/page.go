package server

import (
	"embed"
	"net/http"
)

//go:embed page
var pageFolder embed.FS

// pageFile is a part of the page.
type pageFile struct{ name, kind string }

// pageFiles are the page's addresses. The page loads nothing from elsewhere.
var pageFiles = map[string]pageFile{
	"/{$}":      {"index.html", "text/html; charset=utf-8"},
	"/page.css": {"page.css", "text/css; charset=utf-8"},
	"/page.js":  {"page.js", "text/javascript; charset=utf-8"},
	"/icon.svg": {"icon.svg", "image/svg+xml"},
}

// pagePolicy lets the page run its own script and style and show pictures that it made, and nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (f pageFile) serve(x *exchange, r *http.Request) error {
	data, err := pageFolder.ReadFile("page/" + f.name)
	if err != nil {
		return err
	}
	h := x.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Permissions-Policy", "camera=(self), microphone=(), geolocation=()")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	write(x, http.StatusOK, f.kind, data)
	return nil
}
