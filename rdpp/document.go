package rdpp

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"rdpp/rdpp/weights"
)

var errNotOurs = errors.New("this is no file that rdpp wrote")

// errDamaged ends errors about what cannot stand in a file that rdpp wrote.
var errDamaged = errors.New("the file is damaged; restore it or train again")

// opened is what readDocument has to say of a file besides its document.
type opened struct {
	digest  bool   // the file has one, and is as it was written
	unknown string // a member of the document that this version does not know; "": all are known
}

// readDocument holds the file against its digest and reads the JSON document in its metadata. Names count letter by letter, and
// none may come twice. A later version may have further members, which are left out; a file without a digest is of an earlier
// one, so that there a member that is not known is a damaged name.
func readDocument(file *weights.File, key string, into any) (o opened, err error) {
	text, found := file.Metadata[key]
	if _, unfinished := file.Metadata[checkpointKey]; !found && unfinished {
		return o, errors.New("this is the checkpoint of a training; use the " + ModelFile + " beside it, or resume the training, which finishes it")
	}
	if !found {
		return o, fmt.Errorf("%w, its header has no %q entry; `train` makes one", errNotOurs, key)
	}
	if err := file.Verify(); err != nil {
		return o, fmt.Errorf("%w; restore the file or train again", err)
	}
	o.digest = file.Digest() != ""
	if o.unknown, err = decode(text, into, o.digest); err != nil {
		return o, fmt.Errorf("the %q entry of the header is damaged: %w; restore the file or train again", key, err)
	}
	return o, nil
}

// decode reads a document by its members' exact names. Further ones are left out where that is wanted, and the first is named.
func decode(text string, into any, further bool) (unknown string, err error) {
	err = json.Unmarshal([]byte(text), into, json.RejectUnknownMembers(true))
	if wrong := new(json.SemanticError); further && errors.Is(err, json.ErrUnknownName) && errors.As(err, &wrong) {
		return string(wrong.JSONPointer), json.Unmarshal([]byte(text), into)
	}
	return "", err
}

// lacking says which of the members, such as "config.arch", a document lacks or has null for.
func lacking(text string, members ...string) error {
	for _, member := range members {
		value := stdjson.RawMessage(text)
		for name := range strings.SplitSeq(member, ".") {
			var object map[string]stdjson.RawMessage
			if json.Unmarshal(value, &object) != nil {
				return fmt.Errorf("%s is missing, %w", member, errDamaged)
			}
			value = object[name]
		}
		if value == nil || string(value) == "null" {
			return fmt.Errorf("%s is missing, %w", member, errDamaged)
		}
	}
	return nil
}

// needed are the members that every version has written and a verdict depends on.
var needed = []string{"config.arch", "config.method", "config.image_size", "config.mean", "config.std", "config.map_sigma",
	"calibration.rule", "calibration.provisional", "calibration.threshold"}

// readInfo reads the document of a model file, and refuses what cannot be.
func readInfo(file *weights.File) (info Info, o opened, err error) {
	if o, err = readDocument(file, modelKey, &info); err != nil {
		return info, o, err
	}
	if info.FormatVersion < modelFormat || info.FormatVersion > modelFormatBits {
		return info, o, fmt.Errorf("model format %d, this program reads %d and %d; use the rdpp that wrote it, %s", info.FormatVersion,
			modelFormat, modelFormatBits, info.Software)
	}
	if err := lacking(file.Metadata[modelKey], needed...); err != nil {
		return info, o, err
	}
	info.Config.complete()
	info.Calibration.complete()
	if err := info.Config.Validate(); err != nil {
		// It is the file that is wrong, and no setting of the caller's.
		return info, o, fmt.Errorf("a setting in it cannot be: %s; %w", strings.TrimPrefix(err.Error(), "rdpp: "), errDamaged)
	}
	if err := info.checkTerms(); err != nil {
		return info, o, err
	}
	return info, o, info.Calibration.check(info.mostScore())
}
