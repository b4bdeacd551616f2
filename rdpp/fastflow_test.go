package rdpp_test

import (
	"bytes"
	"context"
	"image"
	"path/filepath"
	"testing"

	"rdpp/rdpp"
	"rdpp/rdpp/framing"
)

// flowing is FastFlow with small flows, in four steps.
func flowing() rdpp.Config {
	c := tiny()
	c.Method, c.ImageSize, c.Batch, c.Updates, c.Epochs = rdpp.MethodFastFlow, 64, 3, 0, 2
	c.FlowSteps, c.FlowHidden = 2, 0.25
	c.Calibration, c.FalseAlarm = 0.3, 0.2
	return c
}

// Exported files say what the model says, also of pictures of which something does not count.
func TestFastFlowExport(t *testing.T) {
	t.Parallel()
	images := photographs(t)[1]
	padded := flowing()
	padded.Fit, padded.FlowTop = framing.Pad, 0.01
	for _, c := range []rdpp.Config{flowing(), padded} {
		testFramed(t, filepath.Join(trained(t, c), rdpp.ModelFile), images, image.Pt(images[0].W, images[0].H))
	}
}

// FastFlow goes on from a model: the teacher and the orders of the channels stay, and the weights learn.
func TestFastFlowFrom(t *testing.T) {
	t.Parallel()
	older := filepath.Join(trained(t, flowing()), rdpp.ModelFile)
	out := t.TempDir()
	if _, err := rdpp.Train(context.Background(), goingOn(t, older), newImages(t), rdpp.TrainOptions{Out: out, From: older}); err != nil {
		t.Fatal(err)
	}
	before, after := tensorsOf(t, older), tensorsOf(t, filepath.Join(out, rdpp.ModelFile))
	for name, stays := range map[string]bool{"flow.layer1.0.order": true, "flow.layer3.1.order": true, "encoder.conv1.weight": true,
		"flow.layer1.0.conv1.weight": false, "flow.layer2.norm_weight": false, "flow.layer3.1.scale": false} {
		if len(before[name]) == 0 || bytes.Equal(before[name], after[name]) != stays {
			t.Errorf("%s: got %d bytes, the same as before: %v, want %v", name, len(before[name]), !stays, stays)
		}
	}
}
