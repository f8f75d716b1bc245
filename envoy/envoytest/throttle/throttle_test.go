package throttle_test

import (
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
)

// TestModels calls a limit of 4 in 10 s in several rhythms.
func TestModels(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		model throttle.Model
		at    []int // seconds after the start
		want  string
	}{
		{"burst", throttle.Fixed, []int{0, 0, 0, 0, 0, 0}, "yyyynn"},
		{"next window", throttle.Fixed, []int{7, 7, 8, 9, 10, 11}, "yyyyyy"},
		{"trickle in windows", throttle.Fixed, []int{0, 3, 6, 9, 12, 15}, "yyyyyy"},
		{"next window slides", throttle.Sliding, []int{7, 7, 8, 9, 10, 11}, "yyyynn"},
		{"trickle slides", throttle.Sliding, []int{0, 3, 6, 9, 12, 15}, "yyyyyy"},
		{"trickle is no silence", throttle.IdleReset, []int{0, 3, 6, 9, 12, 15}, "yyyynn"},
		{"silence", throttle.IdleReset, []int{0, 0, 0, 0, 10, 10}, "yyyyyy"},
		{"a refused call prolongs", throttle.IdleReset, []int{0, 0, 0, 0, 0, 9, 18, 28}, "yyyynnnn"},
		{"who waits is let in", throttle.IdleReset, []int{0, 0, 0, 0, 0, 10}, "yyyyny"},
		{"each violation longer", throttle.Fixed, []int{0, 0, 0, 0, 0, 9, 15, 34, 74}, "yyyynnnny"},
	} {
		t.Run(c.name, func(t *testing.T) {
			th := throttle.New(throttle.Options{Model: c.model, N: 4, Window: 10 * time.Second})
			got := ""
			for _, s := range c.at {
				if th.Take(start.Add(time.Duration(s) * time.Second)) {
					got += "y"
				} else {
					got += "n"
				}
			}
			if got != c.want {
				t.Errorf("calls at %v: %s, want %s", c.at, got, c.want)
			}
			if n := len(th.Calls()); n != len(c.at) {
				t.Errorf("%d calls kept, want %d", n, len(c.at))
			}
		})
	}
}
