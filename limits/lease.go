package limits

import (
	"context"
	"slices"
	"sync/atomic"
)

// Lease is what this instance holds of a limit that many instances share: a
// number of requests that it may admit without asking, for some time. A limiter
// with a lease ([Limiter.Lend]) decides from what is in hand and asks its
// [Lender] when that does not do. All methods are safe for concurrent use.
type Lease struct {
	lender  Lender
	limiter *Limiter
	low     atomic.Int64 // Low is called when no more than this is left
	rest    atomic.Int64 // what the store had beside what instances hold
	full    atomic.Int64 // the instant at which the shared limit is as good as new
	emptied atomic.Int64 // the instant at which the last in hand was taken
	known   atomic.Pointer[State]
	resets  atomic.Int64
}

// Lender keeps the leases of one limiter filled. Its methods are called by
// decisions: they must not block, and allocate nothing but where they must.
type Lender interface {
	// Short decides about n after ahead others that the lease does not have in
	// hand; only with take set may it use something up. A decision that cannot
	// be made before the store is asked is Pending.
	Short(now Time, ahead, n int64, take bool) Decision
	// Refill is told, before Short is asked, that what is in hand does not do. It
	// reports whether it has put something there that had come back meanwhile.
	Refill(now Time) bool
	// Low is told that little is left, that something came back, or that the
	// limit of the limiter was changed, reset or closed.
	Low(now Time)
	// Returned is told that n that Short had let pass are given back. It reports
	// whether they were its own; if not they are in hand again.
	Returned(now Time, n int64) bool
	// Ask has the store asked for n, where it can for all that those want who
	// wait, and waits until it has answered, or is found to be away. Decisions do
	// not call it.
	Ask(ctx context.Context, n, all int64)
	// Touch is told that whoever counts by silences has heard something just now.
	Touch(now Time)
}

// Lend makes l decide by what lender lends it. l must be fresh from [New] or
// [Restore] and be used by nobody yet: what it remembers becomes the known
// state of the lease.
func (l *Limiter) Lend(ls *Lease, lender Lender) {
	b := &l.first
	s := b.spec()
	st := s.engine.state(b)
	ls.lender, ls.limiter = lender, l
	ls.known.Store(&st)
	b.begin(s.lent())
	b.setMore(&extra{lease: ls})
	b.start.Store(neverUsed)
}

// Lease returns the lease by which l decides, nil if it decides by itself.
func (l *Limiter) Lease() *Lease {
	return l.current().lease()
}

// Lender returns who keeps the lease filled.
func (ls *Lease) Lender() Lender { return ls.lender }

// Limiter returns the limiter that decides by the lease.
func (ls *Lease) Limiter() *Limiter { return ls.limiter }

// Known returns what was last heard of the shared limiter, as a [State].
func (ls *Lease) Known() State { return *ls.known.Load() }

// Learn makes st what is known.
func (ls *Lease) Learn(st State) {
	if st != *ls.known.Load() {
		ls.known.Store(&st)
	}
}

// Resets returns how often the limiter was reset: all that was used is then to
// be given back in the store too.
func (ls *Lease) Resets() int64 { return ls.resets.Load() }

// Left returns how many are in hand, be they still good or not.
func (ls *Lease) Left() int64 { return int64(ls.limiter.current().word.Load() >> 1) }

// Emptied returns when the last in hand was taken, as decisions tell the time.
func (ls *Lease) Emptied() Time { return Time(ls.emptied.Load()) }

// Closed reports whether the limiter was closed. What it still had in hand is
// what Withdraw gives.
func (ls *Lease) Closed() bool {
	_, ok := ls.limiter.current().spec().engine.(ended)
	return ok
}

// Forecast says what the store knows: what it has left beside what instances
// hold, when the shared limit is as good as new, and at how many in hand the
// lender wants to be told.
func (ls *Lease) Forecast(rest int64, full Time, low int64) {
	ls.rest.Store(rest)
	ls.full.Store(int64(full))
	ls.low.Store(low)
}

// Grant puts n more in hand, all of which are good from one instant until
// another, under the limit s. If the limit has changed meanwhile, they are in
// hand but not good, so that the lender takes them back.
func (ls *Lease) Grant(s *Spec, n int64, from, until Time) {
	for {
		b, word := ls.current()
		if b.spec().base == s {
			b.seen.Store(int64(from))
			b.start.Store(int64(until))
		}
		if b.word.CompareAndSwap(word, word+uint64(n)<<1) {
			break
		}
	}
	ls.limiter.retime()
}

// current returns the limiter's bucket, which no other is about to replace, and
// what is in it.
func (ls *Lease) current() (*bucket, uint64) {
	for {
		b := ls.limiter.current()
		word := b.word.Load()
		if word&sealed == 0 || b.heir() == nil {
			return b, word
		}
		ls.limiter.succeed(b)
	}
}

// Withdraw takes up to n out of what is in hand, and returns how many.
func (ls *Lease) Withdraw(n int64) int64 {
	for {
		b, word := ls.current()
		out := min(n, int64(word>>1))
		if b.word.CompareAndSwap(word, word-uint64(out)<<1) {
			return out
		}
	}
}

// Void makes what is in hand no good, until the next Grant.
func (ls *Lease) Void() { ls.limiter.current().start.Store(neverUsed) }

// lent is the engine of a limiter with a lease. The word of its bucket is what
// is in hand; start and seen say until and from when that is good.
type lent struct{}

// lent returns the spec of buckets that decide by a lease under the limit s.
func (s *Spec) lent() *Spec {
	if l := s.shared.Load(); l != nil {
		return l
	}
	l := &Spec{limit: s.limit, engine: lent{}, base: s.base}
	s.shared.Store(l)
	return l
}

// good tells whether what is in hand may be used at now. A clock that was set
// back makes it void, since the store's has gone on.
func (b *bucket) good(now int64) bool {
	return now < b.start.Load() && b.seen.Load()-now <= clockSet
}

func (lent) take(b *bucket, now Time, n int64) (Decision, step) {
	ls, t := b.more().lease, clamp(now)
	for {
		w := b.word.Load()
		if w&sealed != 0 {
			return Decision{}, follow
		}
		left := int64(w>>1) - n
		if left < 0 || !b.good(t) {
			if ls.lender.Refill(now) {
				continue
			}
			return ls.lender.Short(now, 0, n, true), done
		}
		if b.word.CompareAndSwap(w, w-uint64(n)<<1) {
			if left <= ls.low.Load() {
				ls.ebb(now, left)
			}
			return Decision{Allowed: true, Remaining: left + ls.rest.Load(), Reset: sub(ls.full.Load(), t)}, done
		}
	}
}

func (ls *Lease) ebb(now Time, left int64) {
	if left == 0 {
		ls.emptied.Store(int64(now))
	}
	ls.lender.Low(now)
}

func (lent) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	ls, t := b.more().lease, clamp(now)
	for {
		w := b.word.Load()
		if w&sealed != 0 {
			return Decision{}, follow
		}
		left := int64(w >> 1)
		if left-ahead < n || !b.good(t) {
			if ls.lender.Refill(now) {
				continue
			}
			return ls.lender.Short(now, ahead, n, false), done
		}
		return Decision{Allowed: true, Remaining: left + ls.rest.Load(), Reset: sub(ls.full.Load(), t)}, done
	}
}

func (lent) refund(b *bucket, now Time, n int64) step {
	ls := b.more().lease
	if b.word.Load()&sealed != 0 {
		return follow
	}
	if ls.lender.Returned(now, n) {
		return done
	}
	for {
		w := b.word.Load()
		if w&sealed != 0 {
			return follow
		}
		if b.word.CompareAndSwap(w, w+uint64(n)<<1) {
			ls.lender.Low(now)
			return done
		}
	}
}

// pass makes b, which replaces the sealed old, decide by the same lease: what is
// in hand stays there, but is good no more unless the limits count alike.
func (b *bucket) pass(old *bucket, how succession) {
	b.share(old)
	b.word.Store(old.word.Load() &^ sealed)
	b.start.Store(neverUsed)
	if how == changed && b.spec().same(old.spec()) {
		b.start.Store(old.start.Load())
		b.seen.Store(old.seen.Load())
	}
}

func (lent) used(*bucket, Time) share     { return share{} } // a leased bucket is passed on, never planted
func (lent) plant(*bucket, Time, seed)    {}
func (lent) load(*bucket, Time, State)    {}
func (lent) renew(b, old *bucket, _ Time) { b.pass(old, changed) }
func (lent) state(b *bucket) State        { return b.more().lease.Known() }

// informed tells the lender of l, if it has one, that something has changed.
func (l *Limiter) informed(now Time) {
	if ls := l.Lease(); ls != nil {
		ls.lender.Low(now)
	}
}

// Try is [TakeAll] for one who can ask the store: it counts no refusal in Usage,
// and a claim whose decision is Pending refuses, in shadow too. Once a Lender has
// been given time to ask, try again, and end with TakeAll.
func Try(now Time, claims []Claim) int { return attempt(now, claims, true) }

// Tally counts, in Usage, a decision that was made elsewhere.
func (l *Limiter) Tally(admitted bool) { l.count(admitted) }

// Capacity returns how many requests of cost 1 a limiter of s holds when nobody
// used it: what costs more is never admitted.
func (s *Spec) Capacity() int64 {
	if s.limit.N == 0 {
		return 0
	}
	return s.capacity()
}

// Interval returns how many nanoseconds one request of a rate or a pace takes to
// refill, 0 for other kinds.
func (s *Spec) Interval() int64 {
	switch e := s.base.engine.(type) {
	case *gcra:
		return e.interval
	case *warming:
		return e.interval
	}
	return 0
}

// Counts reports whether s counts in periods, and then the beginnings of the
// period before that of now, of its own, and of the two after it.
func (s *Spec) Counts(now Time) (begins [4]Time, ok bool) {
	c, ok := s.base.engine.(*counter)
	if !ok {
		return begins, false
	}
	p := c.periods.at(clamp(now))
	before, after := c.periods.at(p.start-1), c.periods.at(p.end)
	return [4]Time{Time(before.start), Time(p.start), Time(p.end), Time(after.end)}, true
}

// Taker decides about limits that instances share, where a store may have to be
// asked: [TakeAll] and [PeekAll], which may wait for it. Where q is not nil it
// holds requests as [Queue.TakeAll] does. An error is that of ctx, or ErrWouldWait
// where the store must be asked and ctx is one of [WithoutWaiting]; nothing was
// taken then. That the store is away is none.
//
// Claims with a Group are of quotas of which one that is used up does no harm
// while another is not: the claims of a group that refuses become shadows, and
// take nothing, unless every group refuses.
type Taker interface {
	TakeAll(ctx context.Context, q *Queue, now Time, claims []Claim) (int, error)
	PeekAll(ctx context.Context, now Time, claims []Claim) (int, error)
}

// Relieve makes shadows, which take nothing, of the claims of the groups that
// refuse, by the decisions that PeekAll filled, unless every group does.
func Relieve(claims []Claim) {
	var room [8]int
	refusing, stands := room[:0], false
	for i := range claims {
		if c := &claims[i]; c.Group > 0 && !c.Decision.Allowed && c.enforced() {
			refusing = append(refusing, c.Group)
		}
	}
	for i := range claims {
		stands = stands || claims[i].Group > 0 && !slices.Contains(refusing, claims[i].Group)
	}
	for i := range claims {
		if c := &claims[i]; stands && slices.Contains(refusing, c.Group) {
			c.Shadow, c.N = true, 0
		}
	}
}
