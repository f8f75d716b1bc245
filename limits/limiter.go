package limits

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Limiter decides for one key. Make one with [New] or [Restore], or many in a
// [Slab]; it must not be copied. All methods are safe for concurrent use, and none takes a lock.
// Those that decide allocate nothing once the limiter is warm, but for a few words
// at every 128th request of Guava's two kinds that comes in one microsecond.
//
// now is the instant of the decision. It may be a little behind that of an
// earlier decision, as happens between goroutines, and it may jump back: see
// the package documentation.
type Limiter struct {
	first    bucket // and those that replace it, see current
	admitted atomic.Int64
	refused  atomic.Int64
	holds    holds

	// Note is for who keeps the limiter: nothing here reads it, and it stays
	// when the limiter is made anew in its place.
	Note atomic.Uint32
}

// New returns a limiter that nobody has used.
func New(s *Spec, now Time) *Limiter {
	l := newLimiter()
	l.Init(s, now)
	return l
}

// Init makes l, which stands in a [Slab], a limiter that nobody has used. What l
// was before must be over: closed, and waited for by nobody.
func (l *Limiter) Init(s *Spec, now Time) {
	l.clear()
	l.first.begin(s)
	s.engine.plant(&l.first, now, seed{warmth: warmth{start: cold}})
}

func (l *Limiter) clear() {
	l.admitted.Store(0)
	l.refused.Store(0)
	l.holds.Store(0)
}

// Take takes n or nothing. With an n below 1 it takes nothing and answers
// whether 1 could be taken.
func (l *Limiter) Take(now Time, n int64) Decision {
	if n < 1 {
		return l.Peek(now, 1)
	}
	d, _ := l.take(now, n)
	l.count(d.Allowed)
	return d
}

func (l *Limiter) count(admitted bool) {
	if admitted {
		l.admitted.Add(1)
		return
	}
	l.countRefused()
}

// countRefused counts one refusal in Usage.
func (l *Limiter) countRefused() { l.refused.Add(1) }

// take is Take without counting. It also returns the bucket that decided.
func (l *Limiter) take(now Time, n int64) (Decision, *bucket) {
	for {
		held := l.holds.Load()
		d, b := l.ask(now, n)
		if d.Allowed || d.Wait == Never || l.holds.settled(held) {
			return d, b
		}
		runtime.Gosched()
	}
}

// ask is take that does not mind what others hold only for a moment.
func (l *Limiter) ask(now Time, n int64) (Decision, *bucket) {
	b := l.current()
	for {
		d, s := b.spec().engine.take(b, now, n)
		if s == done {
			return d, b
		}
		b = l.next(b, now, s)
	}
}

// Peek answers what Take would, and takes nothing.
func (l *Limiter) Peek(now Time, n int64) Decision { return l.peek(now, 0, max(n, 1)) }

func (l *Limiter) peek(now Time, ahead, n int64) Decision {
	b := l.current()
	for {
		held := l.holds.Load()
		d, s := b.spec().engine.peek(b, now, ahead, n)
		switch {
		case s != done:
			b = l.next(b, now, s)
		case d.Allowed || d.Wait == Never || l.holds.settled(held):
			return d
		default:
			runtime.Gosched()
		}
	}
}

// WaitFor answers how long it takes until n can be taken by one who comes
// after ahead others of cost 1: 0 when it can be taken now, or [Never]. For a
// warming limiter and for Guava's two kinds it is an estimate that is never
// too short while the others are as many as was said.
func (l *Limiter) WaitFor(now Time, ahead, n int64) time.Duration {
	return l.peek(now, min(max(ahead, 0), MaxN), max(n, 1)).Wait
}

// Behind answers what Peek would to one who comes after ahead others of cost 1,
// as WaitFor tells the wait alone.
func (l *Limiter) Behind(now Time, ahead, n int64) Decision {
	return l.peek(now, min(max(ahead, 0), MaxN), max(n, 1))
}

// Refund gives back n that an earlier Take took; now is the instant that the
// Take was given. A later Take decides as if those n had never been taken. Give
// back promptly: a bucket that has filled up in between would have lost what
// it gets back. Three things are not given back in full: the silence that a
// request of idle_reset broke, the time of a request in a window of more than
// 128 (to a 128th of it), and a fraction of a permit of Guava's two kinds.
func (l *Limiter) Refund(now Time, n int64) {
	if n < 1 {
		return
	}
	l.refundTo(l.current(), now, n)
	l.retime()
}

// refundTo gives back n of what was taken from b. Where a change of limit has
// come between, they went over to the new limit in proportion, and so do they
// come back.
func (l *Limiter) refundTo(b *bucket, now Time, n int64) {
	for {
		s := b.spec().engine.refund(b, now, n)
		if s == done {
			return
		}
		if s == remake && b.announce(&heir{how: returned, spec: b.spec(), now: now, n: n}) {
			l.succeed(b)
			return
		}
		h := l.next(b, now, s)
		if !h.spec().same(b.spec()) && !h.spec().recounts(b.spec()) {
			n = shareOf(n, b.spec().capacity()).part(h.spec().capacity())
		}
		b = h
	}
}

// SetSpec changes the limit, to one of any kind. Once it returns, no decision
// is made by the old limit. What was used stays used, in proportion to what
// the limiter holds; after a raise the next request waits at most one interval
// of the new rate; but where that admits one that a limit which is used up would
// not, it does so only beyond the highest limit there was since. Only a fixed
// window of the same length keeps its count as it is. A grace does not start again. A closed limiter stays closed.
func (l *Limiter) SetSpec(now Time, s *Spec) {
	if l.Spec() == s {
		return
	}
	l.replace(changed, now, s)
	l.retime()
	l.informed(now)
}

// Move is SetSpec for who changes the limits of a million: it makes next, which
// stands in a [Slab] and is used by nobody, go on with what l has used, under s,
// and has whoever still decides by l decide by next. So nothing of the change is
// left once another limiter is made in the place of l, which may be done when
// nobody can decide by it any more. Where somebody waits for l, or it has a lease,
// or is changed by another just now, it does nothing and returns false. What is
// counted in Usage of l from then on is not counted in that of next.
func (l *Limiter) Move(now Time, s *Spec, next *Limiter) bool {
	b := l.current()
	_, over := b.spec().engine.(ended)
	if over || l.line() != nil || b.lease() != nil || l.holds.Load()&(1<<heldBits-1) != 0 {
		return false
	}
	h := &heir{how: changed, spec: s, now: now, moves: true}
	if !b.announce(h) {
		return false
	}
	b.seal()
	next.clear()
	next.admitted.Store(l.admitted.Load())
	next.refused.Store(l.refused.Load())
	h.make(&next.first, b)
	h.bucket.Store(&next.first)
	if first := l.first.heir(); first != h {
		first.bucket.CompareAndSwap(b, &next.first)
	}
	l.retime() // who began to wait just now
	return true
}

// SetRate is SetSpec with n per period of the limit in force ([Spec.WithRate]).
// The limit stays as it is when there is an error. Where many limiters have one
// limit, make the spec once and set that.
func (l *Limiter) SetRate(now Time, n int64, period time.Duration) error {
	s, err := l.Spec().WithRate(n, period)
	if err != nil {
		return err
	}
	l.SetSpec(now, s)
	return nil
}

// Spec returns the limit in force.
func (l *Limiter) Spec() *Spec { return l.current().spec().base }

// Reset makes the limiter as good as new, but for its grace.
func (l *Limiter) Reset(now Time) {
	l.replace(emptied, now, nil)
	l.retime()
	if ls := l.Lease(); ls != nil {
		ls.resets.Add(1)
		ls.lender.Low(now)
	}
}

// Close ends the limiter: every later Take is refused, Never. It returns the
// state that the limiter ended in, with everything that was ever taken.
func (l *Limiter) Close() State {
	b := l.replace(closed, 0, nil)
	l.retime()
	l.informed(0)
	return b.spec().engine.state(b)
}

// Usage is what a limiter has answered since it was made, in requests: looks
// are not counted. Limits in shadow count as refused what they would refuse.
type Usage struct{ Admitted, Refused int64 }

// Usage reads the counts.
func (l *Limiter) Usage() Usage { return Usage{l.admitted.Load(), l.refused.Load()} }

// holds counts the requests of several limits that have taken from a limiter
// and do not know yet whether they keep it, and above those how many did not.
// Who is refused by what such a request held looks again once it is decided, so
// that a request which gets nothing leaves no trace in what others are answered.
// Nobody waits who is admitted, and nobody who holds anything.
type holds struct{ atomic.Uint32 }

const heldBits = 14 // more can hardly be in the midst of a decision

func (h *holds) begin() { h.Add(1) }

func (h *holds) end(back bool) {
	if back {
		h.Add(1<<heldBits - 1)
		return
	}
	h.Add(^uint32(0))
}

// settled tells whether all that was held since h had the value before was kept.
func (h *holds) settled(before uint32) bool {
	now := h.Load()
	return now&(1<<heldBits-1) == 0 && now>>heldBits == before>>heldBits
}
