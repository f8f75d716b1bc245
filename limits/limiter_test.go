package limits_test

import (
	"math"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

func burst(n, b int64) limits.Limit {
	return limits.Limit{Kind: limits.Rate, N: n, Period: time.Second, Burst: b}
}

func TestSetSpecCarriesWhatWasUsed(t *testing.T) {
	tests := []struct {
		name     string
		from, to limits.Limit
		take     int64
		want     int64 // remaining right after the change
	}{
		{"half used, ten times as many", burst(10, 10), burst(100, 100), 5, 50},
		{"half used, a tenth", burst(100, 100), burst(10, 10), 50, 5},
		{"all used", burst(10, 10), burst(1000, 1000), 10, 0},
		{"nothing used", burst(10, 10), burst(3, 3), 0, 3},
		{"rounds down", burst(3, 3), burst(2, 2), 1, 1},
		{"the same", burst(3, 3), burst(3, 3), 1, 2},
		{"to none", burst(3, 3), burst(0, 3), 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := limits.New(spec(t, tt.from), epoch)
			if tt.take > 0 && !l.Take(epoch, tt.take).Allowed {
				t.Fatalf("Take(%d) refused", tt.take)
			}
			l.SetSpec(epoch, spec(t, tt.to))
			if got := l.Peek(epoch, 1).Remaining; got != tt.want {
				t.Errorf("remaining %d, want %d", got, tt.want)
			}
		})
	}
}

func fixed(n int64, period time.Duration) limits.Limit {
	return limits.Limit{Kind: limits.FixedWindow, N: n, Period: period}
}

// TestFixedWindowKeepsItsCount: two limits on one counter take turns, and
// neither forgets what was used under the other.
func TestFixedWindowKeepsItsCount(t *testing.T) {
	two, hundred, daily := spec(t, fixed(2, time.Hour)), spec(t, fixed(100, time.Hour)), spec(t, fixed(100, 24*time.Hour))
	l := limits.New(two, epoch)
	for _, step := range []struct {
		name      string
		spec      *limits.Spec
		take      int64
		allowed   bool
		remaining int64
	}{
		{"two of two", two, 2, true, 0},
		{"raised: the two stay used", hundred, 8, true, 90},
		{"lowered below what is used", two, 1, false, 0},
		{"a peek there costs nothing", two, 0, false, 0},
		{"raised again: nothing was given back", hundred, 1, true, 89},
		{"another length: in proportion", daily, 1, true, 88},
	} {
		l.SetSpec(epoch, step.spec)
		d := l.Peek(epoch, 1)
		if step.take > 0 {
			d = l.Take(epoch, step.take)
		}
		if d.Allowed != step.allowed || d.Remaining != step.remaining {
			t.Errorf("%s: %+v, want %v with %d remaining", step.name, d, step.allowed, step.remaining)
		}
	}
}

func TestFixedWindowRefundsOverAChange(t *testing.T) {
	two, hundred := spec(t, fixed(2, time.Hour)), spec(t, fixed(100, time.Hour))
	l := limits.New(hundred, epoch)
	l.Take(epoch, 10)
	l.SetSpec(epoch, two)
	if d := l.Peek(epoch, 1); d.Allowed || d.Remaining != 0 || d.Wait <= 0 || d.Wait > time.Hour {
		t.Errorf("10 used of 2: %+v, want a refusal until the window ends", d)
	}
	st := l.State()
	l.Refund(epoch, 9)
	if d := l.Peek(epoch, 1); !d.Allowed || d.Remaining != 1 {
		t.Errorf("9 of 10 given back under a limit of 2: %+v, want 1 remaining", d)
	}
	if d := limits.Restore(hundred, epoch, st).Peek(epoch, 1); d.Remaining != 90 {
		t.Errorf("restored with 10 used of 100: %+v, want 90 remaining", d)
	}
}

func TestARaiseNeedsAtMostOneInterval(t *testing.T) {
	l := limits.New(spec(t, limits.Limit{Kind: limits.Rate, N: 1, Period: 100 * time.Second, Burst: 1}), epoch)
	l.Take(epoch, 1)
	l.SetSpec(epoch, spec(t, burst(100, 1)))
	if got, want := l.Peek(epoch, 1).Wait, 10*time.Millisecond; got != want {
		t.Errorf("wait %v, want %v", got, want)
	}
}

func TestThroughZeroNothingComesBack(t *testing.T) {
	ten, none := spec(t, burst(10, 10)), spec(t, burst(0, 10))
	l := limits.New(ten, epoch)
	l.Take(epoch, 7)
	l.SetSpec(epoch, none)
	if d := l.Take(epoch, 1); d.Allowed || d.Wait != limits.Never {
		t.Errorf("a limit of 0 answers %+v", d)
	}
	l.SetSpec(epoch, ten)
	if got := l.Peek(epoch, 1).Remaining; got != 3 {
		t.Errorf("remaining %d, want 3", got)
	}
}

func TestResetAndClose(t *testing.T) {
	s := spec(t, burst(10, 10))
	l := limits.New(s, epoch)
	l.Take(epoch, 10)
	l.Reset(epoch)
	if got := l.Peek(epoch, 1); got.Remaining != 10 || got.Reset != 0 {
		t.Errorf("after Reset %+v", got)
	}
	l.Close()
	l.Reset(epoch)
	l.SetSpec(epoch, s)
	if d := l.Take(epoch, 1); d.Allowed || d.Wait != limits.Never {
		t.Errorf("closed limiter answers %+v", d)
	}
	if got, want := l.Usage(), (limits.Usage{Admitted: 1, Refused: 1}); got != want {
		t.Errorf("usage %+v, want %+v", got, want)
	}
}

func TestRefundGivesBackExactly(t *testing.T) {
	l := limits.New(spec(t, burst(10, 10)), epoch)
	l.Take(epoch, 4)
	before := l.State()
	l.Take(epoch, 3)
	l.Refund(epoch, 3)
	if got := l.State(); got != before {
		t.Errorf("state %+v, want %+v", got, before)
	}
}

func TestTakeAll(t *testing.T) {
	type claims = []limits.Claim
	five, two := spec(t, burst(5, 5)), spec(t, burst(1, 2))
	shadow := burst(1, 2)
	shadow.Shadow = true
	a, b, c := limits.New(five, epoch), limits.New(two, epoch), limits.New(spec(t, shadow), epoch)
	steps := []struct {
		name    string
		claims  claims
		want    int
		a, b, c int64 // remaining afterwards
	}{
		{"all", claims{{Limiter: a, N: 1}, {Limiter: b, N: 1}}, -1, 4, 1, 2},
		{"one refuses, nothing is taken", claims{{Limiter: a, N: 1}, {Limiter: b, N: 2}}, 1, 4, 1, 2},
		{"the longest wait answers", claims{{Limiter: a, N: 5}, {Limiter: b, N: 2}}, 1, 4, 1, 2},
		{"one limiter twice", claims{{Limiter: a, N: 2}, {Limiter: a, N: 2}}, -1, 0, 1, 2},
		{"a shadow claim does not refuse", claims{{Limiter: a, N: 1, Shadow: true}, {Limiter: b, N: 1}}, -1, 0, 0, 2},
		{"a shadow limit takes if it can", claims{{Limiter: c, N: 2}}, -1, 0, 0, 0},
		{"and does not refuse", claims{{Limiter: c, N: 2}}, -1, 0, 0, 0},
		{"a look", claims{{Limiter: a}}, 0, 0, 0, 0},
	}
	for _, tt := range steps {
		if got := limits.TakeAll(epoch, tt.claims); got != tt.want {
			t.Errorf("%s: TakeAll = %d, want %d", tt.name, got, tt.want)
		}
		for i, l := range []*limits.Limiter{a, b, c} {
			want := []int64{tt.a, tt.b, tt.c}[i]
			if got := l.Peek(epoch, 1).Remaining; got != want {
				t.Errorf("%s: limiter %d has %d left, want %d", tt.name, i, got, want)
			}
		}
	}
}

func TestRestore(t *testing.T) {
	warming := burst(10, 10)
	warming.WarmUp = limits.WarmUp{Grace: time.Second, Ramp: time.Second}
	s := spec(t, warming)
	l := limits.New(s, epoch)
	for range 30 {
		l.Take(epoch, 1)
	}
	for _, at := range []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond, 5 * time.Second} {
		now := epoch.Add(at)
		r := limits.Restore(s, now, l.State())
		if got, want := r.Take(now, 1), l.Take(now, 1); got != want {
			t.Errorf("at %v: restored %+v, kept %+v", at, got, want)
		}
	}
	r := limits.Restore(s, epoch, limits.State{})
	if got := r.Take(epoch, 1); got.Remaining != 9 {
		t.Errorf("from the zero state: %+v, want a full bucket and no grace", got)
	}
}

func TestExtremes(t *testing.T) {
	s := spec(t, burst(limits.MaxN, 0))
	for _, now := range []limits.Time{math.MinInt64, -1, 0, 1, epoch, math.MaxInt64} {
		l := limits.New(s, now)
		for _, n := range []int64{math.MinInt64, -1, 0, 1, limits.MaxN, math.MaxInt64} {
			l.Take(now, n)
			l.WaitFor(now, math.MaxInt64, n)
			l.Refund(now, n)
		}
	}
}

func TestSetRate(t *testing.T) {
	l := limits.New(spec(t, burst(10, 0)), epoch)
	l.Take(epoch, 5)
	if err := l.SetRate(epoch, 100, time.Second); err != nil {
		t.Fatal(err)
	}
	if got, d := l.Spec().Limit(), l.Peek(epoch, 1); got.Name != "rate-100-s" || got.Burst != 100 || d.Remaining != 50 {
		t.Errorf("%+v with %+v, want rate-100-s, half of its burst of 100 used", got, d)
	}
	if err := l.SetRate(epoch, -1, time.Second); err == nil || l.Spec().Limit().N != 100 {
		t.Errorf("-1 per second: %v, then %+v", err, l.Spec().Limit())
	}
	s, err := limits.Kinds{"ration": newRation}.Compile(limits.Limit{Kind: "ration", Name: "own", N: 2, Period: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	l = limits.New(s, epoch)
	if err := l.SetRate(epoch, 4, time.Second); err != nil || l.Peek(epoch, 4).Allowed != true || l.Spec().Limit().Name != "own" {
		t.Errorf("a kind of one's own: %v, %+v", err, l.Spec().Limit())
	}
}

// TestRaisesOfAUsedUpLimit: one that is raised further and further lets one
// request pass each time; one that goes up and down, none after the first time,
// until its period is over.
func TestRaisesOfAUsedUpLimit(t *testing.T) {
	for _, l := range []limits.Limit{
		{Kind: limits.Quota, N: 10, Calendar: limits.Day},
		{Kind: limits.Window, N: 10, Period: 24 * time.Hour},
		{Kind: limits.IdleReset, N: 10, Period: 24 * time.Hour},
	} {
		of := func(n int64) *limits.Spec {
			l.N = n
			return spec(t, l)
		}
		lim := limits.New(of(10), epoch)
		change := func(now limits.Time, n int64) (admitted int64) {
			lim.SetSpec(now, of(n))
			for lim.Take(now, 1).Allowed {
				admitted++
			}
			return admitted
		}
		for _, step := range []struct{ n, want int64 }{{10, 10}, {12, 1}, {14, 1}, {10, 0}, {14, 0}, {0, 0}, {14, 0}, {5, 0}, {12, 0}, {15, 1}, {7, 0}, {15, 0}} {
			if got := change(epoch, step.n); got != step.want {
				t.Errorf("%s: %d admitted after a change to %d, want %d", l.Kind, got, step.n, step.want)
			}
		}
		next := epoch.Add(24 * time.Hour)
		if got := change(next, 10); got != 10 {
			t.Errorf("%s: %d of 10 admitted in the next period", l.Kind, got)
		}
		if got := change(next, 11); got != 1 {
			t.Errorf("%s: %d admitted after the first raise of the next period, want 1", l.Kind, got)
		}
	}
}
