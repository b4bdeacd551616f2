package rdpp

import (
	"fmt"
	"math"
	"time"

	"rdpp/rdpp/dataset"
	"rdpp/torch"
)

// PrecisionAuto, as Config.Precision, stands for bf16 where the device has instructions for it and some steps show that
// it is faster, else for fp32. What was chosen takes its place before the first step.
const PrecisionAuto = "auto"

// trialSteps are timed, after one that is not; the fastest counts.
const trialSteps = 2

// choosePrecision puts a precision in the place of PrecisionAuto.
func (r *run) choosePrecision() error {
	able, err := torch.HasBFloat16(r.opt.Device)
	if err != nil {
		return fmt.Errorf("rdpp: precision: %w", err)
	}
	if !able {
		r.config.Precision = string(torch.FP32)
		r.opt.Log.Info("precision fp32: the device has no instructions for bf16")
		return nil
	}
	var took [2]time.Duration
	for i, p := range []torch.Precision{torch.FP32, torch.BF16} {
		if took[i], err = trialStep(r.config, r.opt.Device, p); err != nil {
			return fmt.Errorf("rdpp: precision: trying %s: %w", p, err)
		}
	}
	r.config.Precision = string(torch.BF16)
	if took[1] >= took[0] {
		r.config.Precision = string(torch.FP32)
	}
	r.opt.Log.Info(fmt.Sprintf("precision %s: a step takes %d ms in fp32, %d ms in bf16", r.config.Precision, took[0].Milliseconds(),
		took[1].Milliseconds()))
	return nil
}

// trialStep is how long a training step takes, with fresh networks and images of one colour.
func trialStep(config Config, device torch.Device, precision torch.Precision) (fastest time.Duration, err error) {
	config.Precision, config.Accumulate, config.Average = string(precision), 1, 0
	r := &run{config: config, opt: TrainOptions{Device: device}, steps: 1}
	defer r.close()
	if r.ssot, err = config.ssot(); err != nil {
		return 0, err
	}
	if r.model, err = NewModel(config, device); err != nil {
		return 0, err
	}
	if err := r.startAdam(); err != nil {
		return 0, err
	}
	if err := r.model.train(true); err != nil {
		return 0, err
	}
	values := 3 * config.ImageSize * config.ImageSize
	batch := &dataset.Batch{B: config.Batch, Clean: make([]float32, config.Batch*values), Noisy: make([]float32, config.Batch*values)}
	for i := range batch.B {
		batch.Shuffle = append(batch.Shuffle, int64(i))
	}
	for i := range batch.Clean { // not all alike: features that are constant have no cosine
		batch.Clean[i] = float32(i%17) / 17
		batch.Noisy[i] = float32(i%19) / 19
	}
	fastest = math.MaxInt64
	for i := range 1 + trialSteps {
		began := time.Now()
		if _, err := r.step(batch); err != nil {
			return 0, err
		}
		if i > 0 {
			fastest = min(fastest, time.Since(began))
		}
	}
	return fastest, nil
}
