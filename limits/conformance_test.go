package limits_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
)

// everyKind is the limits that the suite and the benchmarks run with.
func everyKind() map[string]limits.Limit {
	const s = time.Second
	return map[string]limits.Limit{
		"rate":              {Kind: limits.Rate, N: 10, Period: s, Burst: 5},
		"rate/odd interval": {Kind: limits.Rate, N: 3, Period: s, Burst: 7},
		"rate/fast":         {Kind: limits.Rate, N: 1_000_000, Period: s},
		"rate/warmed":       {Kind: limits.Rate, N: 10, Period: s, Burst: 5},
		"pace":              {Kind: limits.Pace, N: 10, Period: s},
		"fixed_window":      {Kind: limits.FixedWindow, N: 10, Period: s},
		"fixed_window/huge": {Kind: limits.FixedWindow, N: 1_000_000, Period: time.Hour},
		"quota":             {Kind: limits.Quota, N: 10, Calendar: limits.Day},
		"window":            {Kind: limits.Window, N: 10, Period: s},
		"window/in chunks":  {Kind: limits.Window, N: 1000, Period: s},
		"idle_reset":        {Kind: limits.IdleReset, N: 10, Period: 5 * s},
		"smooth_bursty":     {Kind: limits.SmoothBursty, N: 10, Period: s},
		"smooth_warming_up": {Kind: limits.SmoothWarmingUp, N: 10, Period: s, WarmUp: limits.WarmUp{Ramp: 4 * s}},
	}
}

func TestConformance(t *testing.T) {
	for name, l := range everyKind() {
		t.Run(name, func(t *testing.T) { limitstest.Run(t, limits.Compile, l) })
	}
}

// ration is an algorithm as a user would write it: n for ever.
type ration struct{ n int64 }

func newRation(l limits.Limit) (limits.Algorithm, error) { return ration{l.N}, nil }

func (r ration) Start(_ limits.Time, used float64) limits.State {
	return limits.State{B: int64(used*float64(r.n) + 0.999999)}
}

func (r ration) Peek(st limits.State, _ limits.Time, n int64) limits.Decision {
	if st.B+n > r.n {
		return limits.Decision{Remaining: r.n - st.B, Wait: limits.Never, Reset: limits.Never}
	}
	return limits.Decision{Allowed: true, Remaining: r.n - st.B}
}

func (r ration) Take(st limits.State, _ limits.Time, n int64) limits.State {
	return limits.State{B: st.B + n}
}

func (r ration) Refund(st limits.State, _ limits.Time, n int64) limits.State {
	return limits.State{B: max(0, st.B-n)}
}

func (r ration) Used(st limits.State, _ limits.Time) float64 { return float64(st.B) / float64(r.n) }

func TestAnAlgorithmOfOnesOwn(t *testing.T) {
	kinds := limits.Kinds{"ration": newRation}
	s, err := kinds.Compile(limits.Limit{Kind: "ration", N: 3, Period: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	l := limits.New(s, epoch)
	if got, want := tries(l, 0, 0, time.Hour, 2*time.Hour), "1110"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := limits.Compile(s.Limit()); err == nil {
		t.Error("the built-in kinds know ration")
	}
}

// TestAgainstTheModel runs random sequences on a limiter and on the model of
// its kind, which must agree about every decision.
func TestAgainstTheModel(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	const s = time.Second
	tests := map[string][]limits.Limit{
		"rate":         {{Kind: limits.Rate, N: 10, Period: s, Burst: 5}, {Kind: limits.Rate, N: 3, Period: s, Burst: 50}, {Kind: limits.Rate, N: 1, Period: 7 * s, Burst: 3}},
		"pace":         {{Kind: limits.Pace, N: 10, Period: s}, {Kind: limits.Pace, N: 3, Period: s}},
		"fixed_window": {{Kind: limits.FixedWindow, N: 10, Period: 2 * s}, {Kind: limits.FixedWindow, N: 4, Period: 2 * s}, {Kind: limits.FixedWindow, N: 4, Period: 3 * s}, {Kind: limits.FixedWindow, N: limits.MaxN, Period: s}},
		"quota":        {{Kind: limits.Quota, N: 10, Calendar: limits.Minute}, {Kind: limits.Quota, N: 20, Calendar: limits.Hour, Location: berlin}, {Kind: limits.Quota, N: 99, Calendar: limits.Week, Location: berlin}},
		"window":       {{Kind: limits.Window, N: 10, Period: 2 * s}, {Kind: limits.Window, N: 3, Period: s}, {Kind: limits.Window, N: 100, Period: 5 * s}},
		"idle_reset":   {{Kind: limits.IdleReset, N: 10, Period: s}, {Kind: limits.IdleReset, N: 3, Period: 2 * s}},
		"any to any": {{Kind: limits.Rate, N: 10, Period: s, Burst: 5}, {Kind: limits.FixedWindow, N: 10, Period: 2 * s}, {Kind: limits.Window, N: 10, Period: 2 * s},
			{Kind: limits.Quota, N: 7, Calendar: limits.Minute}, {Kind: limits.Pace, N: 10, Period: s}},
	}
	seeds := uint64(300)
	if testing.Short() {
		seeds = 40
	}
	for name, ls := range tests {
		t.Run(name, func(t *testing.T) {
			for seed := range seeds {
				againstTheModel(t, seed, ls)
				if t.Failed() {
					t.Fatalf("with seed %d", seed)
				}
			}
		})
	}
}

func againstTheModel(t *testing.T, seed uint64, ls []limits.Limit) {
	rng := rand.New(rand.NewPCG(seed, 2))
	specs := make([]*limits.Spec, len(ls))
	for i := range ls {
		specs[i] = spec(t, ls[i])
	}
	now, in := epoch, rng.IntN(len(ls))
	l, m := limits.New(specs[in], now), limitstest.NewModel(specs[in].Limit())
	for i := range 400 {
		switch rng.IntN(40) {
		case 0:
			now = now.Add(-time.Duration(rng.Int64N(int64(time.Second))))
		case 1:
			now = now.Add(-time.Duration(rng.Int64N(int64(time.Hour))))
		case 2:
			now = now.Add(time.Duration(rng.Int64N(int64(2 * time.Hour))))
		case 3:
			in = rng.IntN(len(ls))
			l.SetSpec(now, specs[in])
			m.SetLimit(now, specs[in].Limit())
		case 4: // a restart: what was kept decides as what was there
			if ls[in].Kind != limits.Window {
				l = limits.Restore(specs[in], now, l.State())
				m.Restart()
			}
		case 5:
			l.SetSpec(now, spec(t, ls[in])) // a reload: another spec of the same limit
		default:
			now = now.Add(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
		}
		n := 1 + rng.Int64N(3)
		got, want := l.Take(now, n), m.Take(now, n)
		if got.Allowed != want {
			t.Errorf("step %d, %s at %v: Take(%d) = %+v, the model says %v", i, specs[in].Limit().Name, now.Sub(epoch), n, got, want)
			return
		}
	}
}
