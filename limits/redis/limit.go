package redis

import (
	"cmp"
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
	learned bool         // it is an upstream's, and may go up and down

	need    atomic.Int64 // what the largest request wants that is not in hand
	wish    atomic.Int64 // what all want together who wait
	dryFrom atomic.Int64 // from then until dryTill there is no use in asking
	dryTill atomic.Int64
	dryFor  atomic.Int64                // for so many
	drySpec atomic.Pointer[limits.Spec] // under which limit
	resets  atomic.Int64                // of the limiter, that Redis knows of
	left    atomic.Int64                // in hand after the last exchange
	keeping atomic.Int64                // the period of a window that is kept, 0 of other limits
	lately  atomic.Int64                // decisions a second, of late; of a window that is kept
	decided atomic.Int64                // by the limiter before it
	askedAt atomic.Int64                // when Redis was last asked
	gap     atomic.Int64                // how long not to ask again for more, in nanoseconds
	freed   atomic.Int64                // from then until freeTill nothing is limited: the grace
	freeTil atomic.Int64
	capped  atomic.Int64 // more than 1: so many, less 1, go free in the grace and no more
	passed  atomic.Int64 // let pass in the grace, not yet reported
	broken  atomic.Int64 // the value in Redis cannot be meant; when that was found
	touched atomic.Bool  // a silence is broken, which Redis does not know yet
	back    refunds      // what came back that was taken before the last cut
	cutAt   atomic.Int64 // when that was
	turnsAt atomic.Int64 // when a part of the window comes back next; 0: it does not
	queued  atomic.Bool
	listed  atomic.Bool // among the cluster's active ones
	closing atomic.Bool
	portion atomic.Pointer[portion]
	local   atomic.Pointer[limits.Limiter] // decides while Redis is away
	outside atomic.Int64                   // admitted by that, less what came back to it, since the limit is shared

	lookedAt limits.Time // when lately was last reckoned, and at how many decisions; for renew alone
	lookedOn int64

	mu        sync.Mutex // guards what follows
	spec      *limits.Spec
	specText  string
	known     note
	session   int64
	granted   int64 // in this session, as are the next two
	used      int64
	acked     int64 // of used, what Redis has heard of
	returned  int64
	backTold  int64           // returned, as the last report has it
	backAcked int64           // of returned, what Redis has heard of
	needed    int64           // what the exchange under way asks for at least
	spare     int64           // what it asks for beside what those want who wait for it
	reporting *limits.Limiter // local, while its use is being reported
	reports   int64           // the number of the last report
	answers   bool            // Redis has answered one of this session
	telling   int64           // outside, as the last report has it
	told      int64           // of outside, what Redis has acknowledged
	from      int64           // acked and told, when the entry was made that Redis has of this instance
	fromTold  int64
	fromAt    limits.Time // when that was
	good      limits.Time // until when what is held is held in Redis too
	since     limits.Time // the last exchange
	rest      int64       // what Redis had left then
	counted   limits.Usage
	rate      float64     // decisions a second
	use       float64     // requests used a second
	leaving   bool        // the exchange under way is the last under its limit
	vain      int         // exchanges in a row that brought nothing
	untried   bool        // nothing was asked for yet under spec
	cost      float64     // of a request that is admitted
	refused   bool        // some were refused since the last exchange
	crush     float64     // the part of decisions that refuse, over a while
	keeps     bool        // what is used comes back here, see window.go
	slices    []slice     // what was used when, of which Redis does not know
	noted     int64       // all of them
	undone    []slice     // what came back of which Redis knows that it was used, and not yet that it was not
	undid     int64       // all of it
	toldAt    limits.Time // until then Redis has been told what was used
	fresh     int64       // used since the last exchange
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
	keptLater   = 2400 * time.Millisecond // of a window that is kept
	renewSlack  = 200 * time.Millisecond  // of a window, what is kept and not used any more
	renewLater  = 1500 * time.Millisecond // what is in use

	clockSet   = time.Second
	brokenFor  = time.Second
	askAgain   = time.Millisecond
	freeAhead  = 50 * time.Millisecond
	maxGap     = 400 * time.Millisecond
	inRamp     = 10 * time.Millisecond
	ahead      = 300 * time.Millisecond
	overdue    = 100 * time.Millisecond
	atOnce     = 10 * time.Millisecond // how soon a request takes what it waited for
	decisions  = 400                   // at least so many on one call to Redis, of a key that is in much use
	graceSteps = 250 * time.Millisecond
	entryNew   = time.Minute
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

// apart reports whether l is decided about without Redis: because that is away,
// or comes back while instances still tell what they admitted each for itself.
func (l *limit) apart(now limits.Time) bool { return l.away(now) || l.settling(now) }

func (l *limit) settling(now limits.Time) bool {
	till := l.cluster.part(l.key).settles.Load()
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
	switch l.onError() {
	case limits.OnErrorAllow:
		return limits.Decision{Allowed: true}
	case limits.OnErrorDeny:
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
		d := own.Take(now, n)
		if d.Allowed {
			of.outside.Add(n)
			of.cluster.holds(of)
		}
		return d
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
		heard, rest, st := l.known.seq > 0, max(0, l.rest-max(0, l.outside.Load()-l.told)), l.lease.Known()
		l.mu.Unlock()
		fresh := newShare(now, s, part, int64(p.instances), heard, rest, st)
		if l.local.CompareAndSwap(nil, fresh) {
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
	if own := l.local.Load(); own != nil && l.apart(now) {
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
	of := l
	if l.base != nil {
		of = l.base
	}
	if own := of.local.Load(); own != nil && l.apart(now) {
		own.Refund(now, n)
		of.outside.Add(-n)
		return true
	}
	if within(now, l.freed.Load(), l.freeTil.Load()) {
		l.passed.Add(-n)
		return true
	}
	if int64(now) <= l.cutAt.Load() {
		l.back.add(n, now)
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
	leaves := (l.granted > 0 || l.outside.Load() != l.told) && specText(l.lease.Limiter().Spec()) != l.specText
	if leaves {
		l.again = true
	} else {
		l.follow(l.lease.Limiter().Spec())
	}
	lapsed := false
	if l.granted > 0 && (now >= l.good || l.since.Sub(now) > clockSet) {
		// The lease is over: Redis takes what is in hand back, or for used already.
		back := l.lease.Withdraw(limits.MaxN)
		l.returned += back
		c.stats.returned.Add(back)
		lapsed = true
	}
	if l.telling, l.reporting = l.outside.Load(), nil; !l.settling(now) {
		l.reporting = l.local.Load() // it has an end
	}
	l.reports++
	left := l.cut()
	l.leaving = leaves
	idle := l.measure(now)
	tells := !l.keeps
	l.keeps = l.keepable()
	tells = tells || !l.keeps
	need, wish := l.need.Swap(0), l.wish.Swap(0)
	chunk, most := l.chunk(left)
	back, settling := int64(0), l.settling(now)
	if settling {
		chunk, need, wish = 0, 0, 0
	}
	switch {
	case leaves:
		l.need.Store(need)
		l.wish.Add(wish)
		back, chunk, need, wish, tells = left, 0, 0, 0, true
	case l.closing.Load() || l.lease.Closed() || idle && need == 0:
		back, chunk, need, tells = left, 0, 0, true
	case (l.local.Load() != nil || lapsed) && !tells:
		back, tells = left, true // what Redis has heard of meanwhile has its place
	case left > most+need && !settling:
		back = left - chunk - need
	}
	back = l.lease.Withdraw(back)
	l.returned += back
	l.backTold = l.returned
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
	if l.learned {
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
	silent, entry := time.Duration(0), "0"
	if l.answers {
		silent = max(0, now.Sub(l.since))
	}
	switch {
	case !l.answers || silent >= l.entryLasts(): // Redis makes a new one
		l.from, l.fromTold, l.fromAt = l.acked, l.told, now
	case now.Sub(l.fromAt) < entryNew:
		entry = "1"
	default:
		entry = "2"
	}
	if c.o.Mode == Strict {
		silent = 0 // it talks by other calls
	}
	return []string{
		clock, l.specText, boundsText(l.spec, now.Add(offset)), l.known.text,
		l.holder, num(l.session), num(l.reports), num(l.granted), num(l.used), num(l.returned), num(l.telling),
		num(l.acked), num(l.told), num(int64(silent)), entry, num(l.from), num(l.fromTold),
		num(max(0, max(chunk, wish)-left)), num(l.needed), spent, num(int64(leaseInRest)), num(l.passed.Swap(0)), reset, num(l.reserve.Load()), touch, learned, keeps,
	}
}

// entryLasts is how long after an answer Redis has an entry of this instance for
// sure: of limits that count in periods it keeps one for a minute more.
func (l *limit) entryLasts() time.Duration {
	if k := l.spec.Limit().Kind; k == limits.Quota || k == limits.FixedWindow {
		return leaseInRest + time.Minute - clockSet
	}
	return leaseInRest - clockSet
}

// follow makes s the limit that l talks about; mu is held.
func (l *limit) follow(s *limits.Spec) {
	if s == l.spec {
		return
	}
	text := specText(s)
	if l.spec != nil && text[0] != l.specText[0] {
		// What is known of another kind means nothing: Redis carries over what it has.
		l.known = forgotten(l.known.reset, s.Limit().Kind)
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
		if n > 0 {
			l.crush += min(1, d.Seconds()/(2*l.fill().Seconds())) * (1 - float64(admitted)/float64(n) - l.crush)
		}
		l.refused = n > admitted
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
		return max(l.use*most, min(l.use*part, 200), min(3*l.use*part, 300, size/20))
	}
	full := while(ahead.Seconds(), part)
	switch l.spec.Limit().Kind {
	case limits.Window:
		// What lies in hand now is missing a period later too: little, unless there is plenty.
		if few := size < keepN; few && float64(l.rest) <= size/4 {
			full = 0
		} else if few {
			full = min(full, float64(l.rest)/4)
		}
		full = min(full, max(l.rate*max(l.cost, 1)*l.pause().Seconds(), float64(l.rest)/2))
	case limits.FixedWindow, limits.Quota:
		// What lies in hand when the period ends is lost.
		now := l.cluster.now().Add(time.Duration(l.cluster.offset.Load()))
		begins, _ := l.spec.Counts(now)
		full = min(full, l.use*begins[2].Sub(now).Seconds()/2)
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
	return max(chunk/4, min(int64(l.use*min(l.cluster.o.Timeout, overdue).Seconds()), chunk/2))
}
