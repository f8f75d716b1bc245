package limits_test

import (
	"context"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// lender lends nothing by itself and remembers what it was asked.
type lender struct {
	short, low int
	answer     limits.Decision
}

func (l *lender) Short(_ limits.Time, _, _ int64, _ bool) limits.Decision { l.short++; return l.answer }
func (l *lender) Refill(limits.Time) bool                                 { return false }
func (l *lender) Low(limits.Time)                                         { l.low++ }
func (l *lender) Returned(limits.Time, int64) bool                        { return false }
func (l *lender) Ask(context.Context, int64, int64)                       {}
func (l *lender) Touch(limits.Time)                                       {}

func leased(t *testing.T, l limits.Limit) (*limits.Limiter, *limits.Lease, *lender) {
	t.Helper()
	limiter, lease, lends := limits.New(spec(t, l), epoch), new(limits.Lease), new(lender)
	limiter.Lend(lease, lends)
	return limiter, lease, lends
}

func TestALeaseDecidesFromWhatIsInHand(t *testing.T) {
	l, lease, lends := leased(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})
	lends.answer = limits.Decision{Pending: true, Wait: time.Millisecond}
	if d := l.Take(epoch, 1); d.Allowed || !d.Pending || lends.short != 1 {
		t.Fatalf("with nothing in hand: %+v, asked %d times", d, lends.short)
	}
	lease.Forecast(5, epoch.Add(time.Second), 1)
	lease.Grant(l.Spec(), 3, epoch, epoch.Add(time.Second))
	for i, low := range []int{0, 1, 2} {
		if d := l.Take(epoch, 1); !d.Allowed || d.Remaining != int64(5+2-i) || d.Reset != time.Second || lends.low != low {
			t.Errorf("take %d: %+v, told %d times of little left, want %d", i, d, lends.low, low)
		}
	}
	if lease.Emptied() != epoch {
		t.Errorf("emptied at %v, want %v", lease.Emptied(), epoch)
	}
	if d := l.Take(epoch, 1); d.Allowed {
		t.Errorf("a fourth of three: %+v", d)
	}
	l.Refund(epoch, 1)
	if lease.Left() != 1 || lease.Withdraw(5) != 1 || lease.Left() != 0 {
		t.Error("what is given back is not in hand")
	}
}

func TestALeaseThatIsNoGood(t *testing.T) {
	for name, spoil := range map[string]func(*limits.Limiter, *limits.Lease) limits.Time{
		"its time is over":       func(*limits.Limiter, *limits.Lease) limits.Time { return epoch.Add(time.Second) },
		"the clock was set back": func(*limits.Limiter, *limits.Lease) limits.Time { return epoch.Add(-time.Hour) },
		"void":                   func(_ *limits.Limiter, ls *limits.Lease) limits.Time { ls.Void(); return epoch },
		"another limit": func(l *limits.Limiter, _ *limits.Lease) limits.Time {
			l.SetSpec(epoch, spec(t, limits.Limit{Kind: limits.Window, N: 2, Period: time.Second}))
			return epoch
		},
		"reset": func(l *limits.Limiter, _ *limits.Lease) limits.Time { l.Reset(epoch); return epoch },
		"granted under the limit before": func(l *limits.Limiter, ls *limits.Lease) limits.Time {
			was := l.Spec()
			l.SetSpec(epoch, spec(t, limits.Limit{Kind: limits.Pace, N: 2, Period: time.Second}))
			ls.Grant(was, 1, epoch, epoch.Add(time.Second))
			return epoch
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, lease, lends := leased(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})
			lease.Grant(l.Spec(), 3, epoch, epoch.Add(time.Second))
			now := spoil(l, lease)
			if d := l.Take(now, 1); d.Allowed || lends.short != 1 {
				t.Errorf("%+v, asked %d times", d, lends.short)
			}
			if got := lease.Withdraw(10); got < 3 {
				t.Errorf("%d are left to give back, want all", got)
			}
		})
	}
}

func TestALeaseStaysWithALimitThatCountsAlike(t *testing.T) {
	l, lease, _ := leased(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})
	lease.Grant(l.Spec(), 1, epoch, epoch.Add(time.Second))
	l.SetSpec(epoch, spec(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second, Name: "another"}))
	if d := l.Take(epoch, 1); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

func TestAClosedLeaseGivesBack(t *testing.T) {
	l, lease, lends := leased(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})
	lease.Grant(l.Spec(), 3, epoch, epoch.Add(time.Second))
	l.Close()
	if d := l.Take(epoch, 1); d.Allowed || d.Wait != limits.Never {
		t.Errorf("closed: %+v", d)
	}
	if lends.low == 0 || !lease.Closed() || lease.Withdraw(10) != 3 {
		t.Error("what is in hand is lost")
	}
}

func TestTryLetsShadowsAskFirst(t *testing.T) {
	l, _, lends := leased(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second, Shadow: true})
	lends.answer = limits.Decision{Pending: true}
	claims := []limits.Claim{{Limiter: limits.New(spec(t, limits.Limit{Kind: limits.Rate, N: 1, Period: time.Second}), epoch), N: 1}, {Limiter: l, N: 1}}
	if got := limits.Try(epoch, claims); got != 1 {
		t.Fatalf("Try = %d, want 1", got)
	}
	if got := limits.TakeAll(epoch, claims); got != -1 {
		t.Errorf("TakeAll = %d, want -1: a shadow refuses nobody", got)
	}
}

func TestALeaseAllocatesNothing(t *testing.T) {
	l, lease, _ := leased(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})
	lease.Grant(l.Spec(), 10_000, epoch, epoch.Add(time.Second))
	if n := testing.AllocsPerRun(1000, func() { l.Take(epoch, 1) }); n != 0 {
		t.Errorf("%v allocations a decision", n)
	}
}
