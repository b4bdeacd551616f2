package rdpp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// PrecisionAuto, as Config.Precision, stands for bf16 where the device has instructions for it and some steps show that
// it is faster, else for fp32. What was chosen takes its place before the first step.
const PrecisionAuto = "auto"

// trialSteps are timed, after one that is not; the fastest counts.
const trialSteps = 2

// choosePrecision puts a precision in the place of PrecisionAuto.
func (r *run) choosePrecision(ctx context.Context) error {
	able, err := torch.HasBFloat16(r.opt.Device)
	if err != nil {
		return fmt.Errorf("rdpp: precision: %w", err)
	}
	chosen := torch.FP32
	if !able {
		r.opt.Log.Info("precision fp32: the device has no instructions for bf16")
	} else {
		wide, wideErr := trialStep(ctx, r.config, r.opt.Device, torch.FP32)
		narrow, narrowErr := trialStep(ctx, r.config, r.opt.Device, torch.BF16)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case wideErr != nil && narrowErr != nil:
			return setting.Advise(fmt.Errorf("rdpp: precision: trying fp32 and bf16: %w", errors.Join(wideErr, narrowErr)), "choose one with {precision}")
		case narrowErr == nil && (wideErr != nil || narrow < wide): // one that fails may have wanted too much memory
			chosen = torch.BF16
		}
		r.opt.Log.Info(fmt.Sprintf("precision %s: a step takes %d ms in fp32, %d ms in bf16", chosen, wide.Milliseconds(), narrow.Milliseconds()))
	}
	r.config.Precision = string(chosen)
	r.model.Info.Config.Precision = r.config.Precision
	return nil
}

// trialStep is how long a training step takes, with fresh networks and made-up images, all of which have a noisy one.
func trialStep(ctx context.Context, config Config, device torch.Device, precision torch.Precision) (fastest time.Duration, err error) {
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
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
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
