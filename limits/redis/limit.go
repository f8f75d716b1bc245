package redis

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// limit is one shared limiter on this instance. It implements [limits.Lender].
type limit struct {
	lease   limits.Lease
	cluster *Cluster
	key     string
	holder  string       // as whom it holds what is in hand
	base    *limit       // whose bucket it takes from; nil: it has its own
	reserve atomic.Int64 // what it leaves there
	kept    bool         // it is an upstream's: what passes without Redis is reported though nobody comes again

	need    atomic.Int64 // what the largest request wants that is not in hand
	wish    atomic.Int64 // what all want together who wait
	dryFrom atomic.Int64 // from then until dryTill there is no use in asking
	dryTill atomic.Int64
	dryFor  atomic.Int64                // for so many
	drySpec atomic.Pointer[limits.Spec] // under which limit
	resets  atomic.Int64                // of the limiter, that Redis knows of
	left    atomic.Int64                // in hand after the last exchange
	decided atomic.Int64                // by the limiter before it
	askedAt atomic.Int64                // when Redis was last asked
	gap     atomic.Int64                // how long not to ask again for more, in nanoseconds
	freed   atomic.Int64                // from then until freeTill nothing is limited: the grace
	freeTil atomic.Int64
	capped  atomic.Int64 // more than 1: so many, less 1, go free in the grace and no more
	passed  atomic.Int64 // let pass in the grace, not yet reported
	broken  atomic.Int64 // the value in Redis cannot be meant; when that was found
	touched atomic.Bool  // a silence is broken, which Redis does not know yet
	blurred atomic.Int64 // so many came back that were taken before the last cut
	cutAt   atomic.Int64 // when that was
	turnsAt atomic.Int64 // when a part of the window comes back next; 0: it does not
	queued  atomic.Bool
	closing atomic.Bool
	portion atomic.Pointer[portion]
	local   atomic.Pointer[limits.Limiter] // decides while Redis is away

	mu        sync.Mutex // guards what follows
	spec      *limits.Spec
	specText  string
	known     note
	session   int64
	granted   int64 // in this session, as are the next two
	used      int64
	acked     int64 // of used, what Redis has heard of
	returned  int64
	needed    int64           // what the exchange under way asks for at least
	spare     int64           // what it asks for beside what those want who wait for it
	reporting *limits.Limiter // local, while its use is being reported
	beside    int64           // what of granted and used is its
	good      limits.Time     // until when what is held is held in Redis too
	since     limits.Time     // the last exchange
	rest      int64           // what Redis had left then
	counted   limits.Usage
	rate      float64 // decisions a second
	use       float64 // requests used a second
	leaving   bool    // the exchange under way is the last under its limit
	vain      int     // exchanges in a row that brought nothing
	untried   bool    // nothing was asked for yet under spec
	cost      float64 // of a request that is admitted
	keeps     bool    // what is used comes back here, see window.go
	slices    []slice // what was used when, of which Redis does not know
	noted     int64   // all of them
	fresh     int64   // used since the last exchange
	busy      bool
	again     bool
	next      chan struct{} // closed when an exchange that has not begun yet is over
	flight    chan struct{} // when the one that is under way is
}

// How long a lease lasts here, and, later, in Redis: an instance must not use
// what Redis takes for used already, whatever its clock.
const (
	leaseLasts  = 3 * time.Second
	leaseInRest = 2 * leaseLasts
	renewAfter  = 500 * time.Millisecond  // what lies idle
	renewLater  = 1500 * time.Millisecond // what is in use

	clockSet   = time.Second
	brokenFor  = time.Second
	askAgain   = time.Millisecond
	freeAhead  = 50 * time.Millisecond
	maxGap     = 400 * time.Millisecond
	inRamp     = 10 * time.Millisecond
	ahead      = 300 * time.Millisecond
	atOnce     = 10 * time.Millisecond // how soon a request takes what it waited for
	decisions  = 400                   // at least so many on one call to Redis, of a key that is in much use
	graceSteps = 250 * time.Millisecond
)

// within reports whether now lies between two instants, of a clock that was not set back.
func within(now limits.Time, from, till int64) bool {
	return int64(now) < till && int64(now) >= from-int64(clockSet)
}

// away reports whether Redis cannot be asked about l.
func (l *limit) away(now limits.Time) bool {
	link := l.cluster.part(l.key)
	return l.cluster.closed.Load() || link.down.Load() || int64(now) < link.slow.Load() || within(now, l.broken.Load(), l.broken.Load()+int64(brokenFor)) && l.broken.Load() != 0
}

// Short implements [limits.Lender].
func (l *limit) Short(now limits.Time, ahead, n int64, take bool) limits.Decision {
	s := l.lease.Limiter().Spec()
	switch {
	case n > s.Capacity():
		return limits.Decision{Wait: limits.Never}
	case l.away(now) || !shareable(s):
		return l.alone(now, s, ahead, n, take)
	case within(now, l.freed.Load(), l.freeTil.Load()):
		if free := l.capped.Load(); free > 0 {
			if free <= n || take && !l.capped.CompareAndSwap(free, free-n) {
				break
			}
			return limits.Decision{Allowed: true, Remaining: free - n}
		}
		if take {
			l.passed.Add(n)
			if l.freeTil.Load()-int64(now) < int64(freeAhead) {
				l.ask(now)
			}
		}
		return limits.Decision{Allowed: true, Remaining: limits.MaxN, Reset: time.Duration(l.freeTil.Load()) - time.Duration(now)}
	case l.dryAt(now, s, n):
		more := time.Duration(min(float64(s.Interval())*float64(n-l.dryFor.Load()), 1e18)) // 0 for a quota: all comes at once
		wait := time.Duration(l.dryTill.Load()-int64(now)) + more + spacing(s, ahead)
		return limits.Decision{Wait: wait, Reset: max(wait, 0)}
	}
	for need := l.need.Load(); need < n && !l.need.CompareAndSwap(need, n); need = l.need.Load() {
	}
	l.enqueue()
	return limits.Decision{Pending: true, Wait: askAgain + spacing(s, ahead)}
}

// dryAt reports whether Redis has said when n can be had, and that is not now.
func (l *limit) dryAt(now limits.Time, s *limits.Spec, n int64) bool {
	if l.drySpec.Load() != s || l.resets.Load() != l.lease.Resets() || !within(now, l.dryFrom.Load(), l.dryTill.Load()) {
		return false
	}
	asked := l.dryFor.Load()
	if k := s.Limit().Kind; k == limits.Window || k == limits.IdleReset {
		return n == asked // how long more take, Redis alone knows
	}
	return n >= asked
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

// alone decides without Redis.
func (l *limit) alone(now limits.Time, s *limits.Spec, ahead, n int64, take bool) limits.Decision {
	switch onError := s.Limit().OnError; {
	case onError == limits.OnErrorAllow, onError == "" && l.cluster.o.OnError == limits.OnErrorAllow:
		return limits.Decision{Allowed: true}
	case onError == limits.OnErrorDeny, onError == "" && l.cluster.o.OnError == limits.OnErrorDeny:
		return limits.Decision{Undecided: true, Wait: time.Second}
	}
	of := l
	if l.base != nil {
		of = l.base
	}
	own := of.own(now, of.lease.Limiter().Spec())
	if reserve := l.reserve.Load(); reserve > 0 {
		of := int64(l.cluster.instances())
		if d := own.Peek(now, n+(reserve+of-1)/of); !d.Allowed || !take {
			return d
		}
	}
	switch {
	case take:
		return own.Take(now, n)
	case ahead > 0:
		wait := own.WaitFor(now, ahead, n)
		return limits.Decision{Allowed: wait == 0, Wait: wait}
	}
	return own.Peek(now, n)
}

// portion is the share of a limit, kept because it takes a while to compile.
type portion struct {
	of        *limits.Spec
	instances int
	part      *limits.Spec
}

// own returns the limiter of this instance's share, made when it is first needed.
func (l *limit) own(now limits.Time, s *limits.Spec) *limits.Limiter {
	p := l.portion.Load()
	if n := l.cluster.instances(); p == nil || p.of != s || p.instances != n {
		p = &portion{s, n, shareOf(s, n)}
		l.portion.Store(p)
	}
	part := p.part
	own := l.local.Load()
	if own == nil {
		l.mu.Lock()
		heard, rest, st := l.known.seq > 0, l.rest, l.lease.Known()
		l.mu.Unlock()
		fresh := newShare(now, s, part, int64(p.instances), heard, rest, st)
		if l.local.CompareAndSwap(nil, fresh) {
			if l.kept {
				l.cluster.holds(l)
			}
			return fresh
		}
		own = l.local.Load()
	}
	if own.Spec().Limit() != part.Limit() {
		own.SetSpec(now, part)
	}
	return own
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
	l.wish.Add(max(all-n, 0))
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
	if own := l.local.Load(); own != nil && l.away(now) {
		own.Refund(now, 1) // the count stays, and taking it again breaks the silence
		own.Take(now, 1)
		return
	}
	l.touched.Store(true)
	l.ask(now)
}

// Returned implements [limits.Lender].
func (l *limit) Returned(now limits.Time, n int64) bool {
	if own := l.local.Load(); own != nil && l.away(now) {
		own.Refund(now, n)
		return true
	}
	if within(now, l.freed.Load(), l.freeTil.Load()) {
		l.passed.Add(-n)
		return true
	}
	if int64(now) <= l.cutAt.Load() {
		l.blurred.Add(n)
	}
	return false
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

// report is what l tells Redis: all that it has used, and what it wants. It is
// called with mu held.
func (l *limit) report(now limits.Time, clock string, offset time.Duration) []string {
	c := l.cluster
	// What was used under a limit that has been changed is reported under that
	// one first, so that it counts in proportion.
	leaves := l.granted > 0 && specText(l.lease.Limiter().Spec()) != l.specText
	if leaves {
		l.again = true
	} else {
		l.follow(l.lease.Limiter().Spec())
	}
	if l.granted > 0 && (now >= l.good || l.since.Sub(now) > clockSet) {
		// Redis may take it for used already: what was used is not reported again.
		l.lease.Withdraw(limits.MaxN)
		l.session, l.granted, l.used, l.acked, l.returned, l.beside = c.session.Add(1), 0, 0, 0, 0, 0
		l.forget()
	}
	// What was used without Redis counts as granted and used, so that it may be
	// told again.
	if l.reporting = l.local.Load(); l.reporting != nil {
		total := l.reporting.Usage().Admitted
		l.granted, l.beside = l.granted+total-l.beside, total
	}
	left := l.cut()
	l.leaving = leaves
	idle := l.measure(now)
	tells := !l.keeps
	l.keeps = l.keepable()
	tells = tells || !l.keeps
	need, wish := l.need.Swap(0), l.wish.Swap(0)
	chunk, most := l.chunk(left)
	back := int64(0)
	switch {
	case leaves:
		l.need.Store(need)
		l.wish.Add(wish)
		back, chunk, need, wish, tells = left, 0, 0, 0, true
	case l.closing.Load() || l.lease.Closed() || idle && need == 0:
		back, chunk, need, tells = left, 0, 0, true
	case l.reporting != nil && !tells:
		back, tells = left, true // what Redis has heard of meanwhile has its place
	case left > most+need:
		back = left - chunk - need
	}
	back = l.lease.Withdraw(back)
	l.returned += back
	left -= back
	c.stats.returned.Add(back)
	spent := "0/0"
	if tells {
		spent = l.spent(now, left+back == 0)
		l.used = l.granted - l.returned - l.lease.Left()
	}
	reset := "0"
	if n := l.lease.Resets(); n != l.resets.Load() {
		l.resets.Store(n)
		l.dryTill.Store(0)
		reset = "1"
	}
	touch, learned, keeps := "0", "0", "0"
	if l.kept {
		learned = "1"
	}
	if l.keeps {
		keeps = "1"
	}
	if l.touched.Swap(false) {
		touch = "1"
	}
	num := func(n int64) string { return strconv.FormatInt(n, 10) }
	l.needed = max(0, need-left)
	l.spare = max(need, chunk-wish, 0)
	return []string{
		clock, l.specText, boundsText(l.spec, now.Add(offset)), l.known.text, l.holder, num(l.session), num(l.granted), num(l.used), num(l.returned),
		num(max(0, max(chunk, wish)-left)), num(l.needed), spent, num(int64(leaseInRest)), num(l.passed.Swap(0)), num(l.beside), reset, num(l.acked), num(l.reserve.Load()), touch, learned, keeps,
	}
}

// follow makes s the limit that l talks about; mu is held.
func (l *limit) follow(s *limits.Spec) {
	if s == l.spec {
		return
	}
	text := specText(s)
	if l.spec != nil && text[0] != l.specText[0] {
		// What is known of another kind means nothing: Redis carries over what it has.
		l.known = note{reset: l.known.reset, text: strconv.FormatInt(l.known.reset, 10) + " 0 - 0 0"}
		if text[0] == 'g' {
			l.known.text = strconv.FormatInt(l.known.reset, 10) + " 0 - warm 0"
		}
	}
	l.spec, l.specText, l.vain, l.untried = s, text, 0, true
}

// measure keeps how busy l is; mu is held. It reports whether it was idle.
func (l *limit) measure(now limits.Time) bool {
	u := l.lease.Limiter().Usage()
	admitted := u.Admitted - l.counted.Admitted
	n := admitted + u.Refused - l.counted.Refused
	if admitted > 0 {
		l.cost = float64(l.fresh) / float64(admitted)
	}
	if d := now.Sub(l.since); l.since != 0 && d > 0 {
		weight := min(1, d.Seconds()*5)
		if l.keeps { // what comes back may all be used at once
			weight = min(weight, d.Seconds()/min(l.spec.Limit().Period.Seconds(), 1))
		}
		l.rate += weight * (float64(n)/d.Seconds() - l.rate)
		l.use += weight * (float64(max(0, l.fresh))/d.Seconds() - l.use)
	}
	idle := l.fresh == 0 && (!l.keeps || n == 0)
	l.counted, l.fresh = u, 0
	l.decided.Store(u.Admitted + u.Refused)
	return idle
}

// chunk is how many l should have in hand, and how many at most, beside the left
// that it has: what it uses in a while, but no more than a part of what the limit
// holds.
func (l *limit) chunk(left int64) (chunk, most int64) {
	if l.cluster.o.Mode == Strict || l.spec.Limit().Kind == limits.IdleReset {
		return 0, 0
	}
	if l.keeps {
		return l.keep(left)
	}
	part := 1.0 // of a second's use, for slow callers
	if fill := l.fill().Seconds(); fill > 0 {
		part = min(1, fill)
	}
	size := float64(l.spec.Capacity() - l.reserve.Load())
	while := func(most, part float64) float64 {
		return max(l.use*most, min(l.use*part, 200), min(2*l.use*part, 200, size/20))
	}
	full := while(ahead.Seconds(), part)
	if l.spec.Limit().Kind == limits.Window {
		// What lies in hand now is missing a period later too: little, unless there is plenty.
		full = min(full, max(while(ahead.Seconds()/3, part/10), float64(l.rest)/2))
	}
	chunk = int64(min(full, size/4))
	return chunk, 2 * chunk
}

// low is at how many in hand more is asked for: so many that they last until an
// answer is overdue.
func (l *limit) low(chunk int64) int64 {
	if l.keeps {
		return 0
	}
	return max(chunk/3, min(int64(l.use*l.cluster.o.Timeout.Seconds()), chunk/2))
}
