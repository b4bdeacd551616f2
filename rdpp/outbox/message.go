package outbox

import (
	"encoding/json"
	"fmt"
	"time"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/history"
	"rdpp/rdpp/printable"
)

// Schema is the version of Message. Versions that only add fields have the same one.
const Schema = 1

// Message is what a destination gets of a record, as JSON. An image that could not be judged has an error, and none of the fields
// of Prediction.
type Message struct {
	Schema int `json:"schema"`
	// ID is the same whenever a record is sent, and no other record's, of any history.
	ID      string          `json:"id"`
	Record  int64           `json:"record"` // its number in the history; later ones are larger
	Time    string          `json:"time"`   // of the verdict, RFC 3339, UTC, to the microsecond
	Source  string          `json:"source"` // what judged: image, serve, or watch: and the folder
	Verdict history.Verdict `json:"verdict"`
	Image   string          `json:"image"` // its name; a file's is the full path at which it arrived
	SHA256  string          `json:"sha256,omitempty"`
	Model   string          `json:"model"` // its category
	// ModelSHA256 is that of the model's file.
	ModelSHA256 string `json:"model_sha256"`
	Error       string `json:"error,omitempty"`
	*anomaly.Prediction
	Heatmap string `json:"heatmap,omitempty"` // file
	Moved   string `json:"moved,omitempty"`   // where the image's file is
	// Bytes of names that are not UTF-8, which JSON cannot hold.
	ImageBase64   string `json:"image_base64,omitempty"`
	HeatmapBase64 string `json:"heatmap_base64,omitempty"`
	MovedBase64   string `json:"moved_base64,omitempty"`
}

// Of is the message about a record of a history of that name.
func Of(name string, r *history.Record) Message {
	m := Message{Schema: Schema, ID: fmt.Sprintf("%s-%d", name, r.ID), Record: r.ID, Time: r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"),
		Source: r.Source, Verdict: r.Verdict, Image: r.Image, SHA256: r.SHA256, Model: r.Model, ModelSHA256: r.ModelSHA256, Error: r.Error,
		Heatmap: r.Heatmap, Moved: r.Moved, ImageBase64: printable.Base64(r.Image), HeatmapBase64: printable.Base64(r.Heatmap),
		MovedBase64: printable.Base64(r.Moved)}
	if r.Verdict != history.Broken {
		p := r.Prediction()
		m.Prediction = &p
	}
	return m
}

// Packed is a message as it is sent.
type Packed struct {
	ID   string
	Time time.Time // of the verdict
	JSON []byte
}

func pack(name string, r *history.Record) (Packed, error) {
	m := Of(name, r)
	text, err := json.Marshal(&m)
	return Packed{m.ID, r.Time, text}, err
}
