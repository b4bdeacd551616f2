package server

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"rdpp/rdpp"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/imagefile"
	"rdpp/rdpp/report"
)

// wishes are what a request asks for beside the verdict.
type wishes struct {
	falseAlarm, threshold, pixelThreshold, regionLow *float64 // nil: the detector's own
	minArea, minLength                               *int     // of regions, pixels; nil: the detector's own
	heatmap                                          bool
}

// set takes a wish by its name. A value that makes no sense is an error; ok is false for an unknown name.
func (w *wishes) set(name, value string) (ok bool, err error) {
	switch name {
	case "false_alarm":
		w.falseAlarm, err = number(name, value)
		if err == nil && !(*w.falseAlarm > 0 && *w.falseAlarm < 1) {
			err = failf(http.StatusBadRequest, "false_alarm %.40q: use a share above 0 and below 1", value)
		}
	case "threshold":
		w.threshold, err = number(name, value)
	case "pixel_threshold":
		w.pixelThreshold, err = number(name, value)
	case "region_low":
		w.regionLow, err = number(name, value)
	case "min_area":
		w.minArea, err = pixels(name, value)
	case "min_length":
		w.minLength, err = pixels(name, value)
	case "heatmap":
		w.heatmap, err = strconv.ParseBool(value)
		if err != nil {
			err = failf(http.StatusBadRequest, "heatmap %.40q: use 1 or 0", value)
		}
	default:
		return false, nil
	}
	return true, err
}

func number(name, value string) (*float64, error) {
	x, err := strconv.ParseFloat(value, 64)
	if err != nil || !(x >= 0) || x-x != 0 {
		return nil, failf(http.StatusBadRequest, "%s %.40q: use a number of 0 or more", name, value)
	}
	return &x, nil
}

func pixels(name, value string) (*int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return nil, failf(http.StatusBadRequest, "%s %.40q: use a whole number of 0 or more", name, value)
	}
	return &n, nil
}

// wishesOf reads an address's query. Names that nobody knows are refused: they may be misspelt.
func wishesOf(query string) (w wishes, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return w, failf(http.StatusBadRequest, "the address's query: %w", err)
	}
	for name, list := range values {
		if len(list) > 1 {
			return w, failf(http.StatusBadRequest, "%.40q is given %d times in the address", name, len(list))
		}
		ok, err := w.set(name, list[0])
		if err != nil {
			return w, err
		}
		if !ok && name != "name" {
			return w, failf(http.StatusBadRequest, "%.40q in the address is unknown; use threshold, pixel_threshold, false_alarm, region_low, min_area, min_length, "+
				"heatmap, name", name)
		}
	}
	return w, nil
}

// calibration is what verdicts are made by where nothing else is wished for.
func (m *model) calibration(w wishes) (*rdpp.Calibration, error) {
	c := m.detector.Calibration()
	if w.falseAlarm != nil && w.threshold != nil {
		return nil, failf(http.StatusBadRequest, "false_alarm and threshold exclude each other")
	}
	c, err := c.Override(w.falseAlarm, w.threshold, w.pixelThreshold)
	if err == nil {
		regions := c.RegionOptions()
		if w.regionLow != nil {
			regions.Low = w.regionLow
		}
		if w.minArea != nil {
			regions.MinArea = *w.minArea
		}
		if w.minLength != nil {
			regions.MinLength = *w.minLength
		}
		c, err = c.Choose(regions)
	}
	if err != nil {
		return nil, failf(http.StatusBadRequest, "%w", err)
	}
	return &c, nil
}

// use finds the model that an address names, and the version where it names one.
func (s *Server) use(x *exchange, r *http.Request) (*model, func(), error) {
	m, release, err := s.models.acquireVersion(r.PathValue("model"), r.PathValue("version"))
	if err == nil {
		x.model = m.name
	}
	return m, release, err
}

// prediction is what is said about an image: the JSON of infer image, the map if it was asked for, and where it is recorded.
type prediction struct {
	rdpp.Prediction
	Heatmap *heatmap `json:"heatmap,omitempty"`
	Record  int64    `json:"record,omitempty"` // its number in the history; 0: none is kept
}

// heatmap is an anomaly map, which covers the whole image.
type heatmap struct {
	values
	Looked *looked `json:"looked,omitempty"` // of models that look at a part of the image
}

// looked is the map of that part alone, of which regions are made: the heatmap has it at another resolution.
type looked struct {
	X      int    `json:"x"` // of the part, in the image's pixels
	Y      int    `json:"y"`
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Map    values `json:"map"`
}

// values are those of a map.
type values struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Data   string `json:"data"` // base64 of little-endian float32, row by row

	Blur float64 `json:"blur"` // of them, see metric.Outline
}

func heatmapOf(r *rdpp.Result) *heatmap {
	of := func(m []float32, W, H int, blur float64) values {
		return values{W, H, base64.StdEncoding.EncodeToString(littleEndian(m)), blur}
	}
	over := r.Over()
	h := &heatmap{values: of(over.Map, over.W, over.H, over.Blur)}
	if !r.Frame.Whole() {
		part := r.Looked()
		h.Looked = &looked{part.At.Min.X, part.At.Min.Y, part.At.Dx(), part.At.Dy(), of(part.Map, part.W, part.H, part.Blur)}
	}
	return h
}

// predict answers POST /v1/models/{model}/predict.
func (s *Server) predict(x *exchange, r *http.Request) error {
	q, err := s.begin(r.Context(), x, r.PathValue("model"), "")
	if err != nil {
		return err
	}
	defer q.end()
	w, err := wishesOf(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if q.calibration, err = q.model.calibration(w); err != nil {
		return err
	}
	if q.asPicture, err = picturePreferred(r.Header.Values("Accept")); err != nil {
		return err
	}
	if err := q.open(r); err != nil {
		return err
	}
	isForm := false
	if q.pictures, isForm, err = s.readPictures(q.body, r); err != nil {
		return err
	}
	x.connection.answering()
	if q.asPicture && len(q.pictures) > 1 {
		return failf(http.StatusBadRequest, "%d images, and Accept: image/png gives one; send them one by one", len(q.pictures))
	}
	if w.heatmap {
		q.held = heldHeatmap
	}
	if view := q.model.detector.Info().Config.View; (w.heatmap || q.asPicture) && !view.Plain() {
		q.held *= framing.MostSpread*framing.MostSpread + 1 // over the whole image, and of the part that is looked at
	}
	if q.asPicture {
		return q.answerPicture()
	}
	if err := q.judge(); err != nil {
		return err
	}
	predictions := make([]prediction, len(q.results))
	for i, r := range q.results {
		predictions[i].Prediction = r.Prediction(q.pictures[i].name)
		if q.records != nil {
			predictions[i].Record = q.records[i]
		}
		if w.heatmap {
			predictions[i].Heatmap = heatmapOf(r)
		}
	}
	if isForm {
		return writeJSON(x, http.StatusOK, predictions)
	}
	return writeJSON(x, http.StatusOK, predictions[0])
}

// answerPicture judges the one picture and answers with it under its anomaly map.
func (q *inquiry) answerPicture() error {
	original := q.pictures[0].encoded
	if _, err := q.overlayCost(original); err != nil {
		return err
	}
	if err := q.judge(); err != nil {
		return err
	}
	x, r := q.x, q.results[0]
	overlay, err := q.overlay(original, r)
	if err == nil {
		err = q.server.hold(x, int64(len(overlay)))
	}
	if err != nil {
		return err
	}
	x.Header().Set("X-Score", strconv.FormatFloat(r.Score, 'g', -1, 64))
	x.Header().Set("X-Anomalous", strconv.FormatBool(r.Anomalous))
	if len(r.Warnings) > 0 {
		x.Header().Set("X-Warning", strings.Join(r.Warnings, "; "))
	}
	write(x, http.StatusOK, "image/png", overlay)
	return nil
}

// heldOverlay is what an overlay takes until it is written, in bytes per pixel of the image: that, the enlarged map, the
// overlay, and its file, which grows by doubling.
const heldOverlay = 3 + 4 + 4 + 9

// overlayCost is what making an overlay takes, in bytes.
func (q *inquiry) overlayCost(original []byte) (int64, error) {
	cost, pixels, err := q.server.cost(q.ctx, original)
	if err != nil {
		return 0, err
	}
	cost = max(cost, heldOverlay*pixels)
	return cost, q.server.fits(q.x, cost)
}

// overlay decodes the picture once more: keeping the pixels of all who wait would take far more memory.
func (q *inquiry) overlay(original []byte, r *rdpp.Result) ([]byte, error) {
	cost, err := q.overlayCost(original)
	if err != nil {
		return nil, err
	}
	leave, err := q.server.room(q.ctx, q.x, cost)
	if err != nil {
		return nil, err
	}
	defer leave()
	var file bytes.Buffer
	err = q.server.aside(cost, func() error {
		img, err := q.model.decode(original)
		if err != nil {
			return err
		}
		over := r.Over()
		opt := report.Outlined(r.PixelThreshold, over.Map, over.Levels)
		opt.Legend = false // clients lay it over the photograph, whose size it has
		drawn, err := report.Heatmap(img, over.Map, over.H, over.W, opt)
		if err != nil {
			return err
		}
		return imagefile.EncodeHeatmap(&file, drawn)
	})
	return bytes.Clone(file.Bytes()), err
}

// picturePreferred says whether a client would rather have the overlay than JSON, by its Accept headers: the kind of the
// higher weight, of two equal ones what it names first, JSON where it does not mind.
func picturePreferred(accept []string) (bool, error) {
	ranges := mediaRanges(accept)
	if len(ranges) == 0 {
		return false, nil
	}
	text, textAt := weigh(ranges, "application", "json")
	picture, pictureAt := weigh(ranges, "image", "png")
	if text == 0 && picture == 0 {
		return false, &failure{status: http.StatusNotAcceptable, err: errors.New("the header Accept names nothing there is; use application/json or image/png")}
	}
	return picture > text || picture == text && pictureAt < textAt, nil
}

// mediaRange is an element of an Accept header, such as image/*;q=0.8.
type mediaRange struct {
	kind, subkind string  // * stands for any
	weight        float64 // 0: not acceptable
}

// mediaRanges reads Accept headers. What is none is acceptable to nobody.
func mediaRanges(accept []string) (ranges []mediaRange) {
	for element := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		if strings.TrimSpace(element) == "" {
			continue
		}
		name, parameters, err := mime.ParseMediaType(element)
		weight := 1.0
		if q, given := parameters["q"]; given && err == nil {
			weight, err = strconv.ParseFloat(q, 64)
		}
		if err != nil || !(weight >= 0 && weight <= 1) {
			weight = 0
		}
		kind, subkind, _ := strings.Cut(name, "/")
		ranges = append(ranges, mediaRange{kind, subkind, weight})
	}
	return ranges
}

// weigh finds the weight of a kind and where it is from: of the ranges that the kind is in, the narrowest counts.
func weigh(ranges []mediaRange, kind, subkind string) (weight float64, at int) {
	narrowest := -1
	for i, r := range ranges {
		width := -1
		switch {
		case r.kind == kind && r.subkind == subkind:
			width = 2
		case r.kind == kind && r.subkind == "*":
			width = 1
		case r.kind == "*" && r.subkind == "*":
			width = 0
		}
		if width > narrowest {
			narrowest, weight, at = width, r.weight, i
		}
	}
	return weight, at
}

// littleEndian are the bytes of values, which are a slice of numbers or bools.
func littleEndian(values any) []byte {
	data, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		panic(err) // no such slice
	}
	return data
}

// about is what /v1/models tells about a model.
type about struct {
	Name           string  `json:"name"`
	Version        int     `json:"version"`
	Category       string  `json:"category"`
	Arch           string  `json:"arch"`
	ImageSize      int     `json:"image_size"` // side of the network's input and, without tiles, of the map, pixels
	Threshold      float64 `json:"threshold"`
	PixelThreshold float64 `json:"pixel_threshold"`
	Provisional    bool    `json:"provisional"`
	Rule           string  `json:"rule"` // where the threshold comes from
	FalseAlarm     float64 `json:"false_alarm"`
	Teacher        string  `json:"teacher"`
	Software       string  `json:"software"`       // that made the model
	BitDepth       int     `json:"bit_depth"`      // that images of 16 bits are read as
	Tile           int     `json:"tile,omitempty"` // side of the tiles that images are cut into, pixels
	Outline        outline `json:"outline"`
}

// outline is what of maps is outlined, but for the verdict: metric.Outline.
type outline struct {
	Low       float64 `json:"low"`
	Share     float64 `json:"share"`
	Blur      float64 `json:"blur"` // pixels of the network's input
	MinArea   int     `json:"min_area"`
	MinLength int     `json:"min_length"`
	All       bool    `json:"all"` // of good images too
}

func (m *model) about() about {
	info, c := m.detector.Info(), m.detector.Calibration()
	// Of an image that is anomalous, and of one that is good.
	o, good := c.Outline(c.Judge(math.MaxFloat64), info.Config.Blur()), c.Outline(rdpp.Verdict{}, info.Config.Blur())
	return about{m.name, m.version, info.Category, info.Config.Arch, info.Config.ImageSize, c.Threshold, c.PixelThreshold,
		c.Provisional, c.Rule, c.FalseAlarm, info.Teacher.Origin, info.Software, info.Config.BitDepth, info.Config.Tile,
		outline{o.Low, o.Share, o.Blur, o.MinArea, o.MinLength, !math.IsInf(good.Above, 1)}}
}

// listModels answers GET /v1/models.
func (s *Server) listModels(x *exchange, r *http.Request) error {
	list := []about{}
	for _, m := range s.models.loaded() {
		list = append(list, m.about())
	}
	return writeJSON(x, http.StatusOK, map[string][]about{"models": list})
}

// showModel answers GET /v1/models/{model}.
func (s *Server) showModel(x *exchange, r *http.Request) error {
	m, release, err := s.use(x, r)
	if err != nil {
		return err
	}
	defer release()
	return writeJSON(x, http.StatusOK, m.about())
}
