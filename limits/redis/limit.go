package redis

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// limit is one shared limiter on this instance. It implements [limits.Lender], by
// whose methods decisions ask: they wait for nobody, and what they need they find in
// what is atomic. What exchanges with Redis keep is guarded by mu, which is held for
// no longer than it takes to write a report or to read an answer.
type limit struct {
	lease   limits.Lease
	cluster *Cluster
	key     string
	holder  string       // as whom it holds what is in hand
	base    *limit       // whose bucket it takes from; nil: it has its own
	reserve atomic.Int64 // what it leaves there
	learned bool         // it is an upstream's, and may go up and down

	demand demand // what is wanted that is not in hand
	dry    dry    // what there is no use in asking for
	grace  grace  // what is not limited
	local  local  // decides while Redis is away
	glance glance // what looking after it needs to know without mu
	turns  turns  // when a part of a window comes back

	askedAt atomic.Int64 // when Redis was last asked
	gap     atomic.Int64 // how long not to ask again for more, in nanoseconds
	resets  atomic.Int64 // of the limiter, that Redis knows of
	broken  atomic.Int64 // when the value in Redis was found not to be meant; 0: it can be
	touched atomic.Bool  // a silence is broken, which Redis does not know yet
	queued  atomic.Bool  // among the cluster's pending ones
	listed  atomic.Bool  // among the cluster's active ones
	closing atomic.Bool

	mu       sync.Mutex // guards what follows
	spec     *limits.Spec
	specText string
	untried  bool  // nothing was asked for yet under spec
	known    note  // what Redis is reminded of
	rest     int64 // what it had left at the last exchange
	vain     int   // exchanges in a row that brought nothing
	account  account
	meter    meter
	window   window
	trip     trip
}

const (
	clockSet  = time.Second           // a clock that goes back further was set
	brokenFor = time.Second           // until a value that could not be meant is looked at again
	askAgain  = time.Millisecond      // the wait of who is told to wait for Redis
	freeAhead = 50 * time.Millisecond // before a piece of a grace ends, the next is asked for
)

// within reports whether now lies between two instants, of a clock that was not set back.
func within(now limits.Time, from, till int64) bool {
	return int64(now) < till && int64(now) >= from-int64(clockSet)
}

// demand is what requests want that is not in hand: decisions raise it, a report
// takes it along.
type demand struct {
	need atomic.Int64 // of the largest request
	wish atomic.Int64 // of all together who wait
}

// raise makes the need n at least.
func (d *demand) raise(n int64) {
	for need := d.need.Load(); need < n && !d.need.CompareAndSwap(need, n); need = d.need.Load() {
	}
}

// take empties d.
func (d *demand) take() (need, wish int64) { return d.need.Swap(0), d.wish.Swap(0) }

// put is the opposite of take.
func (d *demand) put(need, wish int64) {
	d.raise(need)
	d.wish.Add(wish)
}

// away reports whether Redis cannot be asked about l.
func (l *limit) away(now limits.Time) bool {
	link, broken := l.cluster.link(l.key), l.broken.Load()
	return l.cluster.closed.Load() || link.down.Load() || int64(now) < link.slow.Load() ||
		broken != 0 && within(now, broken, broken+int64(brokenFor))
}

// apart reports whether l is decided about without Redis: because that is away,
// or comes back while instances still tell what they admitted each for itself.
func (l *limit) apart(now limits.Time) bool { return l.away(now) || l.settling(now) }

func (l *limit) settling(now limits.Time) bool {
	till := l.cluster.link(l.key).settles.Load()
	return till != 0 && within(now, till-int64(settleFor), till) && l.onError() == limits.OnErrorLocal
}

func (l *limit) onError() limits.OnError {
	return cmp.Or(l.lease.Limiter().Spec().Limit().OnError, l.cluster.o.OnError)
}

// Short implements [limits.Lender].
func (l *limit) Short(now limits.Time, ahead, n int64, take bool) limits.Decision {
	s := l.lease.Limiter().Spec()
	switch {
	case n > s.Capacity():
		return limits.Decision{Wait: limits.Never}
	case l.apart(now) || !shareable(s):
		return l.alone(now, s, ahead, n, take)
	case l.grace.open(now):
		if d, ends := l.grace.pass(now, n, take); d.Allowed {
			if ends {
				l.ask(now)
			}
			return d
		}
	case l.resets.Load() == l.lease.Resets() && l.dry.holds(now, s, n):
		wait := l.dry.wait(now, s, n) + spacing(s, ahead)
		return limits.Decision{Wait: wait, Reset: max(wait, 0)}
	}
	l.demand.raise(n)
	l.enqueue()
	return limits.Decision{Pending: true, Wait: askAgain + spacing(s, ahead)}
}

// spacing is about how long ahead requests take.
func spacing(s *limits.Spec, ahead int64) time.Duration {
	if ahead == 0 {
		return 0
	}
	per := float64(s.Interval())
	if l := s.Limit(); per == 0 && l.Period > 0 {
		per = float64(l.Period) / float64(l.N)
	}
	return time.Duration(min(per*float64(ahead), 1e18))
}

// Low implements [limits.Lender].
func (l *limit) Low(now limits.Time) {
	news := l.resets.Load() != l.lease.Resets() || l.lease.Closed()
	if news || !l.queued.Load() && !within(now, l.askedAt.Load(), l.askedAt.Load()+l.gap.Load()) {
		l.ask(now)
	}
}

func (l *limit) ask(now limits.Time) {
	if !l.away(now) {
		l.enqueue()
	}
}

// Ask implements [limits.Lender].
func (l *limit) Ask(ctx context.Context, n, all int64) {
	l.demand.wish.Add(max(all-n, 0))
	patience := time.NewTimer(2 * l.cluster.o.Timeout)
	defer patience.Stop()
	select {
	case <-l.ticket(n):
	case <-ctx.Done():
	case <-patience.C:
	}
}

// Touch implements [limits.Lender].
func (l *limit) Touch(now limits.Time) {
	if own := l.local.limiter.Load(); own != nil && l.apart(now) {
		own.Refund(now, 1) // the count stays, and taking it again breaks the silence
		own.Take(now, 1)
		if l.away(now) {
			return
		}
	}
	l.touched.Store(true)
	l.ask(now)
}

// Returned implements [limits.Lender].
func (l *limit) Returned(now limits.Time, n int64) bool {
	if own := l.bucket().local.limiter.Load(); own != nil && l.apart(now) {
		own.Refund(now, n)
		l.bucket().local.admitted.Add(-n)
		return true
	}
	if l.grace.open(now) {
		l.grace.passed.Add(-n)
		return true
	}
	if int64(now) <= l.turns.cutAt.Load() {
		l.turns.back.add(n, now)
	}
	return false
}

// Refill implements [limits.Lender].
func (l *limit) Refill(now limits.Time) bool {
	if at := l.turns.at.Load(); at == 0 || int64(now) < at || !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	return l.recur(l.cluster.now())
}

// bucket returns the limit that has the bucket which l takes from.
func (l *limit) bucket() *limit {
	if l.base != nil {
		return l.base
	}
	return l
}

// enqueue has the worker exchange with Redis about l.
func (l *limit) enqueue() {
	if l.queued.Swap(true) {
		return
	}
	c := l.cluster
	c.mu.Lock()
	c.pending = append(c.pending, l)
	c.mu.Unlock()
	select {
	case c.signal <- struct{}{}:
	default:
	}
}
