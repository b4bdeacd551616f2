package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/history"
	"rdpp/rdpp/imagefile"
)

// inquiry is a request to judge images. It begins, opens its body, is given pictures and a calibration by the handler that
// knows the protocol, judges them, and ends.
type inquiry struct {
	server *Server
	x      *exchange
	model  *model
	ctx    context.Context // ends with the request's time, or when the client has left
	cancel context.CancelFunc
	leave  func() // the model
	body   *body  // nil before open

	calibration *rdpp.Calibration // that verdicts are made by
	pictures    []picture
	asPicture   bool  // the answer is a picture, for which the body is kept
	held        int64 // one of the constants below

	results []*rdpp.Result // of pictures, from judge on
	records []int64        // their numbers in the history; nil: it has none of them
}

// What an image takes until its answer is written, in bytes per pixel of the map: input and map; those and the map as
// base64, in several copies on its way into the answer; those and the map as JSON numbers.
const (
	heldPlain   = 16
	heldHeatmap = 32
	heldNumbers = 48
)

// begin finds the model for a request to judge images, which has its time from here on. The caller ends it.
func (s *Server) begin(ctx context.Context, x *exchange, model, version string) (*inquiry, error) {
	m, leave, err := s.models.acquireVersion(model, version)
	if err != nil {
		return nil, err
	}
	x.model = m.name
	q := &inquiry{server: s, x: x, model: m, leave: leave, held: heldPlain}
	q.ctx, q.cancel = context.WithTimeout(ctx, s.opt.Timeout)
	return q, nil
}

// end lets go of all that the request holds of the service, but for its answer's bytes.
func (q *inquiry) end() {
	if q.body != nil {
		q.body.release()
	}
	q.cancel()
	q.leave()
}

// open begins to read the request's body.
func (q *inquiry) open(r *http.Request) (err error) {
	q.body, err = q.server.body(q.x, r)
	return err
}

// judge is the way of all images: decoded, measured in the model's turn, judged. Room in memory and in the queue is there
// before anything is decoded. It lets go of the pictures' bytes as soon as they are no longer needed.
func (q *inquiry) judge() error {
	n, taken := len(q.pictures), int64(0)
	for i := range q.pictures {
		size, err := q.size(&q.pictures[i])
		if err != nil {
			return err
		}
		taken += size
	}
	if err := q.server.hold(q.x, taken); err != nil {
		return err
	}
	if err := q.model.queue.reserve(n); err != nil {
		return busy(q.model.backlog(), "%w", err)
	}
	inputs, err := q.prepareAll()
	if !q.asPicture {
		q.body.release()
	}
	if err != nil {
		q.model.queue.cancel(n)
		return err
	}
	if q.results, err = q.model.measure(q.ctx, inputs); err != nil {
		return err
	}
	for _, r := range q.results {
		if err := r.Judge(q.calibration); err != nil {
			return err
		}
	}
	q.count()
	q.model.see(q.server, q.results)
	q.record()
	return nil
}

// record adds the results to the history, if there is one.
func (q *inquiry) record() {
	if q.server.opt.History == nil {
		return
	}
	records := make([]*history.Record, len(q.results))
	for i, r := range q.results {
		p := r.Prediction(q.pictures[i].name)
		record := history.Of(&p)
		record.Time, record.Source, record.SHA256 = time.Now(), Source, q.pictures[i].sha256
		record.Mask = q.pictures[i].mask
		record.Brightness, record.Sharpness = &r.Look.Brightness, &r.Look.Sharpness
		record.Model, record.ModelSHA256 = q.model.detector.Info().Category, q.model.detector.Digest()
		records[i] = &record
	}
	if !q.server.keep(q.ctx, records) {
		return
	}
	for _, r := range records {
		q.records = append(q.records, r.ID)
	}
}

// keeping bounds how long an answer waits for the history.
const keeping = 30 * time.Second

// keep writes records, also where the client has left: the images are judged. An answer is not withheld because that fails;
// then kept is false.
func (s *Server) keep(ctx context.Context, records []*history.Record) (kept bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keeping)
	defer cancel()
	if err := s.opt.History.Add(ctx, records...); err != nil {
		s.opt.Logger.Error("not recorded", "images", len(records), "error", err)
		return false
	}
	return true
}

// heldOutlines is what finding the regions of a map takes beside it, in bytes per value: their order, the hills that they are in,
// labels and levels. Maps of tiles alone are large enough to count that.
const heldOutlines = 40

// size is how many bytes a picture's input, map and part of the answer take. An input of tiles is the whole picture.
func (q *inquiry) size(p *picture) (int64, error) {
	info := q.model.detector.Info()
	if !info.Config.Tiled() {
		return q.held * info.MapCells(0), nil
	}
	if p.pixels != nil { // which are counted already, as the body
		return (q.held + heldOutlines) * info.MapCells(int64(p.pixels.W)*int64(p.pixels.H)), nil
	}
	_, pixels, err := q.server.cost(q.ctx, p.encoded)
	return 3*pixels + (q.held+heldOutlines)*info.MapCells(pixels), err
}

// count tells the log and the metrics of the results.
func (q *inquiry) count() {
	x := q.x
	for _, r := range q.results {
		x.images++
		if len(r.Warnings) > 0 && x.warning == "" {
			x.warning = strings.Join(r.Warnings, "; ")
		}
		if r.Anomalous {
			x.anomalous++
		}
	}
	q.server.metrics.images.WithLabelValues(q.model.name).Add(float64(x.images))
	q.server.metrics.anomalies.WithLabelValues(q.model.name).Add(float64(x.anomalous))
}

// prepareAll makes the networks' inputs of pictures, whose bytes it lets go of.
func (q *inquiry) prepareAll() ([]*rdpp.Input, error) {
	pictures := q.pictures
	inputs, errs := make([]*rdpp.Input, len(pictures)), make([]error, len(pictures))
	var preparing sync.WaitGroup
	for i := range pictures {
		preparing.Go(func() {
			defer recovered(q.server.opt.Logger, &errs[i])
			if q.server.opt.History != nil && pictures[i].encoded != nil {
				pictures[i].sha256 = fmt.Sprintf("%x", sha256.Sum256(pictures[i].encoded))
			}
			inputs[i], errs[i] = q.prepare(&pictures[i])
			pictures[i].encoded, pictures[i].pixels, pictures[i].ignore = nil, nil, nil
		})
	}
	preparing.Wait()
	for i, err := range errs {
		if err != nil && len(pictures) > 1 && q.ctx.Err() == nil {
			named := fmt.Errorf("image %d, %.80q: %w", i+1, pictures[i].name, err)
			if f := (*failure)(nil); errors.As(err, &f) {
				named = &failure{f.status, named, f.retry}
			}
			return nil, named
		}
		if err != nil {
			return nil, err
		}
	}
	return inputs, nil
}

// prepare makes the input of a picture.
func (q *inquiry) prepare(p *picture) (*rdpp.Input, error) {
	s, m := q.server, q.model
	if p.pixels != nil {
		leave, err := s.slot(q.ctx, int64(len(p.pixels.Pix)))
		if err != nil {
			return nil, err
		}
		defer leave()
		input, err := m.detector.Prepare(p.pixels)
		return input, unfit(err)
	}
	cost, _, err := s.cost(q.ctx, p.encoded)
	if err != nil {
		return nil, err
	}
	if p.ignore != nil {
		of, pixels, err := s.cost(q.ctx, p.ignore)
		if err != nil {
			return nil, maskFailure(err)
		}
		cost += of + pixels
	}
	leave, err := s.room(q.ctx, q.x, cost)
	if err != nil {
		return nil, err
	}
	defer leave()
	var input *rdpp.Input
	err = s.aside(cost, func() error {
		img, err := m.decode(p.encoded)
		if err != nil {
			return err
		}
		var ignore *imagefile.Mask
		if p.ignore != nil {
			if ignore, err = imagefile.DecodeMask(p.ignore, s.images()); err != nil {
				return maskFailure(unreadable(err))
			}
			if s.opt.History != nil && slices.Contains(ignore.Pix, 1) {
				if p.mask, err = imagefile.EncodeMask(ignore); err != nil {
					return err
				}
			}
		}
		input, err = m.detector.PrepareIgnoring(img, ignore)
		return unfit(err)
	})
	return input, err
}

func (m *model) decode(data []byte) (*imagefile.Image, error) {
	opt := m.detector.ImageOptions()
	img, err := imagefile.Decode(data, &opt)
	return img, unreadable(err)
}
