package main

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"rdpp/rdpp"
	"rdpp/rdpp/command"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/printable"
	"rdpp/torch"
)

// baseOf is what the settings of a category are but for the flags that are given: a preset's, those of a file, or the defaults,
// of which the backbone depends on the teacher; both are those of the method. A file sets the teacher too, where no flag does.
func baseOf(flags *pflag.FlagSet, preset, file, method string, teacher *string) (of func(category string) rdpp.Config, err error) {
	switch {
	case preset != "" && file != "":
		return nil, command.Usagef("--preset and --config exclude each other")
	case preset != "" && !slices.Contains(rdpp.Presets(), preset):
		return nil, command.Usagef("--preset %q; use %s", preset, strings.Join(rdpp.Presets(), " or "))
	case file != "":
		c, had, err := rdpp.ReadConfig(file)
		if err != nil {
			return nil, err
		}
		if !flags.Changed("teacher") {
			if *teacher = had.Name(c.Arch); *teacher == "" {
				return nil, command.Usagef("the settings of --config are with the teacher %s; name its file with --teacher", had)
			}
		}
		return func(string) rdpp.Config { return c }, nil
	case preset != "":
		return func(category string) rdpp.Config { return rdpp.PresetOf(preset, category, method) }, nil
	}
	arch := rdpp.DefaultArch(*teacher)
	return func(string) rdpp.Config {
		c := rdpp.PresetOf("", "", method)
		c.Arch = arch
		return c
	}, nil
}

// provenance is what the command knows of how its models come to be.
func provenance(args []string, source *dataset.Source, device torch.Device, threads int) (*rdpp.Provenance, error) {
	libtorch, err := torch.Version()
	if err != nil {
		return nil, err
	}
	p := &rdpp.Provenance{Software: "rdpp " + rdpp.Version, Commit: rdpp.Commit(), Libtorch: libtorch, Device: device.String(), Threads: threads,
		Command: []string{"train"}}
	for _, arg := range args {
		p.Command = append(p.Command, printable.Text(arg))
	}
	for _, name := range slices.Concat([]string{source.Data, source.List}, source.Good, source.Bad, source.TestGood) {
		if name == "" {
			continue
		}
		whole, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		p.Data = append(p.Data, printable.Text(whole))
	}
	return p, nil
}
