package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

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
	if err == nil && bytes.HasPrefix(text, []byte("{")) {
		var summary struct {
			Config  *config.Config `json:"config"`
			Teacher teacher.Info   `json:"teacher"`
		}
		_, err := document.Decode(string(text), &summary, true)
		if err == nil && summary.Config == nil {
			err = errors.New("it has no settings")
		}
		if err != nil {
			return c, t, fmt.Errorf("engine: %s as a metrics.json: %w", path, err)
		}
		c, t = *summary.Config, summary.Teacher
		c.Complete()
		if err := c.Validate(); err != nil {
			return c, t, fmt.Errorf("engine: %s: a setting in it cannot be: %w", path, err)
		}
		return c, t, nil
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
