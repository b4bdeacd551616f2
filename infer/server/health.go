package server

import "net/http"

// What those ask who start, watch and end the service. It needs no token, and says nothing that one would be needed for.

// ready is nil while images can be judged: some model is ready, and the process goes on.
func (s *Server) ready() error {
	switch {
	case s.draining.Load():
		return busy(0, "%w", errEnding)
	case s.Models() == 0:
		return busy(0, "no model is ready")
	}
	return nil
}

// healthz answers GET /healthz: the process answers requests.
func (s *Server) healthz(x *exchange, r *http.Request) error {
	return writeJSON(x, http.StatusOK, map[string]string{"status": "ok"})
}

// readyz answers GET /readyz: images can be judged.
func (s *Server) readyz(x *exchange, r *http.Request) error {
	if err := s.ready(); err != nil {
		return err
	}
	return s.healthz(x, r)
}
