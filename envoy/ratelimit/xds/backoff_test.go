package xds_test

import (
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/ratelimit/xds"
)

// TestBackoffGrows names flaw 17: there a "random factor" of 0.5 is the
// multiplier, and every wait is the shortest.
func TestBackoffGrows(t *testing.T) {
	for _, c := range []struct {
		name    string
		backoff xds.Backoff
		random  float64
		want    []time.Duration
	}{
		{"defaults", xds.Backoff{}, 0, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}},
		{"shortened by chance", xds.Backoff{}, 0.5, []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second}},
		{"without chance", xds.Backoff{Initial: 10 * time.Second, Max: time.Minute, Jitter: -1}, 0.9, []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute}},
		{"bounds the wrong way round", xds.Backoff{Initial: time.Minute, Max: time.Second}, 0, []time.Duration{time.Minute, time.Minute}},
		{"as long as can be", xds.Backoff{Initial: 1 << 62, Max: 1<<63 - 1}, 0, []time.Duration{1 << 62, 1<<63 - 1, 1<<63 - 1}},
	} {
		for i, want := range c.want {
			if got := c.backoff.Wait(i+1, c.random); got != want {
				t.Errorf("%s: wait after %d failures = %v, want %v", c.name, i+1, got, want)
			}
		}
	}
	if got := (xds.Backoff{}).Wait(1<<30, 0); got != time.Minute {
		t.Errorf("wait after 2^30 failures = %v, want a minute", got)
	}
}
