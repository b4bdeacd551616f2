package detector

import "rdpp/rdpp/lookout"

// Reference is what the model knows of good images, to watch a line by. It has no scores where those that the file holds are of
// images that were trained on, or that another model gave, and no looks where the file is of a version that kept none.
func (d *Detector) Reference() lookout.Reference {
	r := lookout.Reference{Looks: d.model.Info.Looks}
	c := &d.model.Info.Calibration
	if c.Provisional || c.Folds > 0 || c.LeftOut {
		return r
	}
	for _, score := range c.Scores {
		if score <= d.calibration.Threshold { // as those that are called good
			r.Scores = append(r.Scores, score)
		}
	}
	return r
}
