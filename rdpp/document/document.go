// Package document puts JSON documents into the headers of weight files and reads them back, strictly: what rdpp wrote and
// what has been changed since are told apart.
package document

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/weights"
)

// Version is that of the program, which its files name.
const Version = "0.1.0"

// Software is what files call the program.
const Software = "rdpp " + Version

// commit is set by scripts/build.sh, by the linker.
var commit string

// Commit is the commit that the program was built of, with a + where files were changed since; "" where nobody has said.
func Commit() string { return commit }

// The keys of documents in a header's metadata.
const (
	ModelKey             = "rdpp"                    // of a model
	CheckpointKey        = "rdpp_checkpoint"         // of a training that can go on
	TeacherKey           = "rdpp_teacher"            // of a teacher that was trained here
	TeacherCheckpointKey = "rdpp_teacher_checkpoint" // of the training of one
)

// Keys lists them.
func Keys() []string { return []string{ModelKey, CheckpointKey, TeacherKey, TeacherCheckpointKey} }

var errNotOurs = errors.New("this is no file that rdpp wrote")

// Opened is what Read has to say of a file besides its document.
type Opened struct {
	Digest  bool   // the file has one, and is as it was written
	Unknown string // a member of the document that this version does not know; "": all are known
}

// Read holds the file against its digest and reads the JSON document in its metadata. Names count letter by letter, and
// none may come twice. A later version may have further members, which are left out; a file without a digest is of an earlier
// one, so that there a member that is not known is a damaged name.
func Read(file *weights.File, key string, into any) (o Opened, err error) {
	text, found := file.Metadata[key]
	if _, unfinished := file.Metadata[CheckpointKey]; !found && unfinished {
		return o, errors.New("this is the checkpoint of a training; use the model.safetensors beside it, or resume the training, which finishes it")
	}
	if !found {
		return o, fmt.Errorf("%w, its header has no %q entry; `train` makes one", errNotOurs, key)
	}
	if err := file.Verify(); err != nil {
		return o, fmt.Errorf("%w; restore the file or train again", err)
	}
	o.Digest = file.Digest() != ""
	if o.Unknown, err = Decode(text, into, o.Digest); err != nil {
		return o, fmt.Errorf("the %q entry of the header is damaged: %w; restore the file or train again", key, err)
	}
	return o, nil
}

// Decode reads a document by its members' exact names. Further ones are left out where that is wanted, and the first is named.
func Decode(text string, into any, further bool) (unknown string, err error) {
	err = json.Unmarshal([]byte(text), into, json.RejectUnknownMembers(true))
	if wrong := new(json.SemanticError); further && errors.Is(err, json.ErrUnknownName) && errors.As(err, &wrong) {
		return string(wrong.JSONPointer), json.Unmarshal([]byte(text), into)
	}
	return "", err
}

// Lacking says which of the members, such as "config.arch", a document lacks or has null for.
func Lacking(text string, members ...string) error {
	for _, member := range members {
		value := stdjson.RawMessage(text)
		for name := range strings.SplitSeq(member, ".") {
			var object map[string]stdjson.RawMessage
			if json.Unmarshal(value, &object) != nil {
				return fmt.Errorf("%s is missing, %w", member, anomaly.ErrDamaged)
			}
			value = object[name]
		}
		if value == nil || string(value) == "null" {
			return fmt.Errorf("%s is missing, %w", member, anomaly.ErrDamaged)
		}
	}
	return nil
}

// Further is a document beside a file's own.
type Further struct {
	Key      string
	Document any
}

// Write writes a safetensors file whose metadata holds document as JSON, and further ones.
func Write(path, key string, document any, tensors []weights.Source, further ...Further) error {
	metadata, err := metadataOf(key, document)
	for _, f := range further {
		if err == nil {
			var text []byte
			text, err = stdjson.Marshal(f.Document)
			metadata[f.Key] = string(text)
		}
	}
	if err != nil {
		return fmt.Errorf("document: %s: %w", path, err)
	}
	if err := weights.WriteFile(path, metadata, tensors); err != nil {
		return fmt.Errorf("document: %w", err)
	}
	return nil
}

func metadataOf(key string, document any) (map[string]string, error) {
	text, err := stdjson.Marshal(document)
	return map[string]string{"format": "pt", key: string(text)}, err
}

// grown is what a document may grow by in the course of a training: scores, a line of history per epoch.
const grown = 1 << 20

// Size is how large the file of Write can become.
func Size(key string, document any, tensors []weights.Source) (int64, error) {
	metadata, err := metadataOf(key, document)
	if err != nil {
		return 0, fmt.Errorf("document: %w", err)
	}
	size, err := weights.Size(metadata, tensors)
	if err != nil {
		return 0, fmt.Errorf("document: %w", err)
	}
	return size + grown, nil
}
