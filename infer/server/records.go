package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"rdpp/rdpp/history"
)

// correction is what an operator says of an image.
type correction struct {
	Verdict string `json:"verdict"` // one of verdicts
	Note    string `json:"note,omitempty"`
}

// verdicts are what a correction may say; none takes one back.
var verdicts = map[string]history.Verdict{"good": history.Good, "anomalous": history.Anomalous, "none": ""}

// correct answers PUT /v1/records/{record}/correction: what an operator says goes into the history.
func (s *Server) correct(x *exchange, r *http.Request) error {
	if s.opt.History == nil {
		return failf(http.StatusNotFound, "no history is kept; start the service with --history")
	}
	id, err := strconv.ParseInt(r.PathValue("record"), 10, 64)
	if err != nil {
		return failf(http.StatusNotFound, "%.40q is no record's number; a prediction has it as \"record\"", r.PathValue("record"))
	}
	var said correction
	const use = `{"verdict": "good"}, "anomalous" or "none", with a "note" or without`
	if err := readShort(r, &said, use); err != nil {
		return err
	}
	verdict, known := verdicts[said.Verdict]
	if !known {
		return refuse("the verdict %.40q; use %s", said.Verdict, use)
	}
	ctx, cancel := context.WithTimeout(r.Context(), keeping)
	defer cancel()
	err = s.opt.History.Correct(ctx, id, verdict, said.Note)
	if errors.Is(err, history.ErrNone) {
		return failf(http.StatusNotFound, "record %d: %w", id, history.ErrNone)
	}
	if err != nil {
		return err
	}
	return writeJSON(x, http.StatusOK, said)
}
