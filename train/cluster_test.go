package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"rdpp/rdpp/queue"
	"rdpp/rdpp/share"
)

// TestCluster: what scripts/cluster asks of the program is what the program understands.
func TestCluster(t *testing.T) {
	parsed := func(file string, args []string) func(flag string) string {
		t.Helper()
		for _, d := range app.Describe() {
			if d.Name != "" && d.Name == args[0] || d.Name == "" && strings.HasPrefix(args[0], "-") {
				if err := d.Flags.Parse(args); err != nil || d.Flags.NArg() > 1 {
					t.Errorf("%s: %q: %v", file, args, err)
				}
				return func(flag string) string { return d.Flags.Lookup(flag).Value.String() }
			}
		}
		t.Fatalf("%s: %q is no command", file, args[0])
		return nil
	}
	wantShare := func(file string, flag func(string) string, variable string, want int) {
		t.Helper()
		shards, err := strconv.Atoi(flag("shards"))
		if err != nil {
			t.Fatal(err)
		}
		env := func(name string) string { return map[string]string{variable: "15"}[name] }
		if s, err := share.Of("", shards, env); err != nil || s.N != want || flag("resume") != "true" {
			t.Errorf("%s: got share %+v, %v, resume %s, want one of %d, resumed", file, s, err, flag("resume"), want)
		}
	}
	files, err := filepath.Glob("../scripts/cluster/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for d := yaml.NewDecoder(f); ; {
			var m struct {
				Spec struct {
					Completions int `yaml:"completions"`
					Template    struct {
						Spec struct {
							Containers []struct {
								Name    string   `yaml:"name"`
								Command []string `yaml:"command"`
								Args    []string `yaml:"args"`
							} `yaml:"containers"`
						} `yaml:"spec"`
					} `yaml:"template"`
				} `yaml:"spec"`
			}
			if err := d.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, c := range m.Spec.Template.Spec.Containers {
				if c.Name != "train" {
					continue
				}
				seen++
				if len(c.Command) != 1 || c.Command[0] != "/opt/rdpp/bin/train" { // the image begins infer
					t.Errorf("%s: got the command %q, want train", file, c.Command)
				}
				flag := parsed(file, c.Args)
				if address := flag("nats"); address == "" {
					wantShare(file, flag, "JOB_COMPLETION_INDEX", m.Spec.Completions)
				} else if err := queue.CheckURL(address); err != nil {
					t.Errorf("%s: --nats: %v", file, err)
				}
			}
		}
	}
	text, err := os.ReadFile("../scripts/cluster/train.slurm")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`\bsrun train (.*)`).FindAllStringSubmatch(strings.ReplaceAll(string(text), `"$SLURM_CPUS_PER_TASK"`, "2"), -1) {
		seen++
		wantShare("train.slurm", parsed("train.slurm", strings.Fields(found[1])), "SLURM_ARRAY_TASK_ID", 16)
	}
	if seen != 4 {
		t.Errorf("got %d command lines, want 4", seen)
	}
}
