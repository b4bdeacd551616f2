package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"rdpp/rdpp"
	"rdpp/rdpp/sample"
)

const sampleUsage = `train sample --out DIR [flags]     make a sample data set in MVTec's layout

Painted photographs: DIR/part (a machined part) and DIR/texture (a woven
fabric), with good images for training, good and defective ones for testing,
and masks of the defects.

`

func runSample(ctx context.Context, args []string, stdout io.Writer) error {
	var opt sample.Options
	flags := newFlags(sampleUsage, stdout)
	out := flags.String("out", "", "`DIR` for the data set")
	flags.StringVar(&opt.Category, "category", "both", "part, texture or both")
	flags.IntVar(&opt.Size, "size", 256, "side of the images, pixels, 32 to 4096")
	flags.IntVar(&opt.Train, "train", 60, "good images for training, at least 1")
	flags.IntVar(&opt.TestGood, "test-good", 20, "good images for testing, 0 for none")
	flags.IntVar(&opt.TestDefect, "test-defect", 8, "defective images for testing, of each type, 0 for none")
	flags.Uint64Var(&opt.Seed, "seed", 1, "of everything drawn")
	if err := parse(flags, args); err != nil {
		return err
	}
	switch {
	case *out == "":
		return fmt.Errorf("%w: --out is needed; see train sample --help", errUsage)
	case opt.Size == 0 || opt.Train == 0:
		return fmt.Errorf("%w: --size and --train must not be 0; see train sample --help", errUsage)
	case opt.TestGood < 0 || opt.TestDefect < 0:
		return fmt.Errorf("%w: --test-good and --test-defect must not be negative; see train sample --help", errUsage)
	}
	// What is 0 here is negative in the package, where 0 stands for its default.
	if opt.TestGood == 0 {
		opt.TestGood = -1
	}
	if opt.TestDefect == 0 {
		opt.TestDefect = -1
	}
	err := sample.WriteContext(ctx, *out, &opt)
	if ctx.Err() != nil {
		return fmt.Errorf("%w; nothing of it is left, run the same command again", rdpp.ErrInterrupted)
	}
	if err != nil {
		if err = inFlags(flags, err); errors.Is(err, rdpp.ErrConfig) {
			err = fmt.Errorf("%w; see train sample --help", err)
		}
		return err
	}
	say(stdout, "sample data: %s", *out)
	return nil
}
