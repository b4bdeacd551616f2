package main

import (
	"errors"
	"flag"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"

	"rdpp/rdpp/queue"
	"rdpp/rdpp/share"
)

// manifest is what a test looks at of a Kubernetes object.
type manifest struct {
	Kind string `yaml:"kind"`
	Spec struct {
		Completions int `yaml:"completions"`
		Template    struct {
			Metadata struct {
				Labels map[string]string `yaml:"labels"`
			} `yaml:"metadata"`
			Spec struct {
				Containers []struct {
					Name    string   `yaml:"name"`
					Args    []string `yaml:"args"`
					EnvFrom []struct {
						SecretRef struct {
							Name     string `yaml:"name"`
							Optional bool   `yaml:"optional"`
						} `yaml:"secretRef"`
					} `yaml:"envFrom"`
				} `yaml:"containers"`
			} `yaml:"spec"`
		} `yaml:"template"`
		PodSelector selector `yaml:"podSelector"`
		Ingress     []struct {
			From []struct {
				PodSelector selector `yaml:"podSelector"`
			} `yaml:"from"`
		} `yaml:"ingress"`
	} `yaml:"spec"`
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

// manifests are the Kubernetes objects of scripts/cluster, by their files.
func manifests(t *testing.T) map[string][]manifest {
	t.Helper()
	files, err := filepath.Glob("../scripts/cluster/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]manifest{}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for d := yaml.NewDecoder(f); ; {
			var m manifest
			if err := d.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			all[file] = append(all[file], m)
		}
	}
	return all
}

// TestClusterUsers: the NATS server asks for the user that whoever talks to it is, and its policy lets in these alone.
func TestClusterUsers(t *testing.T) {
	secret := strings.NewReplacer("$(RDPP_NATS_USER)", "me", "$(RDPP_NATS_PASSWORD)", "secret")
	var here, let []string // pods that talk to the server, and that the policy lets in
	servers := 0
	for file, objects := range manifests(t) {
		for _, m := range objects {
			if m.Kind == "NetworkPolicy" {
				if got := m.Spec.PodSelector.MatchLabels["app"]; got != "rdpp-nats" {
					t.Errorf("%s: got a policy for %q, want rdpp-nats", file, got)
				}
				for _, in := range m.Spec.Ingress {
					for _, from := range in.From {
						let = append(let, from.PodSelector.MatchLabels["app"])
					}
				}
			}
			for _, c := range m.Spec.Template.Spec.Containers {
				args := strings.Fields(secret.Replace(strings.Join(c.Args, " ")))
				named := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--nats=") })
				switch {
				case c.Name == "nats":
					servers++
					opt, err := server.ConfigureOptions(flag.NewFlagSet("nats", flag.ContinueOnError), args, nil, nil, nil)
					if err != nil {
						t.Errorf("%s: %q: %v", file, args, err)
					} else if opt.Username != "me" || opt.Password != "secret" || !opt.JetStream {
						t.Errorf("%s: got the user %q, JetStream %v, want the secret's user, and JetStream", file, opt.Username, opt.JetStream)
					}
				case named >= 0:
					here = append(here, m.Spec.Template.Metadata.Labels["app"])
					u, err := url.Parse(strings.TrimPrefix(args[named], "--nats="))
					if err != nil || u.User.String() != "me:secret" {
						t.Errorf("%s: got %q, %v, want the secret's user in the address", file, args[named], err)
					}
				default:
					continue
				}
				if len(c.EnvFrom) == 0 || c.EnvFrom[0].SecretRef.Name != "rdpp-nats" || c.EnvFrom[0].SecretRef.Optional {
					t.Errorf("%s: got the environment %+v, want that of the secret rdpp-nats", file, c.EnvFrom)
				}
			}
		}
	}
	slices.Sort(here)
	slices.Sort(let)
	if servers != 1 || len(here) != 4 || !slices.Equal(here, let) {
		t.Errorf("got %d servers, which let in %q, want one that lets in %q", servers, let, here)
	}
}

// parsed are the flags of a command line of the program that has to be one of a command's. What it names need not be there.
func parsed(t *testing.T, file string, args []string) (flag func(name string) string, rest []string) {
	t.Helper()
	for _, d := range app.Describe() {
		if d.Name != args[0] {
			continue
		}
		if err := d.Flags.Parse(args[1:]); err != nil {
			t.Errorf("%s: %q: %v", file, args, err)
		}
		return func(name string) string { return d.Flags.Lookup(name).Value.String() }, d.Flags.Args()
	}
	t.Fatalf("%s: %q is no command", file, args[0])
	return nil, nil
}

// TestCluster: what scripts/cluster asks of the program is what the program understands.
func TestCluster(t *testing.T) {
	out := map[string]bool{} // the folders of results
	seen := 0
	for file, objects := range manifests(t) {
		for _, m := range objects {
			for _, c := range m.Spec.Template.Spec.Containers {
				if c.Name != "infer" {
					continue
				}
				seen++
				flag, rest := parsed(t, file, c.Args)
				switch {
				case c.Args[0] == "worker" || flag("nats") != "":
					if err := queue.CheckURL(flag("nats")); err != nil {
						t.Errorf("%s: --nats: %v", file, err)
					}
				case len(rest) == 0:
					env := func(name string) string { return map[string]string{"JOB_COMPLETION_INDEX": "15"}[name] }
					shards, err := strconv.Atoi(flag("shards"))
					if err != nil {
						t.Fatal(err)
					}
					if s, err := share.Of(flag("shard"), shards, env); err != nil || s.N != m.Spec.Completions {
						t.Errorf("%s: got share %+v, %v, want one of %d", file, s, err, m.Spec.Completions)
					}
				}
				if len(rest) == 2 && rest[0] == "merge" {
					out[rest[1]] = true
				} else if len(rest) > 0 {
					t.Errorf("%s: got the arguments %q, want none", file, rest)
				} else if c.Args[0] == "batch" {
					out[flag("out")] = true
				}
			}
		}
	}
	if seen != 4 || len(out) != 1 {
		t.Errorf("got %d containers of ours, results in %v, want 4, in one folder", seen, out)
	}
	seen = 0
	variables := regexp.MustCompile(`"?\$\w+"?`)
	for _, file := range []string{"../scripts/cluster/batch.slurm", "../scripts/cluster/parallel.sh"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		line := strings.NewReplacer("{}", "3", "'", " ", "&&", "\n", ":::", "\n").Replace(variables.ReplaceAllString(string(text), "2"))
		for _, found := range regexp.MustCompile(`\binfer (batch .*)`).FindAllStringSubmatch(line, -1) {
			seen++
			flag, rest := parsed(t, file, strings.Fields(found[1]))
			if len(rest) == 2 && rest[0] == "merge" {
				continue
			}
			shards, err := strconv.Atoi(flag("shards"))
			if err != nil {
				t.Fatal(err)
			}
			env := func(name string) string { return map[string]string{"SLURM_ARRAY_TASK_ID": "15"}[name] }
			if s, err := share.Of(flag("shard"), shards, env); err != nil || len(rest) > 0 {
				t.Errorf("%s: got share %+v, %v, arguments %q", file, s, err, rest)
			}
		}
	}
	if seen != 4 {
		t.Errorf("got %d command lines in scripts, want 4", seen)
	}
}
