package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"rdpp/rdpp/config"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/setting"
	"rdpp/rdpp/weights"
)

// readFinished reads what a finished run has left that is resumed and kept no checkpoint: its summary, and what its model says.
// Nil where there is none.
func (r *run) readFinished() (*modelfile.Info, error) {
	if !r.opt.Resume {
		return nil, nil
	}
	text, err := os.ReadFile(r.path(MetricsFile)) // which is written after the model
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	file, err := weights.OpenSafetensors(r.path(ModelFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, r.anew(err)
	}
	defer file.Close()
	info, _, err := modelfile.ReadInfo(file)
	if err != nil {
		return nil, r.anew(fmt.Errorf("%s: %w", file.Path, err))
	}
	var summary Summary
	if err := json.Unmarshal(text, &summary); err != nil {
		return nil, r.anew(fmt.Errorf("%s: %w", r.path(MetricsFile), err))
	}
	r.finished = &summary
	return &info, nil
}

func (r *run) anew(err error) error {
	return setting.Advise(fmt.Errorf("engine: the finished run: %w", err), "{overwrite} starts anew")
}

// settleAs leaves no choice where the run that is resumed has made one.
func (r *run) settleAs(before *config.Config) {
	if r.config.Precision == method.PrecisionAuto {
		r.config.Precision = before.Precision
	}
	if r.config.BitDepth == method.BitDepthAuto {
		r.config.BitDepth = before.BitDepth
	}
	if r.config.Tile == method.TileAuto {
		r.config.Tile, r.config.TileStride = before.Tile, before.TileStride
	}
	if align := &r.config.Align; align.On() && align.Mean == "" {
		align.Mean, align.Least = before.Align.Mean, before.Align.Least
	}
}

// sameFinished says whether the finished run is the one that is asked for, which then is nothing more to do for.
func (r *run) sameFinished(before *modelfile.Info) error {
	was := before.Config
	if was.Epochs != r.config.Epochs || was.Updates != r.config.Updates {
		return setting.Refuse("epochs", r.config.Epochs, "the run is finished, with %d, and kept no checkpoint to go on from: start anew with {overwrite}, and "+
			"with {keep_checkpoint} where more are to follow", was.Epochs)
	}
	if err := SameConfig(was, r.config); err != nil {
		return err
	}
	if before.From != r.model.Info.From {
		return r.otherParent(before.From)
	}
	return r.sameOrigin(before, r.path(ModelFile))
}

// Finished is the summary of the finished run in a folder; nil where there is none. With settings and a teacher's name or file, as
// of Options, a run of others is refused, as Options.Resume would. It is quick, since the images are not looked at.
func Finished(folder string, c *config.Config, teacher string) (*Summary, error) {
	r := &run{opt: Options{Out: folder, Resume: true}}
	before, err := r.readFinished()
	if before == nil || c == nil || err != nil {
		return r.finished, err
	}
	r.config = *c
	r.settleAs(&before.Config)
	if r.config.Updates > 0 && r.config.Updates == before.Config.Updates { // which say how many there are
		r.config.Epochs = before.Config.Epochs
	}
	if r.config.Tile == before.Config.Tile && r.config.TileStride == 0 {
		r.config.TileStride = before.Config.TileStride
	}
	if err := SameConfig(before.Config, r.config); err != nil {
		return nil, err
	}
	return r.finished, r.sameTeacher(before, teacher)
}
