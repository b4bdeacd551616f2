package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"rdpp/rdpp/dataset"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// trialSteps are timed, after one that is not; the fastest counts.
const trialSteps = 2

// choosePrecision puts a precision in the place of method.PrecisionAuto.
func (r *run) choosePrecision(ctx context.Context) error {
	able, err := torch.HasBFloat16(r.opt.Device)
	if err != nil {
		return fmt.Errorf("engine: precision: %w", err)
	}
	chosen := torch.FP32
	switch {
	case !r.plan.TryPrecisions:
	case !able:
		r.opt.Log.Info("precision fp32: the device has no instructions for bf16")
	default:
		wide, wideErr := r.trialStep(ctx, torch.FP32)
		narrow, narrowErr := r.trialStep(ctx, torch.BF16)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case wideErr != nil && narrowErr != nil:
			return setting.Advise(fmt.Errorf("engine: precision: trying fp32 and bf16: %w", errors.Join(wideErr, narrowErr)), "choose one with {precision}")
		case narrowErr == nil && (wideErr != nil || narrow < wide): // one that fails may have wanted too much memory
			chosen = torch.BF16
		}
		r.opt.Log.Info(fmt.Sprintf("precision %s: a step takes %d ms in fp32, %d ms in bf16", chosen, wide.Milliseconds(), narrow.Milliseconds()))
	}
	r.config.Precision = string(chosen)
	r.model.Info.Config.Precision = r.config.Precision
	return nil
}

// trialStep is how long a training step takes, with a fresh net and made-up images, all of which have a noisy one.
func (r *run) trialStep(ctx context.Context, precision torch.Precision) (fastest time.Duration, err error) {
	learned := r.config.Learned()
	net, err := learned.New(method.Options{Device: r.opt.Device})
	if err != nil {
		return 0, err
	}
	defer net.Close()
	learner, err := learned.Learner(net, method.LearnerOptions{Precision: precision})
	if err != nil {
		return 0, err
	}
	defer learner.Close()
	B, values := r.plan.Batch, 3*r.config.ImageSize*r.config.ImageSize
	batch := &dataset.Batch{B: B, Clean: make([]float32, B*values), Noisy: make([]float32, B*values)}
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
		if _, err := learner.Step(batch, i, 1+trialSteps); err != nil {
			return 0, err
		}
		if i > 0 {
			fastest = min(fastest, time.Since(began))
		}
	}
	return fastest, nil
}
