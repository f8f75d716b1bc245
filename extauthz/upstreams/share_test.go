package upstreams_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// A refusal that one instance sees stops the others, also what they hold.
func TestPauseIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(limit(limits.Window, 10, 10*time.Second, time.Minute))
		b := upstreamstest.NewBench(t, c, nil, upstreams.Options{})
		a := upstreamstest.NewBench(t, c, nil, upstreams.Options{Share: func(id string, st pressure.State) {
			if err := b.Registry.Merge(id, st); err != nil {
				t.Error(err)
			}
		}})
		defer a.End()
		defer b.End()
		for range 15 {
			b.Start(upstreams.Request{})
		}
		synctest.Wait()
		passed, start := b.Passed(), time.Now()
		a.Upstream.Observe(a.Clock.Now(), upstreamstest.Throttled(30*time.Second))
		if s := b.Status(); s.State != upstreams.Frozen || s.Source != "peer" || s.Violations != 1 || s.Share != 1 {
			t.Errorf("the other's status %+v, want frozen by a peer", s)
		}
		time.Sleep(30*time.Second - 1)
		if b.Passed() != passed {
			t.Errorf("%d passed during the peer's pause", b.Passed()-passed)
		}
		b.Wait()
		if b.Passed() != 15 || time.Since(start) < 30*time.Second {
			t.Errorf("%d passed after %v, want all 15 after the pause", b.Passed(), time.Since(start))
		}
		if err := b.Registry.Merge("other", pressure.State{}); err == nil {
			t.Error("a pause of an unknown upstream was taken over")
		}
	})
}
