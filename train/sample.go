package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/sample"
)

const sampleUsage = `train sample --out DIR [flags]     make a sample data set in MVTec's layout

Painted photographs: DIR/part (a machined part) and DIR/texture (a woven
fabric), with good images for training, good and defective ones for testing,
and masks of the defects.

`

func runSample(ctx context.Context, args []string, t *command.Terminal) error {
	var opt sample.Options
	flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
	out := flags.String("out", "", "`DIR` for the data set")
	flags.StringVar(&opt.Category, "category", "both", "`NAME`: part, texture or both")
	flags.IntVar(&opt.Size, "size", 256, "`N` x N pixels, 32 to 4096")
	flags.IntVar(&opt.Train, "train", 60, "`N` good images for training, at least 1")
	flags.IntVar(&opt.TestGood, "test-good", 20, "`N` good images for testing, 0 for none")
	flags.IntVar(&opt.TestDefect, "test-defect", 8, "`N` defective images of each type, 0 for none")
	flags.Uint64Var(&opt.Seed, "seed", 1, "`N`, of everything drawn")
	if err := parse(t, flags, args, command.Help{Text: sampleUsage}); err != nil {
		return err
	}
	switch {
	case *out == "":
		return command.Usagef("--out is needed")
	case opt.Size == 0 || opt.Train == 0:
		return command.Usagef("--size and --train must not be 0")
	case opt.TestGood < 0 || opt.TestDefect < 0:
		return command.Usagef("--test-good and --test-defect must not be negative")
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
		return err
	}
	say(t.Stdout, "sample data: %s", *out)
	return nil
}
