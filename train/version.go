package main

import (
	"fmt"
	"io"

	"rdpp/rdpp"
)

const versionUsage = `train version [--licenses]     name the version
`

func runVersion(args []string, stdout io.Writer) error {
	flags := newFlags(versionUsage, stdout)
	licenses := flags.Bool("licenses", false, "print licences and notices of what is inside")
	if err := parse(flags, args); err != nil {
		return err
	}
	_, err := fmt.Fprintln(stdout, "rdpp", rdpp.Version)
	if err == nil && *licenses {
		_, err = fmt.Fprint(stdout, "\n", rdpp.Notice())
	}
	return err
}
