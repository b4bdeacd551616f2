package modelfile

import (
	"fmt"
	"strings"
	"time"

	"rdpp/rdpp/document"
	"rdpp/rdpp/printable"
	"rdpp/rdpp/weights"
)

// Provenance tells how a model came to be, beyond what its document says. It differs between trainings that give the same
// model, so it stands in an entry of its own in the file's header, and Content leaves it out.
type Provenance struct {
	Software    string    `json:"software"`         // the program and its version
	Commit      string    `json:"commit,omitempty"` // that it was built of; "": not known
	Libtorch    string    `json:"libtorch,omitempty"`
	Date        time.Time `json:"date"`        // when the training ended, UTC
	Seconds     float64   `json:"seconds"`     // that it took, of all its sessions, with the calibration and without evaluation
	Data        []string  `json:"data"`        // folders and lists that the images are from, as they were named
	Fingerprint string    `json:"fingerprint"` // of the training images, as in DataInfo
	Command     []string  `json:"command"`     // of the last session; none: a program that embeds rdpp
	Device      string    `json:"device"`
	Threads     int       `json:"threads,omitempty"` // of the CPU
}

// ProvenanceKey is the entry of a model file's header with a Provenance.
const ProvenanceKey = "rdpp_provenance"

// Fact is a line of a table.
type Fact struct{ Name, Value string }

// Facts tells a Provenance to people.
func (p *Provenance) Facts() []Fact {
	made := p.Software
	if p.Commit != "" {
		made += ", commit " + p.Commit
	}
	if p.Libtorch != "" {
		made += ", libtorch " + p.Libtorch
	}
	where := p.Device
	if p.Threads > 0 {
		where += ", " + printable.Count(p.Threads, "thread")
	}
	facts := []Fact{{"made by", made}, {"made on", p.Date.UTC().Format("2006-01-02 15:04:05 UTC")},
		{"made in", fmt.Sprintf("%v on %s", time.Duration(p.Seconds*float64(time.Second)).Round(time.Second), where)},
		{"made of", strings.Join(p.Data, ", ")}, {"images", "SHA-256 " + p.Fingerprint}}
	if len(p.Command) > 0 {
		facts = append(facts, Fact{"command", shell(p.Command)})
	}
	for i := range facts {
		facts[i].Value = printable.Text(facts[i].Value)
	}
	return facts
}

// shell is a command line that a shell reads as these words.
func shell(words []string) string {
	var all []string
	for _, word := range words {
		plain := func(r rune) bool {
			return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./=,:@+%", r)
		}
		if word == "" || strings.TrimFunc(word, plain) != "" {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		all = append(all, word)
	}
	return strings.Join(all, " ")
}

// readProvenance reads what a file says of how its model came to be; nil where it says nothing, or what it says is damaged: no
// score depends on it.
func readProvenance(file *weights.File) *Provenance {
	text, found := file.Metadata[ProvenanceKey]
	if !found {
		return nil
	}
	p := new(Provenance)
	if _, err := document.Decode(text, p, true); err != nil {
		return nil
	}
	return p
}

// Content is the SHA-256 of what a model file scores by: its document and its tensors, without Provenance. Trainings that give
// the same model give the same.
func Content(file *weights.File) (string, error) { return file.Content(document.ModelKey) }
