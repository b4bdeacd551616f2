package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rdpp/rdpp/config"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/teacher"
	"rdpp/rdpp/weights"
)

// FromModel returns the settings with which a training goes on from a model file, Options.From: the model's own, but for those that
// a training finds by itself, which it is to find anew.
func FromModel(path string) (config.Config, error) {
	file, info, err := openModel(path)
	if err != nil {
		return config.Config{}, err
	}
	defer file.Close()
	c := info.Config
	c.Precision = method.PrecisionAuto
	if c.Updates > 0 {
		c.Epochs = config.PresetOf("", "", c.Method).Epochs // those in the file are what the updates took
	}
	return c, nil
}

// openModel opens a model file and reads its document.
func openModel(path string) (*weights.File, *modelfile.Info, error) {
	file, err := weights.OpenSafetensors(path)
	if err != nil {
		return nil, nil, setting.Advise(fmt.Errorf("engine: %w", err), "name the model to go on from with {from}")
	}
	info, _, err := modelfile.ReadInfo(file)
	if err != nil {
		file.Close()
		return nil, nil, setting.Advise(fmt.Errorf("engine: %s: %w", path, err), "name a model with {from}")
	}
	return file, &info, nil
}

// openParent takes over the teacher and the weights of the model to go on from. Without weights, as a checkpoint has later ones, it
// only says which it is.
func (r *run) openParent(wanted bool) error {
	from := r.opt.From
	if own, err := os.Stat(r.path(ModelFile)); err == nil {
		if other, err := os.Stat(from); err == nil && os.SameFile(own, other) {
			return setting.Refuse("from", from, "that is the model that this training writes: use another folder for the results")
		}
	}
	if r.opt.Teacher != teacher.Auto {
		return setting.Refuse("teacher", r.opt.Teacher, "the model of {from} has a teacher, by which it has learned: leave {teacher} out")
	}
	file, info, err := openModel(from)
	if err != nil {
		return err
	}
	defer file.Close()
	goes, can := r.config.Learned().(method.Continuer)
	if !can {
		return setting.Refuse("from", from, "what %s remembers is chosen of all images at once, in one pass: train on the old images and the new ones together, "+
			"without {from}", r.config.Method)
	}
	if err := sameLasting(&info.Config, &r.config, goes.Lasting()); err != nil {
		return err
	}
	if wanted {
		if err := r.config.Learned().Load(r.model.Net, file, info.Facts); err != nil {
			return fmt.Errorf("engine: %s: %w", from, err)
		}
	}
	sum, err := file.SHA256()
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	r.model.Info.Teacher, r.seen = info.Teacher, info.Data.Fingerprint
	r.model.Info.From = modelfile.ParentInfo{Origin: filepath.Base(from), SHA256: sum, Images: info.Data.Images + info.From.Images}
	return nil
}

// checkParent refuses the images that the model to go on from has learned from: those of them that are held out would set the
// threshold too low.
func (r *run) checkParent() error {
	if r.seen == "" || r.seen != r.model.Info.Data.Fingerprint {
		return nil
	}
	return setting.Refuse("from", r.opt.From, "the images are those that it has learned from: give new ones, or train it for longer with {resume} in its own folder")
}

// otherParent says that a checkpoint is of a training that went on from another model, or from none.
func (r *run) otherParent(before modelfile.ParentInfo) error {
	if before == (modelfile.ParentInfo{}) {
		return setting.Refuse("from", r.opt.From, "the run that {resume} continues began without it: leave it out, or start anew with {overwrite}")
	}
	var given any
	if r.opt.From != "" {
		given = r.opt.From
	}
	return setting.Refuse("from", given, "the run that {resume} continues began from %s, SHA-256 %.8s: name that one, or start anew with "+
		"{overwrite}", strings.NewReplacer("{", "", "}", "").Replace(before.Origin), before.SHA256)
}

// sameLasting names a setting that a model and a training that is to go on from it have to share and do not.
func sameLasting(before, now *config.Config, lasting []string) error {
	var a, b map[string]json.RawMessage
	for to, c := range map[*map[string]json.RawMessage]*config.Config{&a: before, &b: now} {
		text, err := json.Marshal(c)
		if err == nil {
			err = json.Unmarshal(text, to)
		}
		if err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	for _, name := range lasting {
		if !bytes.Equal(a[name], b[name]) {
			given, err := told(b[name])
			if err != nil {
				return err
			}
			return setting.Refuse(name, given, "the model of {from} has %s, by which its weights have learned: leave {%s} out, or train without {from}",
				brief(string(a[name])), name)
		}
	}
	return nil
}
