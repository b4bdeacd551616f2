package share

import (
	"fmt"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	slurm := func(id, least, most, step, count string) map[string]string {
		return map[string]string{"SLURM_ARRAY_TASK_ID": id, "SLURM_ARRAY_TASK_MIN": least, "SLURM_ARRAY_TASK_MAX": most, "SLURM_ARRAY_TASK_STEP": step,
			"SLURM_ARRAY_TASK_COUNT": count}
	}
	job := func(i string) map[string]string { return map[string]string{"JOB_COMPLETION_INDEX": i} }
	for _, c := range []struct {
		shard  string
		shards int
		env    map[string]string
		want   string // I/N, or a part of the error
	}{
		{"", 0, nil, "0/1"}, {"", 1, nil, "0/1"}, {"2/3", 0, nil, "2/3"}, {"2/3", 3, job("1"), "2/3"},
		{"", 64, job("63"), "63/64"}, {"", 64, job("0"), "0/64"},
		{"", 0, slurm("7", "0", "9", "1", "10"), "7/10"}, {"", 0, slurm("1", "1", "4", "1", "4"), "0/4"}, {"", 0, slurm("6", "2", "8", "2", "4"), "2/4"},
		{"", 10, slurm("7", "3", "7", "4", "2"), "7/10"}, // two tasks of ten run again
		{"", 0, slurm("7", "3", "9", "1", "3"), "nothing says of how many"},
		{"", 0, job("1"), "nothing says of how many"}, {"", 2, job("2"), "count them from 0"}, {"", 2, job("x"), "count them from 0"},
		{"3/3", 0, nil, "no share"}, {"-1/3", 0, nil, "no share"}, {"1", 0, nil, "no share"}, {"1/2/3", 0, nil, "no share"}, {"1/0", 0, nil, "no share"},
		{"1/3", 4, nil, "no share of 4"}, {"", 4, nil, "which of 4 shares"},
	} {
		s, err := Of(c.shard, c.shards, func(name string) string { return c.env[name] })
		got := fmt.Sprintf("%d/%d", s.I, s.N)
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%q, %d, %v: got %s, want %s", c.shard, c.shards, c.env, got, c.want)
		}
	}
}

func FuzzOf(f *testing.F) {
	f.Add("1/4", 0, "", "", "0", "0", "0", "0")
	f.Add("", 4, "3", "", "0", "0", "0", "0")
	f.Add("", 0, "", "6", "2", "8", "2", "4")
	f.Fuzz(func(t *testing.T, shard string, shards int, job, id, least, most, step, count string) {
		env := map[string]string{"JOB_COMPLETION_INDEX": job, "SLURM_ARRAY_TASK_ID": id, "SLURM_ARRAY_TASK_MIN": least, "SLURM_ARRAY_TASK_MAX": most,
			"SLURM_ARRAY_TASK_STEP": step, "SLURM_ARRAY_TASK_COUNT": count}
		if s, err := Of(shard, shards, func(name string) string { return env[name] }); err == nil && (s.I < 0 || s.I >= s.N) {
			t.Errorf("got share %d of %d", s.I, s.N)
		}
	})
}

func TestRange(t *testing.T) {
	for _, n := range []int{0, 1, 5, 16, 500} {
		for _, of := range []int{1, 3, 16, 600} {
			next := 0
			for i := range of {
				from, to := Share{I: i, N: of}.Range(n)
				if size := to - from; from != next || size < n/of || size > n/of+1 {
					t.Errorf("%d/%d of %d: got %d to %d, want from %d, of equal size", i, of, n, from, to, next)
				}
				next = to
			}
			if next != n {
				t.Errorf("%d shares of %d: got %d", of, n, next)
			}
		}
	}
}
