package limits_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// warmed is a rate with a second of grace and a second of ramp.
func warmed(n int64, period time.Duration) limits.Limit {
	return limits.Limit{Kind: limits.Rate, N: n, Period: period, WarmUp: limits.WarmUp{Grace: time.Second, Ramp: time.Second}}
}

// published is the curve of the documentation, in requests per second.
func published(l limits.Limit, seen float64, t time.Duration) float64 {
	limit := float64(l.N) / l.Period.Seconds()
	u := l.WarmUp
	switch {
	case t < u.Grace:
		return math.Inf(1)
	case t >= u.Grace+u.Ramp:
		return limit
	}
	from := 2 * limit
	if u.Grace > 0 {
		from = max(from, seen/u.Grace.Seconds())
	}
	return from + (limit-from)*float64(t-u.Grace)/float64(u.Ramp)
}

// TestTheRampFollowsItsCurve has a client that offers a load in the grace and
// then takes all it gets, at rates from 0.01/s to 10^6/s.
func TestTheRampFollowsItsCurve(t *testing.T) {
	tests := []struct {
		limit limits.Limit
		seen  int64 // in the grace
	}{
		{warmed(1, 100*time.Second), 1},
		{warmed(1, 100*time.Second), 50},
		{warmed(1, 2*time.Second), 3},
		{warmed(1, time.Second), 1},
		{warmed(5, time.Second), 58},
		{warmed(100, time.Second), 100},
		{warmed(100, time.Second), 1000},
		{warmed(999, time.Second), 0},
		{warmed(10_000, time.Second), 30_000},
		{warmed(1_000_000, time.Second), 10},
		{warmed(1_000_000, time.Second), 5_000_000},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s after %d", limits.FormatRate(tt.limit.N, tt.limit.Period), tt.seen), func(t *testing.T) {
			if tt.seen > 1_000_000 && testing.Short() {
				t.Skip("millions of requests")
			}
			l := limits.New(spec(t, tt.limit), epoch)
			l.Take(epoch, 1)
			seen := max(tt.seen, 1)
			for range seen - 1 {
				if !l.Take(epoch.Add(500*ms), 1).Allowed {
					t.Fatal("refused in the grace")
				}
			}
			step := time.Millisecond / 4
			for slice := range 10 {
				from := time.Second + time.Duration(slice)*100*ms
				admitted := 0
				for at := from; at < from+100*ms; at += step {
					for l.Take(epoch.Add(at), 1).Allowed {
						admitted++
					}
				}
				// The curve is a line, so its mean is what it is in the middle.
				want := published(tt.limit, float64(seen), from+50*ms) / 10
				// What comes between the last try of a slice and its end is taken in the next.
				slack := 1.001 + want*float64(step)/float64(100*ms)
				if math.Abs(float64(admitted)-want) > slack {
					t.Errorf("slice %d: %d admitted, the curve has %.2f", slice, admitted, want)
				}
			}
			if d := l.Peek(epoch.Add(2*time.Second), 1); d.Remaining > 1 {
				t.Errorf("%d are left over at the ramp's end, want at most 1", d.Remaining)
			}
		})
	}
}

// TestASteadyClientIsNeverRefused: warm-up must not starve who keeps to the limit.
func TestASteadyClientIsNeverRefused(t *testing.T) {
	for _, l := range []limits.Limit{warmed(1, 100*time.Second), warmed(1, 2*time.Second), warmed(1, time.Second),
		warmed(3, time.Second), warmed(7, time.Second), warmed(100, time.Second), warmed(1000, time.Second)} {
		for _, u := range []limits.WarmUp{{}, {Grace: time.Second}, {Ramp: time.Second}, {Grace: time.Second, Ramp: time.Second},
			{Grace: time.Second, GraceLimit: 1, Ramp: 3 * time.Second}, {Grace: 10 * time.Second, Ramp: time.Minute}} {
			l.WarmUp = u
			l.Burst = 1
			lim := limits.New(spec(t, l), epoch)
			interval := (l.Period + time.Duration(l.N) - 1) / time.Duration(l.N)
			for i := range 5000 {
				if d := lim.Take(epoch.Add(time.Duration(i)*interval), 1); !d.Allowed {
					t.Errorf("%d/%v, warm-up %+v: request %d refused: %+v", l.N, l.Period, u, i, d)
					break
				}
			}
		}
	}
}

// TestAfterTheRampTheLimitIsExact counts what a saturating client gets in 20 s.
func TestAfterTheRampTheLimitIsExact(t *testing.T) {
	for _, l := range []limits.Limit{warmed(1, 2*time.Second), warmed(1, time.Second), warmed(5, time.Second), warmed(100, time.Second), warmed(10_000, time.Second)} {
		lim := limits.New(spec(t, l), epoch)
		admitted := 0
		for at := time.Duration(0); at < 22*time.Second; at += ms {
			for i := 0; i < 100 && lim.Take(epoch.Add(at), 1).Allowed; i++ {
				if at >= 2*time.Second {
					admitted++
				}
			}
		}
		want := float64(l.N) / l.Period.Seconds() * 20
		if got := float64(admitted); got > want+1 || got < want*0.98 {
			t.Errorf("%s: %d in 20 s, want %.0f", limits.FormatRate(l.N, l.Period), admitted, want)
		}
	}
}

func TestGraceLimit(t *testing.T) {
	l := burst(1, 5)
	l.WarmUp = limits.WarmUp{Grace: 10 * time.Second, GraceLimit: 3, Ramp: time.Second}
	check := func(name, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	// Three are free and drawn from the bucket's five; then the plain limit.
	check("at once", tries(limits.New(spec(t, l), epoch), times(8, 0, 0)...), "11111000")
	check("then plain", tries(limits.New(spec(t, l), epoch), append(times(8, 0, 0), time.Second, time.Second, 2*time.Second)...), "11111000101")

	l.WarmUp.GraceLimit = 8 // more than the bucket holds
	check("more than a burst", tries(limits.New(spec(t, l), epoch), append(times(10, 0, 0), time.Second, time.Second)...), "111111110010")

	lim := limits.New(spec(t, l), epoch)
	tries(lim, times(8, 0, 0)...)
	d := lim.Take(epoch, 1)
	if d.Allowed || !lim.Peek(epoch.Add(d.Wait), 1).Allowed || lim.Peek(epoch.Add(d.Wait-1), 1).Allowed {
		t.Errorf("the wait in a grace that is used up is not exact: %+v", d)
	}
}

// TestWaitIsExactDuringWarmUp tries the wait of refusals throughout.
func TestWaitIsExactDuringWarmUp(t *testing.T) {
	l := burst(10, 4)
	l.WarmUp = limits.WarmUp{Grace: time.Second, GraceLimit: 7, Ramp: 3 * time.Second}
	lim := limits.New(spec(t, l), epoch)
	for at := time.Duration(0); at < 6*time.Second; at += 3*ms + 7 {
		now := epoch.Add(at)
		n := 1 + int64(at/ms)%4
		d := lim.Take(now, n)
		if d.Allowed {
			continue
		}
		if p := lim.Peek(now.Add(d.Wait-1), n); p.Allowed {
			t.Fatalf("at %v: %d admitted 1 ns before the wait of %v", at, n, d.Wait)
		}
		if p := lim.Peek(now.Add(d.Wait), n); !p.Allowed {
			t.Fatalf("at %v: %d refused after the wait of %v: %+v", at, n, d.Wait, p)
		}
	}
}

// TestNoSecondGrace: only idleness, where it is configured, begins another.
func TestNoSecondGrace(t *testing.T) {
	l := burst(10, 10)
	l.WarmUp = limits.WarmUp{Grace: time.Second, Ramp: time.Second, Idle: time.Minute}
	s, now := spec(t, l), epoch
	lim := limits.New(s, now)
	flood := func() (admitted int) {
		for range 1000 {
			if lim.Take(now, 1).Allowed {
				admitted++
			}
		}
		return admitted
	}
	if got := flood(); got != 1000 {
		t.Fatalf("the grace admits %d of 1000", got)
	}
	now = now.Add(3 * time.Second)
	flood()
	for name, f := range map[string]func(){
		"a change":         func() { n := l; n.N++; lim.SetSpec(now, spec(t, n)); lim.SetSpec(now, s) },
		"through no limit": func() { n := l; n.N = 0; lim.SetSpec(now, spec(t, n)); lim.SetSpec(now, s) },
		"another kind":     func() { lim.SetSpec(now, spec(t, ofKind(limits.Window, 5, time.Second))); lim.SetSpec(now, s) },
		"a restart":        func() { lim = limits.Restore(s, now, lim.State()) },
		"Reset":            func() { lim.Reset(now) },
		"a clock set back": func() {
			now = now.Add(-time.Hour)
			lim.Take(now, 1)
			now = now.Add(100 * ms) // by when it is sure
		},
		"half the idle time": func() { now = now.Add(30 * time.Second) },
	} {
		f()
		if got := flood(); got > 10 {
			t.Errorf("after %s %d are admitted, want at most the burst of 10", name, got)
		}
	}
	now = now.Add(time.Minute + 2*time.Second)
	if got := flood(); got != 1000 {
		t.Errorf("after a minute of idleness %d of 1000 are admitted, want a new grace", got)
	}

	lim = limits.New(s, now)
	flood()
	now = now.Add(500 * ms)
	c := limits.Restore(s, now, lim.State())
	now = now.Add(-time.Hour)
	lim = c
	lim.Take(now, 1)
	now = now.Add(100 * ms) // by when it is sure
	if got := flood(); got > 10 {
		t.Errorf("a clock set back in the grace admits %d", got)
	}
}
