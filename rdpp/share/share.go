// Package share is dividing work among processes that know nothing of each other: which share each of them does.
package share

import (
	"fmt"
	"strconv"
	"strings"
)

// Share is which share a process does: share I of N, from 0; and who says so, "" for the command line or nobody.
type Share struct {
	I, N int
	By   string
}

// Of finds the share of a process: what shard says, I/N, or the environment of a Kubernetes Indexed Job or of a Slurm array,
// which shards tells of how many, 0 if it does not. Without any of it there is one share. Kubernetes tells a pod its index alone,
// so shards has to say how many there are; Slurm tells both, unless only some tasks of an array run again.
func Of(shard string, shards int, getenv func(string) string) (Share, error) {
	if shard != "" {
		i, n, both := strings.Cut(shard, "/")
		s := Share{N: number(n), I: number(i)}
		switch {
		case !both || s.I < 0 || s.N < 1 || s.I >= s.N:
			return Share{}, fmt.Errorf("%q is no share; write I/N, such as 0/4, 1/4, 2/4 or 3/4", shard)
		case shards != 0 && shards != s.N:
			return Share{}, fmt.Errorf("%q is no share of %d", shard, shards)
		}
		return s, nil
	}
	for _, name := range []string{"JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"} {
		text := getenv(name)
		if text == "" {
			continue
		}
		s := Share{I: number(text), N: shards, By: name}
		if s.N == 0 && name == "SLURM_ARRAY_TASK_ID" {
			least, most, step := number(getenv("SLURM_ARRAY_TASK_MIN")), number(getenv("SLURM_ARRAY_TASK_MAX")), number(getenv("SLURM_ARRAY_TASK_STEP"))
			if n := number(getenv("SLURM_ARRAY_TASK_COUNT")); n > 0 && least >= 0 && step > 0 && most == least+(n-1)*step && (s.I-least)%step == 0 {
				s.I, s.N = (s.I-least)/step, n
			}
		}
		if s.N == 0 {
			return Share{}, fmt.Errorf("%s is %q, but nothing says of how many shares", name, text)
		}
		if s.I < 0 || s.I >= s.N {
			return Share{}, fmt.Errorf("%s is %q, of %d shares; count them from 0", name, text, s.N)
		}
		return s, nil
	}
	if shards > 1 {
		return Share{}, fmt.Errorf("which of %d shares is not said", shards)
	}
	return Share{I: 0, N: 1}, nil
}

// number is a whole number of 0 or more, -1 if the text is none.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<30 {
		return -1
	}
	return n
}

// Range is the share of n things: from up to below to. The shares of all processes are each thing once, and differ by one at most.
func (s Share) Range(n int) (from, to int) {
	return int(int64(n) * int64(s.I) / int64(s.N)), int(int64(n) * int64(s.I+1) / int64(s.N))
}
