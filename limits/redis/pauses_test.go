package redis

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// pauses joins an instance that keeps the last pause it heard of.
func pauses(t *testing.T, s *server, o Options) (*Cluster, *Pauses, *atomic.Pointer[pressure.State]) {
	t.Helper()
	o.Addresses = []string{s.addr}
	c, heard := join(t, o), new(atomic.Pointer[pressure.State])
	return c, c.Pauses(func() []string { return []string{"keeper"} }, func(_ string, st pressure.State) { heard.Store(&st) }), heard
}

// TestPausesAreShared: one instance tells, one hears, one that starts later hears
// too, and a value that cannot be meant is told once.
func TestPausesAreShared(t *testing.T) {
	s := start(t)
	var corrupt atomic.Int64
	o := Options{Clock: limits.NewClock(), Corrupt: func(string, error) { corrupt.Add(1) }}
	_, a, own := pauses(t, s, o)
	_, _, b := pauses(t, s, o)
	s.cli("set", "tollgate{upstreams}keeper", "1 x 99 -1 nonsense")
	eventually(t, 2*time.Second, func() bool { return corrupt.Load() == 2 }, func() string { return "not told" })
	now := o.Clock.Now()
	a.Tell("keeper", pressure.State{Until: now.Add(20 * time.Second), Last: now, Violations: 3, Reason: "status 403"})
	began := time.Now()
	check := func(p *atomic.Pointer[pressure.State]) {
		t.Helper()
		eventually(t, 2*time.Second, func() bool { return p.Load() != nil }, func() string { return "not heard" })
		st := p.Load()
		if off := st.Until.Sub(now.Add(20 * time.Second)); off < -100*time.Millisecond || off > time.Second || st.Violations != 3 || st.Reason != "status 403" {
			t.Errorf("heard %+v, %v off", st, off)
		}
	}
	check(b)
	t.Logf("heard after %v", time.Since(began))
	_, _, late := pauses(t, s, o)
	check(late)
	s.cli("flushall")
	_, _, later := pauses(t, s, o)
	check(later) // the store was reminded
	if own.Load() != nil {
		t.Error("an instance heard itself")
	}
	if n := corrupt.Load(); n != 2 {
		t.Errorf("told %d times of what is corrupt, want once each", n)
	}
}
