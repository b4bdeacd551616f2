package server

import (
	"net/http"
	"slices"
	"strconv"

	"rdpp/rdpp"
	"rdpp/rdpp/imagefile"
)

// What answers the addresses of V2; v2codec.go has its requests and answers.

// v2Infer answers POST /v2/models/{model}/infer.
func (s *Server) v2Infer(x *exchange, r *http.Request) error {
	q, err := s.begin(r.Context(), x, r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	defer q.end()
	if err := q.open(r); err != nil {
		return err
	}
	data, err := q.body.readAll(q.body, r.ContentLength)
	if err != nil {
		return err
	}
	x.connection.answering()
	var asked *v2Request
	err = q.body.parse(q.ctx, int64(len(data)), func() (err error) {
		asked, err = parseV2(data, r.Header.Get(headerLength), s.v2Limits())
		return err
	})
	if err != nil {
		return err
	}
	if err := q.judgeV2(asked); err != nil {
		return err
	}
	text, tail, err := asked.encode(q.model.name, q.model.version, q.results)
	switch {
	case err != nil:
		return err
	case len(tail) == 0:
		write(x, http.StatusOK, "application/json", append(text, '\n'))
	default:
		x.Header().Set(headerLength, strconv.Itoa(len(text)))
		write(x, http.StatusOK, "application/octet-stream", append(text, tail...))
	}
	return nil
}

// judgeV2 judges the pictures of a request of V2.
func (q *inquiry) judgeV2(asked *v2Request) (err error) {
	if q.calibration, err = q.model.calibration(asked.wishes); err != nil {
		return err
	}
	if err := asked.chooseOutputs(q.calibration); err != nil {
		return err
	}
	if slices.ContainsFunc(asked.Outputs, func(o v2Output) bool { return o.Name == outMap }) {
		q.held = heldNumbers
	}
	q.pictures = asked.pictures
	return q.judge()
}

// v2Limits are those of all requests.
func (s *Server) v2Limits() v2Limits {
	maxPixels := s.opt.Detector.MaxPixels
	if maxPixels <= 0 {
		maxPixels = imagefile.DefaultMaxPixels
	}
	return v2Limits{s.opt.MaxQueue, maxPixels}
}

// serverName is the service's, for clients of V2.
const serverName = "rdpp"

// v2Server answers GET /v2.
func (s *Server) v2Server(x *exchange, r *http.Request) error {
	return writeJSON(x, http.StatusOK, map[string]any{"name": serverName, "version": rdpp.Version,
		"extensions": []string{"binary_tensor_data", "model_repository"}})
}

// v2Live answers GET /v2/health/live.
func (s *Server) v2Live(x *exchange, r *http.Request) error {
	return writeJSON(x, http.StatusOK, map[string]bool{"live": true})
}

// v2Ready answers GET /v2/health/ready.
func (s *Server) v2Ready(x *exchange, r *http.Request) error {
	if err := s.ready(); err != nil {
		return err
	}
	return writeJSON(x, http.StatusOK, map[string]bool{"ready": true})
}

// v2Metadata is what GET /v2/models/{model} tells.
type v2Metadata struct {
	Name       string            `json:"name"`
	Versions   []string          `json:"versions"`
	Platform   string            `json:"platform"`
	Inputs     []v2Tensor        `json:"inputs"`
	Outputs    []v2Tensor        `json:"outputs"`
	Parameters map[string]string `json:"parameters"` // explanations, for people
}

// v2Model answers GET /v2/models/{model}.
func (s *Server) v2Model(x *exchange, r *http.Request) error {
	m, release, err := s.use(x, r)
	if err != nil {
		return err
	}
	defer release()
	return writeJSON(x, http.StatusOK, m.metadata())
}

func (m *model) metadata() v2Metadata {
	config := m.detector.Info().Config
	side := int64(config.ImageSize)
	if config.Tiled() {
		side = -1 // as the image's size
	}
	return v2Metadata{
		Name: m.name, Versions: []string{strconv.Itoa(m.version)}, Platform: "rdpp_libtorch",
		Inputs: []v2Tensor{{Name: inputName, Datatype: typeUint8, Shape: []int64{-1, -1, -1, 3}}},
		Outputs: []v2Tensor{
			{Name: outScore, Datatype: typeFloat64, Shape: []int64{-1}},
			{Name: outNormalised, Datatype: typeFloat64, Shape: []int64{-1}},
			{Name: outAnomalous, Datatype: typeBool, Shape: []int64{-1}},
			{Name: outPValue, Datatype: typeFloat64, Shape: []int64{-1}},
			{Name: outMap, Datatype: typeFloat32, Shape: []int64{-1, side, side}},
		},
		Parameters: map[string]string{
			inputName:     "UINT8 [B, H, W, 3] or [H, W, 3]: RGB pixels of any size; or BYTES [B]: PNG, JPEG, BMP, TIFF or WebP files, in JSON as base64",
			outScore:      "0 (like good parts) or more",
			outNormalised: "0 to 1, rises with the score, 0.5 at the threshold",
			outAnomalous:  "score > threshold",
			outPValue:     "how rare such a score is among good parts; of calibrated models only",
			outMap:        "the anomaly map, which covers the whole image; only if it is asked for",
			"parameters":  "a request's parameters may hold threshold, pixel_threshold, false_alarm, region_low, min_area, min_length and binary_data_output",
		}}
}

// v2ModelReady answers GET /v2/models/{model}/ready.
func (s *Server) v2ModelReady(x *exchange, r *http.Request) error {
	m, release, err := s.use(x, r)
	if err != nil {
		return err
	}
	defer release()
	return writeJSON(x, http.StatusOK, map[string]any{"name": m.name, "ready": true})
}

// v2Index answers POST /v2/repository/index. The body may ask for ready models alone.
func (s *Server) v2Index(x *exchange, r *http.Request) error {
	var asked struct {
		Ready bool `json:"ready"`
	}
	if err := readShort(r, &asked, `{"ready": true} or nothing`); err != nil {
		return err
	}
	index := s.models.index()
	if asked.Ready {
		index = slices.DeleteFunc(index, func(s state) bool { return s.State != "READY" })
	}
	return writeJSON(x, http.StatusOK, index)
}

// v2Load answers POST /v2/repository/models/{model}/load: the model's file is read again.
func (s *Server) v2Load(x *exchange, r *http.Request) error { return s.repositoryRequest(x, r, true) }

// v2Unload answers POST /v2/repository/models/{model}/unload. Requests under way still get their answers.
func (s *Server) v2Unload(x *exchange, r *http.Request) error {
	return s.repositoryRequest(x, r, false)
}

func (s *Server) repositoryRequest(x *exchange, r *http.Request, load bool) error {
	name := r.PathValue("model")
	if err := checkName(name); err != nil {
		return unknown(name)
	}
	x.model = name
	x.connection.answering()
	if err := s.models.request(r.Context(), name, load); err != nil {
		return err
	}
	return writeJSON(x, http.StatusOK, struct{}{})
}
