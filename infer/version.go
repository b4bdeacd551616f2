package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/torch"
)

const versionHelp = `Usage: infer version [--licenses]

Names the versions of rdpp and of the libtorch that it runs on.
`

func runVersion(_ context.Context, args []string, t *terminal) (int, error) {
	flags := pflag.NewFlagSet("version", pflag.ContinueOnError)
	licenses := flags.Bool("licenses", false, "print licences and notices of what is inside")
	switch err := t.parse(flags, args, versionHelp); {
	case err != nil:
		return 0, err
	case flags.NArg() > 0:
		return 0, usagef("%q is one argument too many", flags.Arg(0))
	}
	libtorch, err := torch.Version()
	if err == nil {
		_, err = fmt.Fprintf(t.stdout, "rdpp %s, libtorch %s\n", rdpp.Version, libtorch)
	}
	if err == nil && *licenses {
		_, err = fmt.Fprint(t.stdout, "\n", rdpp.Notice())
	}
	return exitDone, err
}
