package limits_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// TestNoDecisionByAnOldLimit: what begins after SetSpec has returned is decided
// by the new limit, up and down, while 8 goroutines take.
func TestNoDecisionByAnOldLimit(t *testing.T) {
	for name, l := range everyKind() {
		t.Run(name, func(t *testing.T) {
			open := l
			open.N = 1_000_000
			if l.Kind == limits.Quota || l.Kind == limits.IdleReset {
				open.N = limits.MaxN
			}
			shut := l
			shut.N = 0
			wide, none := spec(t, open), spec(t, shut)
			lim := limits.New(wide, epoch)
			clock := limits.NewClock()
			late := clock.Now().Sub(epoch)
			var stop atomic.Bool
			var phase, wrong atomic.Int64 // of an odd phase the limit is 0 throughout
			rounds := 300
			if testing.Short() {
				rounds = 50
			}
			now := func() limits.Time { return clock.Now().Add(-late) }
			parallel(func(g int) {
				if g == 0 {
					for range rounds {
						lim.SetSpec(now(), none)
						phase.Add(1)
						for range 100 {
							lim.Take(now(), 1)
						}
						phase.Add(1)
						lim.SetSpec(now(), wide)
						for i := 0; i < 1000 && !lim.Take(now(), 1).Allowed; i++ {
						}
					}
					stop.Store(true)
					return
				}
				for !stop.Load() {
					before := phase.Load()
					d := lim.Take(now(), 1)
					if d.Allowed && before%2 == 1 && phase.Load() == before {
						wrong.Add(1)
					}
				}
			})
			if w := wrong.Load(); w > 0 {
				t.Errorf("%d admitted after the limit had become 0", w)
			}
			if u := lim.Usage(); u.Admitted == 0 || u.Refused == 0 {
				t.Errorf("usage %+v, want both", u)
			}
		})
	}
}

// TestGraceUnderContention: a cap on the grace is exact, and goroutines that
// come late from the grace cannot bend the ramp.
func TestGraceUnderContention(t *testing.T) {
	l := burst(100, 5)
	l.WarmUp = limits.WarmUp{Grace: time.Second, GraceLimit: 1000, Ramp: time.Second}
	for range 20 {
		lim := limits.New(spec(t, l), epoch)
		var free, ramp atomic.Int64
		parallel(func(int) {
			for range 500 {
				if lim.Take(epoch, 1).Allowed {
					free.Add(1)
				}
			}
		})
		if got := free.Load(); got != 1000 {
			t.Fatalf("%d free in the grace, want 1000", got)
		}
		parallel(func(g int) {
			for at := time.Duration(0); at < time.Second; at += ms {
				now := epoch.Add(time.Second + at)
				if g%2 == 0 && at < 10*ms {
					now = epoch.Add(time.Second - 1) // late
				}
				if lim.Take(now, 1).Allowed {
					ramp.Add(1)
				}
			}
		})
		// From 1000/s down to 100/s in a second are 550, and one to begin with.
		// Who comes late may still find the grace, and a full bucket of 5 in it.
		if got := ramp.Load(); got > 560 || got < 530 {
			t.Fatalf("%d in the ramp, want about 550", got)
		}
	}
}

// TestAChangeMintsNothing: random changes of a limit at one instant let no more
// pass than the largest of them, and one for each of two raises beyond what all
// was used under: the smallest is raised three times at most.
func TestAChangeMintsNothing(t *testing.T) {
	for name, l := range everyKind() {
		t.Run(name, func(t *testing.T) {
			specs := make([]*limits.Spec, 4)
			for i := range specs {
				o := l
				o.N = l.N * int64(i+1)
				if l.Burst > 0 {
					o.Burst = l.Burst * int64(i+1)
				}
				specs[i] = spec(t, o)
			}
			lim := limits.New(specs[3], epoch)
			most := lim.Peek(epoch, 1).Remaining
			var admitted int64
			for i := range 100 {
				if lim.Take(epoch, 1+int64(i%3)).Allowed {
					admitted += 1 + int64(i%3)
				}
				lim.SetSpec(epoch, specs[i*7%4])
			}
			if admitted > most+3 {
				t.Errorf("%d admitted at one instant under changing limits, want at most %d", admitted, most+3)
			}
			if l.Kind == limits.Rate && admitted > most {
				t.Errorf("%d admitted at one instant, want at most %d", admitted, most)
			}
		})
	}
}
