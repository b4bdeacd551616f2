package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"rdpp/rdpp/config"
	"rdpp/rdpp/document"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/regular"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
)

// largestMetrics bounds a metrics.json, bytes.
const largestMetrics = 64 << 20

// ReadConfig reads the settings of a training, and its teacher, from the metrics.json or the model file that it has written.
func ReadConfig(path string) (c config.Config, t teacher.Info, err error) {
	text, err := regular.ReadFile(path, largestMetrics)
	if errors.Is(err, fs.ErrNotExist) {
		return c, t, fmt.Errorf("engine: no file at %s; name a metrics.json or a model.safetensors", path)
	}
	if text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff"))); err == nil && bytes.HasPrefix(text, []byte("{")) {
		if c, t, err = settingsIn(string(text)); err != nil {
			err = fmt.Errorf("engine: %s as a metrics.json: %w", path, err)
		}
		return c, t, err
	}
	if err != nil && !errors.Is(err, regular.ErrLarge) {
		return c, t, fmt.Errorf("engine: %w", err)
	}
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		return c, t, fmt.Errorf("engine: %w; name a metrics.json or a model.safetensors", err)
	}
	defer file.Close()
	info, _, err := modelfile.ReadInfo(file)
	if err != nil {
		return c, t, fmt.Errorf("engine: %s: %w", path, err)
	}
	if info.Imported.Origin != "" {
		return c, t, fmt.Errorf("engine: %s: it was imported, and says nothing of its training", path)
	}
	return info.Config, info.Teacher, nil
}

// settingsIn are the settings and the teacher of a metrics.json, which people write in: a setting that is not known is refused, be it
// misspelt or a later version's, as the training would do without it.
func settingsIn(text string) (c config.Config, t teacher.Info, err error) {
	var summary struct {
		Config  jsontext.Value `json:"config"`
		Teacher teacher.Info   `json:"teacher"`
	}
	if _, err := document.Decode(text, &summary, true); err != nil {
		return c, t, plainly(err, "")
	}
	if summary.Config == nil {
		return c, t, errors.New("it has no settings")
	}
	if _, err := document.Decode(string(summary.Config), &c, false); err != nil {
		return c, t, plainly(err, "config")
	}
	c.Complete()
	if err := c.Validate(); err != nil {
		return c, t, fmt.Errorf("a setting in it cannot be: %w", err)
	}
	return c, summary.Teacher, nil
}

// plainly is an error of reading JSON within a member, in the words of its file.
func plainly(err error, member string) error {
	wrong := new(json.SemanticError)
	if !errors.As(err, &wrong) || wrong.JSONPointer == "" {
		return err
	}
	name := strings.ReplaceAll(strings.Trim(member+string(wrong.JSONPointer), "/"), "/", ".")
	switch {
	case errors.Is(err, json.ErrUnknownName):
		return fmt.Errorf("%s is no setting that this version knows; correct its name, or take it out", name)
	case wrong.Err == nil:
		kind := strings.NewReplacer("{", "object", "[", "array").Replace(wrong.JSONKind.String())
		return fmt.Errorf("%s cannot be a JSON %s", name, kind)
	}
	return fmt.Errorf("%s: %w", name, wrong.Err)
}
