package limitstest

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Epoch is when the suite's time begins: full minute, hour and day, so that no
// calendar period ends by accident.
const Epoch = limits.Time(1_699_920_000_000_000_000)

// Run checks that a limit, which must be one of at least 2 and at most 10^6
// that lets 2 come at once, or a pace, is decided as package limits promises,
// whatever its kind.
func Run(t *testing.T, compile func(limits.Limit) (*limits.Spec, error), l limits.Limit) {
	runAll(t, &run{compile: compile, limit: l})
}

func runAll(t *testing.T, r *run) {
	s, err := r.compile(r.limit)
	if err != nil {
		t.Fatal(err)
	}
	r.spec = s
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"APeekTakesNothing", r.peek},
		{"ARefusalUsesUpNothing", r.refusal},
		{"RemainingIsExact", r.remaining},
		{"WaitIsExact", r.wait},
		{"WaitForCountsThoseAhead", r.waitFor},
		{"AfterResetItIsAsNew", r.reset},
		{"WhatCannotBeMeant", r.odd},
		{"RefundGivesBack", r.refund},
		{"ZeroBlocks", r.zero},
		{"AClosedLimiterStaysClosed", r.close},
		{"AChangeCountsAtOnce", r.change},
		{"ARestartGivesNothingBack", r.restart},
		{"AClockThatRunsBack", r.clock},
		{"TogetherUnderContention", r.contention},
		{"ChangesUnderContention", r.churn},
		{"NoAllocation", r.allocations},
	} {
		t.Run(c.name, c.test)
	}
}

type run struct {
	compile func(limits.Limit) (*limits.Spec, error)
	spec    *limits.Spec
	limit   limits.Limit
	shared  *Shared // nil: limiters decide by themselves
}

// sequence calls f at random instants, with random costs.
func (r *run) sequence(f func(rng *rand.Rand, l subject, now limits.Time, n int64)) {
	for seed := range r.some(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := Epoch
		l := r.new(r.spec, now)
		for range r.steps() {
			n := 1 + rng.Int64N(3)
			if rng.IntN(20) == 0 {
				n = 1 + rng.Int64N(r.spec.Limit().N+1)
			}
			f(rng, l, now, n)
			now = now.Add(r.pause(rng))
		}
	}
}

// pause is often nothing, mostly short and sometimes as long as a period.
func (r *run) pause(rng *rand.Rand) time.Duration {
	period := r.period()
	switch rng.IntN(10) {
	case 0, 1, 2:
		return 0
	case 3:
		return time.Duration(rng.Int64N(2 * int64(period)))
	}
	return time.Duration(rng.Int64N(int64(period)/max(r.limit.N, 1)*2 + 2))
}

func (r *run) period() time.Duration {
	if r.limit.Kind == limits.Quota {
		return 24 * time.Hour
	}
	return r.limit.Period
}

func (r *run) peek(t *testing.T) {
	r.sequence(func(rng *rand.Rand, l subject, now limits.Time, n int64) {
		before := l.State()
		p := l.Peek(now, n)
		if after := l.State(); r.shared == nil && after != before {
			t.Fatalf("Peek(%d) changed %+v to %+v", n, before, after)
		}
		if d := l.Take(now, n); d.Allowed != p.Allowed || !r.careful() && d.Wait != p.Wait {
			t.Fatalf("Take(%d) = %+v after Peek = %+v", n, d, p)
		}
	})
}

func (r *run) refusal(t *testing.T) {
	r.sequence(func(rng *rand.Rand, l subject, now limits.Time, n int64) {
		before, left := l.State(), l.Peek(now, 1).Remaining
		d := l.Take(now, n)
		if !d.Allowed && r.shared == nil && l.State() != before {
			t.Fatalf("a refusal of %d changed %+v to %+v", n, before, l.State())
		}
		if is := l.Peek(now, 1).Remaining; !d.Allowed && is < left {
			t.Fatalf("a refusal of %d left %d of %d", n, is, left)
		}
	})
}

func (r *run) remaining(t *testing.T) {
	r.sequence(func(rng *rand.Rand, l subject, now limits.Time, n int64) {
		l.Take(now, n)
		left := l.Peek(now, 1).Remaining
		if left > 1000 || rng.IntN(10) > 0 {
			return
		}
		c := r.again(l, now)
		if got := c.Peek(now, 1).Remaining; got != left {
			return // a state may be more careful than the limiter
		}
		if r.careful() {
			return // it may have more than it says
		}
		for i := range left {
			if d := c.Take(now, 1); !d.Allowed || d.Remaining != left-i-1 {
				t.Fatalf("take %d of %d remaining: %+v", i+1, left, d)
			}
		}
		if d := c.Take(now, 1); d.Allowed {
			t.Fatalf("admitted beyond %d remaining", left)
		}
	})
}

func (r *run) wait(t *testing.T) {
	refusals := 0
	r.sequence(func(rng *rand.Rand, l subject, now limits.Time, n int64) {
		d := l.Take(now, n)
		if d.Allowed || d.Wait == limits.Never {
			return
		}
		refusals++
		if d.Wait <= 0 {
			t.Fatalf("refused %d with a wait of %v", n, d.Wait)
		}
		// Who asks a moment early may be told by a careful one to wait a little longer.
		if !r.careful() && l.Peek(now.Add(d.Wait-1), n).Allowed {
			t.Fatalf("refused %d, but admitted 1 ns before the wait of %v is over", n, d.Wait)
		}
		if p := l.Peek(now.Add(d.Wait), n); !p.Allowed {
			t.Fatalf("refused %d, and again after the wait of %v: %+v", n, d.Wait, p)
		}
		if r.shared != nil {
			return // nobody asks the store for a forecast
		}
		if w := l.WaitFor(now, 0, n); w != d.Wait {
			t.Fatalf("WaitFor(0, %d) = %v, want %v", n, w, d.Wait)
		}
	})
	if refusals == 0 {
		t.Fatal("nothing was refused")
	}
}

// waitFor compares the forecast with those ahead taking theirs, each as soon as
// it can.
func (r *run) waitFor(t *testing.T) {
	if r.limit.N > 100 {
		t.Skip("it would take too many")
	}
	if r.shared != nil {
		t.Skip("nobody asks the store for a forecast")
	}
	exact := r.limit.Kind != limits.SmoothBursty && r.limit.Kind != limits.SmoothWarmingUp && r.limit.WarmUp == limits.WarmUp{}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		now := Epoch
		l := r.new(r.spec, now)
		for range rng.IntN(30) {
			l.Take(now, 1+rng.Int64N(3))
			now = now.Add(r.pause(rng))
		}
		ahead, n := rng.Int64N(3*r.limit.N+1), 1+rng.Int64N(2)
		got := l.WaitFor(now, ahead, n)
		at := now
		for range ahead {
			at = at.Add(l.Peek(at, 1).Wait)
			if d := l.Take(at, 1); !d.Allowed {
				t.Fatalf("refused after the wait: %+v", d)
			}
		}
		last := l.Peek(at, n).Wait
		if last == limits.Never {
			continue
		}
		if want := at.Add(last).Sub(now); got < want || exact && got != want {
			t.Fatalf("WaitFor(%d, %d) = %v, want %v", ahead, n, got, want)
		}
	}
}

func (r *run) reset(t *testing.T) {
	r.sequence(func(rng *rand.Rand, l subject, now limits.Time, n int64) {
		d := l.Take(now, n)
		if rng.IntN(10) > 0 {
			return
		}
		later := now.Add(d.Reset)
		fresh := r.new(r.spec, later).Peek(later, 1).Remaining
		if got := l.Peek(later, 1); !r.careful() && (got.Remaining < fresh || got.Reset != 0) {
			t.Fatalf("after a reset of %v: %+v, want at least %d remaining", d.Reset, got, fresh)
		}
		if d.Reset > 0 && !r.careful() {
			if got := l.Peek(later-1, 1); got.Reset != 1 {
				t.Fatalf("1 ns before: %+v", got)
			}
		}
	})
	l := r.new(r.spec, Epoch)
	fresh := l.Peek(Epoch, 1).Remaining
	l.Take(Epoch, 1)
	l.Reset(Epoch)
	if got := l.Peek(Epoch, 1).Remaining; got != fresh {
		t.Errorf("after Reset %d remain, want %d", got, fresh)
	}
}

func (r *run) odd(t *testing.T) {
	l := r.new(r.spec, Epoch)
	before := l.State()
	for _, n := range []int64{0, -1, -1 << 63} {
		if d := l.Take(Epoch, n); !d.Allowed || r.shared == nil && l.State() != before {
			t.Errorf("Take(%d) = %+v, state %+v, want a look at a fresh limiter", n, d, l.State())
		}
		l.Refund(Epoch, n)
	}
	if r.shared == nil && l.State() != before {
		t.Errorf("refunds of nothing changed %+v to %+v", before, l.State())
	}
}

func (r *run) refund(t *testing.T) {
	r.sequence(func(rng *rand.Rand, l subject, now limits.Time, n int64) {
		before := l.Peek(now, 1).Remaining
		if l.Take(now, n).Allowed && rng.IntN(2) == 0 {
			l.Refund(now, n)
			// A window of many knows when requests came to a 128th of them.
			after := l.Peek(now, 1).Remaining
			if after > before && !r.careful() || after < before-r.spec.Limit().N/128 {
				t.Fatalf("after a refund of %d there remain %d, want %d", n, after, before)
			}
		}
	})
}

func (r *run) zero(t *testing.T) {
	none := r.limit
	none.N = 0
	s, err := r.compile(none)
	if err != nil {
		t.Fatal(err)
	}
	l := r.new(s, Epoch)
	for _, n := range []int64{1, 5} {
		if d := l.Take(Epoch, n); d.Allowed || d.Wait != limits.Never || d.Remaining != 0 {
			t.Errorf("Take(%d) under 0 = %+v", n, d)
		}
	}
}

func (r *run) close(t *testing.T) {
	l := r.new(r.spec, Epoch)
	l.Close()
	l.SetSpec(Epoch, r.spec)
	l.Reset(Epoch)
	l.Refund(Epoch, 1)
	if d := l.Take(Epoch.Add(time.Hour), 1); d.Allowed || d.Wait != limits.Never {
		t.Errorf("Take after Close = %+v", d)
	}
}

func (r *run) change(t *testing.T) {
	more := r.limit
	more.N *= 10
	if more.Burst > 0 && more.Kind == limits.Rate {
		more.Burst *= 10
	}
	s, err := r.compile(more)
	if err != nil {
		t.Fatal(err)
	}
	l := r.new(r.spec, Epoch)
	for l.Take(Epoch, 1).Allowed {
	}
	l.SetSpec(Epoch, s)
	interval := r.period()/time.Duration(more.N) + time.Microsecond
	if d := l.Peek(Epoch, 1); d.Wait > interval {
		t.Errorf("after a raise the next waits %v, want at most an interval of %v", d.Wait, interval)
	}
	l.SetSpec(Epoch, r.spec)
	if d := l.Peek(Epoch, 1); d.Remaining > 0 {
		t.Errorf("up and down again minted %d", d.Remaining)
	}
	if l.Spec() != r.spec {
		t.Error("Spec is not what SetSpec set")
	}
}

func (r *run) restart(t *testing.T) {
	r.sequence(func(rng *rand.Rand, l subject, now limits.Time, n int64) {
		d := l.Take(now, n)
		c := r.again(l, now)
		if got, most := c.Peek(now, 1), l.Peek(now, 1); got.Remaining > most.Remaining && !r.careful() {
			t.Fatalf("after a restart there remain %d, before %d", got.Remaining, most.Remaining)
		}
		if !r.careful() && d.Wait != 0 && d.Wait != limits.Never && c.Peek(now.Add(d.Wait-1), n).Allowed {
			t.Fatalf("after a restart %d are admitted before the wait of %v", n, d.Wait)
		}
	})
}

func (r *run) clock(t *testing.T) {
	l := r.new(r.spec, Epoch)
	now := Epoch.Add(10 * r.period())
	for l.Take(now, 1).Allowed {
	}
	if d := l.Take(now.Add(-time.Millisecond), 1); d.Allowed {
		t.Error("a clock that is read a millisecond back admits one more")
	}
	now = now.Add(-5 * r.period())
	if d := l.Take(now, 1); d.Allowed {
		t.Error("a clock that was set back admits one more at once")
	}
	now = now.Add(200 * time.Millisecond) // which makes it sure
	wait := l.Peek(now, 1).Wait
	if wait > r.period()*11/10 {
		t.Errorf("a clock that was set back makes one wait %v", wait)
	}
	if d := l.Take(now.Add(wait), 1); !d.Allowed {
		t.Errorf("and refuses after that: %+v", d)
	}
}

const goroutines = 8

// parallel runs f in several goroutines and waits for them.
func parallel(f func(g int)) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() { f(g) })
	}
	wg.Wait()
}

// contention has many goroutines take from two limiters at once. One of the
// two has more than the other, and must have lost just what was admitted.
func (r *run) contention(t *testing.T) {
	wide := r.limit
	wide.N *= 10
	if wide.Burst > 0 && wide.Kind == limits.Rate {
		wide.Burst *= 10
	}
	s, err := r.compile(wide)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		a, b := r.new(s, Epoch), r.new(r.spec, Epoch)
		most, had := b.Peek(Epoch, 1).Remaining, a.Peek(Epoch, 1).Remaining
		tries := int(min(most, 2000)/goroutines + 10)
		var admitted atomic.Int64
		parallel(func(g int) {
			for i := range tries {
				claims := []limits.Claim{{Limiter: a.Limiter, N: 1}, {Limiter: b.Limiter, N: 1}}
				if (g+i)%2 == 0 {
					claims[0], claims[1] = claims[1], claims[0]
				}
				if r.takeAll(Epoch, claims) < 0 {
					admitted.Add(1)
				}
			}
		})
		got := admitted.Load()
		if most <= 2000 && (got > most || got < most*r.usable()/100) {
			t.Fatalf("%d admitted, want %d", got, most)
		}
		if left := a.Peek(Epoch, 1).Remaining; r.limit.Kind != limits.Pace && had > 1 && left != had-got && !(r.careful() && left < had-got) {
			t.Fatalf("%d left of the wider limit, want %d: a refusal used something up", left, had-got)
		}
	}
}

// churn changes the limit to itself and back under load, which must mint nothing.
func (r *run) churn(t *testing.T) {
	other := r.limit
	other.N++
	s, err := r.compile(other)
	if err != nil {
		t.Fatal(err)
	}
	l := r.new(r.spec, Epoch)
	most := l.Peek(Epoch, 1).Remaining
	var admitted atomic.Int64
	parallel(func(g int) {
		for i := range 500 {
			switch {
			case g == 0 && i < 200:
				same, _ := r.compile(r.limit)
				l.SetSpec(Epoch, same)
			case g == 1 && i == 250:
				l.SetSpec(Epoch, s)
			case l.Take(Epoch, 1).Allowed:
				admitted.Add(1)
			}
		}
	})
	if got := admitted.Load(); got > most+1 {
		t.Errorf("%d admitted at one instant, want at most %d", got, most+1)
	}
}

func (r *run) allocations(t *testing.T) {
	if r.shared != nil {
		t.Skip("the store is asked")
	}
	now := Epoch
	l := r.new(r.spec, now)
	claims := []limits.Claim{{Limiter: l.Limiter, N: 1}, {Limiter: r.new(r.spec, now).Limiter, N: 1}}
	step := r.period()/time.Duration(r.limit.N) + 1
	if r.limit.Kind == limits.Quota {
		step = time.Microsecond // a new period costs a look at the calendar
	}
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(step)
		l.Take(now, 1)
		l.Take(now, 1)
		l.Peek(now, 2)
		limits.TakeAll(now, claims)
	}); n != 0 {
		t.Errorf("%v allocations a decision", n)
	}
}
