package rdpp

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestRateFactor(t *testing.T) {
	for _, c := range []struct {
		schedule        string
		update, updates int
		want            float64
	}{
		{ScheduleConstant, 0, 100, 1}, {ScheduleConstant, 99, 100, 1},
		{ScheduleCosine, 0, 100, 0.2}, {ScheduleCosine, 4, 100, 1}, // five updates up
		{ScheduleCosine, 5, 100, 1 - 0.999*(1-math.Cos(math.Pi/95))/2},
		{ScheduleCosine, 99, 100, 0.001},
		{ScheduleCosine, 50, 101, 1 - 0.999*(1-math.Cos(math.Pi*45/95))/2}, // six up, 95 down
		{ScheduleCosine, 0, 1, 1},                                          // too few for either way
		{ScheduleCosine, 0, 2, 1}, {ScheduleCosine, 1, 2, 0.001},
	} {
		config := Config{Schedule: c.schedule}
		if got := config.rateFactor(c.update, c.updates); math.Abs(got-c.want) > 1e-12 { // rounding
			t.Errorf("%s, update %d of %d: got %v, want %v", c.schedule, c.update, c.updates, got, c.want)
		}
	}
}

func TestSameConfig(t *testing.T) {
	before := DefaultConfig()
	if err := sameConfig(before, before); err != nil {
		t.Errorf("the same: got %v", err)
	}
	before.Seed = 1 << 53 // a float64 holds it, and not the next one
	now := before
	now.Seed++
	if err := sameConfig(before, now); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "seed is 9007199254740993; the run that resume continues has 9007199254740992") {
		t.Errorf("another seed: got %v", err)
	}
}
