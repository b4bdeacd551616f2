package main

import (
	"fmt"
	"io"

	"rdpp/rdpp/sample"
)

const sampleUsage = `train sample --out DIR [flags]     make a sample data set in MVTec's layout

Painted photographs: DIR/part (a machined part) and DIR/texture (a woven
fabric), with good images for training, good and defective ones for testing,
and masks of the defects.

`

func runSample(args []string, stdout io.Writer) error {
	var opt sample.Options
	flags := newFlags(sampleUsage, stdout)
	out := flags.String("out", "", "`DIR` for the data set")
	flags.StringVar(&opt.Category, "category", "both", "part, texture or both")
	flags.IntVar(&opt.Size, "size", 256, "side of the images, pixels")
	flags.IntVar(&opt.Train, "train", 60, "good images for training")
	flags.IntVar(&opt.TestGood, "test-good", 20, "good images for testing")
	flags.IntVar(&opt.TestDefect, "test-defect", 8, "defective images for testing, of each type")
	flags.Uint64Var(&opt.Seed, "seed", 1, "of everything drawn")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *out == "" {
		return fmt.Errorf("%w: --out is needed; see train sample --help", errUsage)
	}
	if err := sample.Write(*out, &opt); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "sample data: %s\n", *out)
	return nil
}
