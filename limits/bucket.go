package limits

import (
	"math"
	"runtime"
	"sync/atomic"
	"time"
)

// bucket is the state of a limiter under one limit. It is changed by
// compare-and-swap alone, and replaced by another when the limit changes:
//
//  1. Who replaces it publishes how in heir.
//  2. It is sealed by a bit in word, which makes every later swap fail; from
//     then on what is in it is final.
//  3. The new bucket is made from the sealed one, published in the heir and
//     swapped into the limiter.
//
// Anyone who meets a bucket that has an heir, at whichever step, does what
// is left to do and goes on with the new one. So nobody waits for anybody, but for
// the moment of a [Limiter.Move], and nothing is decided by a limit that a change
// has replaced.
//
// A limiter's first bucket stands in the limiter itself: most have no other. A
// table makes the limiters of keys that went anew in place, so all that a late
// reader may still read is atomic. A bucket has no pointers: those are in its
// anchor, before it in the same piece of memory.
type bucket struct {
	word  atomic.Uint64 // the engine's state; bit 0 is set when sealed
	ramp  atomic.Uint64 // the state in word's place once a warm-up's ramp has begun
	start atomic.Int64  // a warm-up's beginning, or the engine's own
	seen  atomic.Int64  // requests admitted in the grace, or the engine's own
	limit atomic.Uint32 // in a slab: the limit's number in the anchor; 0: none yet
	place uint16        // in a slab: which bucket, from 1 on; 0: it stands alone
	back  uint16        // how many bytes behind its anchor it stands
}

// extra is what most buckets have nothing of: state of the larger engines, the
// heir, and the line. A bucket and its heir may share the state.
type extra struct {
	ring  []atomic.Uint64 // of a window
	cells *cells          // of an algorithm
	store *store          // of Guava's two
	used  share           // of a limit of 0: what was used of the one before
	peak  peak            // of a limit that was changed while it was used up
	lease *Lease          // of a limiter that decides by one
	heir  atomic.Pointer[heir]
	doubt atomic.Pointer[doubt]
	line  atomic.Pointer[line] // of a limiter's first bucket: who waits for the limiter
}

// begin makes b an empty bucket of s, which its engine is to plant or load.
func (b *bucket) begin(s *Spec) {
	b.setMore(nil)
	b.word.Store(0)
	b.ramp.Store(pack(neverUsed))
	b.start.Store(0)
	b.seen.Store(0)
	b.setSpec(s)
}

// heir returns what b is replaced by, or nil.
func (b *bucket) heir() *heir {
	if m := b.more(); m != nil {
		return m.heir.Load()
	}
	return nil
}

// announce makes h the heir of b, unless it has one.
func (b *bucket) announce(h *heir) bool { return b.extra().heir.CompareAndSwap(nil, h) }

// lease returns that of a limiter that decides by one, or nil.
func (b *bucket) lease() *Lease {
	if m := b.more(); m != nil {
		return m.lease
	}
	return nil
}

// sealed is the bit of bucket.word that says that an heir takes over.
const sealed = 1

// heir says by what a bucket is replaced.
type heir struct {
	how    succession
	spec   *Spec
	now    Time
	n      int64 // returned: how many
	bucket atomic.Pointer[bucket]
	moves  bool // to a bucket that only who announced it makes, see Limiter.Move
}

type succession int

const (
	changed  succession = iota // another limit, with what was used in proportion
	emptied                    // as good as new
	renewed                    // the engine's own reasons
	returned                   // n were given back
	closed                     // no more
)

// engine is one kind's mathematics, over the state in a bucket. plant and load
// fill a bucket that nobody else sees yet; used, renew and state read one that
// may be sealed; the others may run concurrently with everything.
type engine interface {
	// plant makes the state of a limiter of which seed.used is used.
	plant(b *bucket, now Time, seed seed)
	// take takes n, which is at least 1. Only with the step done has it decided.
	take(b *bucket, now Time, n int64) (Decision, step)
	// peek decides as take would if ahead were taken first, one by one and each
	// as soon as it can be, and takes nothing.
	peek(b *bucket, now Time, ahead, n int64) (Decision, step)
	// refund gives back n that were taken at the instant now.
	refund(b *bucket, now Time, n int64) step
	// used returns what share of the limiter is used at now.
	used(b *bucket, now Time) share
	// renew fills b, which has the spec of old, from the sealed old.
	renew(b, old *bucket, now Time)
	// state and load write and read what must survive a restart.
	state(b *bucket) State
	load(b *bucket, now Time, st State)
}

// step says how a limiter goes on after it asked its bucket.
type step int

const (
	done   step = iota // the bucket has answered
	follow             // the bucket has an heir
	renew              // the bucket must be renewed first
	remake             // of a refund: the bucket must be replaced by one that has it
)

// seed is what a new bucket knows of the one before.
type seed struct {
	used   share
	raised bool // the limit was raised beyond its peak: the next request waits at most one interval
	warmth
}

// atMost returns how many of capacity are used, by the seed's rules.
func (s seed) atMost(capacity int64) int64 {
	used := s.used.of(capacity)
	if s.raised && used == capacity {
		used--
	}
	return used
}

// seal makes every later swap of b's state fail.
func (b *bucket) seal() {
	b.word.Or(sealed)
	b.ramp.Or(sealed)
}

// current returns the bucket in force: the first, or the last that followed it,
// which the first one's heir knows.
func (l *Limiter) current() *bucket {
	if h := l.first.heir(); h != nil {
		if b := h.bucket.Load(); b != nil {
			return b
		}
	}
	return &l.first
}

// succeed does what is left to do of the change that b's heir announces, and
// returns the bucket to go on with, which is then in force.
func (l *Limiter) succeed(b *bucket) *bucket {
	h := b.heir()
	if h == nil {
		return l.current() // made anew in place, or its ramp begins
	}
	b.seal()
	n := h.bucket.Load()
	for ; n == nil && h.moves; n = h.bucket.Load() {
		runtime.Gosched()
	}
	if n == nil {
		n = newBucket()
		h.make(n, b)
		if !h.bucket.CompareAndSwap(nil, n) {
			n = h.bucket.Load()
		}
	}
	if first := l.first.heir(); first != nil {
		first.bucket.CompareAndSwap(b, n)
	}
	return n
}

// next returns the bucket to ask after b did not decide.
func (l *Limiter) next(b *bucket, now Time, s step) *bucket {
	if s == renew {
		b.announce(&heir{how: renewed, spec: b.spec(), now: now})
	}
	return l.succeed(b)
}

// replace gives l another bucket, unless it is closed, and returns the one that
// was in force. Without a spec it keeps that one's.
func (l *Limiter) replace(how succession, now Time, s *Spec) *bucket {
	for b := l.current(); ; b = l.succeed(b) {
		if _, ok := b.spec().engine.(ended); ok {
			return b
		}
		h := &heir{how: how, spec: s, now: now}
		if s == nil {
			h.spec = b.spec()
		}
		if b.announce(h) {
			l.succeed(b)
			return b
		}
	}
}

// make makes b the bucket that h announces, out of the sealed old one.
func (h *heir) make(b, old *bucket) {
	was := old.spec()
	b.begin(h.spec)
	switch {
	case h.how == closed:
		b.setSpec(&Spec{limit: was.limit, engine: ended{}, base: was.base})
		b.setMore(&extra{})
		if old.lease() != nil {
			b.pass(old, h.how)
		}
	case old.lease() != nil:
		b.setSpec(h.spec.lent())
		b.pass(old, h.how)
	case h.how == renewed:
		h.spec.engine.renew(b, old, h.now)
		b.climb(old.peak())
	case h.how == returned:
		h.spec.engine.(*tickets).giveBack(b, old, h.now, h.n)
	case h.how == emptied:
		h.spec.engine.plant(b, h.now, seed{warmth: old.warmth()})
	case h.spec.same(was):
		b.inherit(old)
	case h.spec.recounts(was):
		h.spec.engine.(*counter).recount(b, old, h.now)
		b.climb(old.peak())
	default:
		seed, p := h.seed(old)
		h.spec.engine.plant(b, h.now, seed)
		b.climb(p)
	}
}

// peak is the highest rate of a limit under which all was used, until when that
// counts. Without it, who raises and lowers a limit in turn would give away one
// request each time.
type peak struct {
	perSecond float64
	till      int64
}

// peak returns what b remembers, which may be over.
func (b *bucket) peak() peak {
	if m := b.more(); m != nil {
		return m.peak
	}
	return peak{}
}

// seed is what a bucket under h's limit is to know of the sealed old one.
func (h *heir) seed(old *bucket) (seed, peak) {
	was, now := old.spec(), clamp(h.now)
	s := seed{used: was.engine.used(old, h.now), warmth: old.warmth()}
	switch h.spec.engine.(type) {
	case *gcra, *warming:
		return s, peak{} // which refill anyway
	}
	p := old.peak()
	if now >= p.till {
		p = peak{}
	}
	if s.used.num == 0 || s.used.of(h.spec.capacity()) < h.spec.capacity() {
		return s, p
	}
	p.perSecond = max(p.perSecond, was.limit.perSecond())
	p.till = max(p.till, was.turn(now), h.spec.turn(now))
	if rate := h.spec.limit.perSecond(); rate > p.perSecond {
		s.raised, p.perSecond = true, rate
	}
	return s, p
}

// turn is when what is used at t counts no more, under s.
func (s *Spec) turn(t int64) int64 {
	if c, ok := s.engine.(*counter); ok {
		return c.periods.at(t).end
	}
	return t + int64(s.limit.Period)
}

// climb has b, which nobody else sees yet, remember the peak p.
func (b *bucket) climb(p peak) {
	if p.till != 0 {
		b.extra().peak = p
	}
}

// inherit takes over the state of a sealed bucket as it is.
func (b *bucket) inherit(old *bucket) {
	b.word.Store(old.word.Load() &^ sealed)
	b.ramp.Store(old.ramp.Load() &^ sealed)
	b.start.Store(old.start.Load())
	b.seen.Store(old.seen.Load())
	b.share(old)
}

// share lets b have the state of old's that does not fit a bucket.
func (b *bucket) share(old *bucket) {
	if m := old.more(); m.shares() {
		x := &extra{ring: m.ring, cells: m.cells, store: m.store, used: m.used, peak: m.peak, lease: m.lease}
		x.doubt.Store(m.doubt.Load())
		b.setMore(x)
	}
}

// shares tells whether there is anything that share hands on: what a bucket was
// replaced by stands there too, and is of that bucket alone.
func (m *extra) shares() bool {
	return m != nil && (m.ring != nil || m.cells != nil || m.store != nil || m.used != share{} || m.peak != peak{} || m.lease != nil || m.doubt.Load() != nil)
}

// traceless tells whether a refund at once leaves b as it was.
func (b *bucket) traceless() bool {
	switch e := b.spec().engine.(type) {
	case *gcra, *counter, blocked, ended, lent:
		return true
	case *window:
		return e.perChunk == 1
	case *warming:
		return b.start.Load() == warm
	}
	return false
}

// Instants are kept in 63 bits, so that the seal has room beside them: about
// 1824 to 2116, which leaves a bucket that takes 36 years to fill from 1860 on.
const (
	neverUsed = -1 << 62 // long before every instant
	earliest  = neverUsed + int64(longest)
	latest    = 1<<62 - 1
)

func pack(z int64) uint64          { return uint64(z) << 1 }
func unpack(w uint64) int64        { return int64(w) >> 1 }
func clamp(t Time) int64           { return min(max(int64(t), earliest), latest) }
func sub(a, b int64) time.Duration { return time.Duration(max(0, a-b)) }

// blocked is the engine of a limit of 0. It remembers what was used.
type blocked struct{}

func (blocked) plant(b *bucket, _ Time, s seed) {
	b.setMore(&extra{used: s.used})
	b.keep(s.warmth)
}

func (blocked) take(b *bucket, _ Time, _ int64) (Decision, step) {
	if b.word.Load()&sealed != 0 {
		return Decision{}, follow
	}
	return never(0, 0), done
}

func (e blocked) peek(b *bucket, now Time, _, n int64) (Decision, step) { return e.take(b, now, n) }
func (blocked) refund(*bucket, Time, int64) step                        { return done }
func (blocked) used(b *bucket, _ Time) share                            { return b.more().used }
func (blocked) renew(b, old *bucket, _ Time)                            { b.inherit(old) }

// state is that of no kind: what a limit of 0 becomes after a restart starts
// used up.
func (blocked) state(*bucket) State { return State{A: math.MaxInt64} }

func (blocked) load(b *bucket, _ Time, _ State) {
	b.setMore(&extra{used: share{1, 1}})
	b.keep(warmth{start: warm})
}

// ended is the engine of a closed limiter.
type ended struct{ blocked }
