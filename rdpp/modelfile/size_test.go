package modelfile_test

import (
	"testing"

	"rdpp/rdpp/config"
	"rdpp/rdpp/method"
	"rdpp/rdpp/modelfile"
	"rdpp/rdpp/patchcore"
	"rdpp/torch"
)

// A model that is going to have a bank is as large as with it before it has one.
func TestSize(t *testing.T) {
	c := config.Default()
	c.Arch, c.ImageSize, c.Method, c.Coreset, c.Precision = "resnet18", 64, patchcore.Name, 0.5, "fp32"
	m, err := modelfile.New(c, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	teacher, err := m.Size()
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.Learned().Learner(m.Net, method.LearnerOptions{Precision: torch.FP32, Images: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const bank = 100 * 64 * 384 * 2 / 2 // half of 64 patches of an image, of 384 float16
	if got, err := m.Size(); got != teacher+bank || err != nil {
		t.Errorf("got %d bytes and error %v, want %d", got, err, teacher+bank)
	}
}
