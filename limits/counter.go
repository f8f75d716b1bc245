package limits

import (
	"math/bits"
	"time"
)

// counter counts requests in periods that the clock divides time into: aligned
// to the epoch for a fixed window, to a calendar for a quota. The whole state
// is one word, the number of the last period that was used, counted from one
// that bucket.start has, beside the count in it.
type counter struct {
	n       int64
	width   int // bits of the count
	periods periods
}

// countWidth is the least width of the count in a fixed window, so that a limit
// that was lowered still knows what was used under the one before.
const countWidth = 33

// periods divides time.
type periods interface {
	// at returns the period that t lies in.
	at(t int64) period
	// start returns the beginning of the period of that index.
	start(index int64) int64
}

// period is the time from start up to but not including end. A later period
// has a larger index.
type period struct{ index, start, end int64 }

// grid is periods of one length, aligned to the epoch.
type grid int64

func (g grid) at(t int64) period {
	i := t / int64(g)
	if t < 0 && i*int64(g) != t {
		i--
	}
	return period{i, i * int64(g), (i + 1) * int64(g)}
}

func (g grid) start(index int64) int64 { return index * int64(g) }

func newCounter(n int64, p periods) *counter {
	width := bits.Len64(uint64(n))
	if _, ok := p.(grid); ok {
		width = max(width, countWidth)
	}
	return &counter{n, width, p}
}

func (c *counter) pack(base, index, count int64) (uint64, bool) {
	rel := uint64(index - base)
	return (rel<<c.width | uint64(count)) << 1, rel>>(63-c.width) == 0
}

func (c *counter) unpack(b *bucket, w uint64) (index, count int64) {
	w >>= 1
	return b.start.Load() + int64(w>>c.width), int64(w & (1<<c.width - 1))
}

func (c *counter) set(b *bucket, index, count int64) {
	w, _ := c.pack(index, index, count)
	b.start.Store(index)
	b.word.Store(w)
}

// started returns when the period that is stored began.
func (c *counter) started(b *bucket, w uint64) int64 {
	index, _ := c.unpack(b, w)
	return c.periods.start(index)
}

// now returns the period that counts for a request at t, and what is used in
// it, given what is stored. set says that the clock was set back: the period
// that it is in now counts as used up.
func (c *counter) now(b *bucket, w uint64, t int64) (p period, used int64, set bool) {
	index, count := c.unpack(b, w)
	p = c.periods.at(t)
	switch {
	case p.index > index:
		return p, 0, false
	case p.index == index, count == 0:
		return p, count, false
	case c.periods.start(index)-t > clockSet:
		return p, c.n, true
	}
	return c.periods.at(c.periods.start(index)), count, false
}

func (c *counter) plant(b *bucket, now Time, s seed) {
	c.set(b, c.periods.at(clamp(now)).index, s.atMost(c.n))
}

func (c *counter) take(b *bucket, now Time, n int64) (Decision, step) {
	t := clamp(now)
	for {
		w := b.word.Load()
		if w&sealed != 0 {
			return Decision{}, follow
		}
		p, used, set := c.now(b, w, t)
		if set && !b.wasSet(t) {
			t = c.started(b, w)
			continue
		}
		admit := n <= c.n-used
		if !admit && !set {
			return c.decide(p, used, t, 0, n), done
		}
		if admit {
			used += n
		}
		next, ok := c.pack(b.start.Load(), p.index, used)
		if !ok {
			return Decision{}, renew
		}
		if b.word.CompareAndSwap(w, next) && admit {
			return Decision{Allowed: true, Remaining: c.n - used, Reset: sub(p.end, t)}, done
		}
	}
}

func (c *counter) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	t := clamp(now)
	for {
		w := b.word.Load()
		if w&sealed != 0 {
			return Decision{}, follow
		}
		p, used, set := c.now(b, w, t)
		if !set {
			return c.decide(p, used, t, ahead, n), done
		}
		if !b.wasSet(t) {
			t = c.started(b, w)
			continue
		}
		next, ok := c.pack(b.start.Load(), p.index, used)
		if !ok {
			return Decision{}, renew
		}
		b.word.CompareAndSwap(w, next)
	}
}

// recounts tells whether a limiter that goes from o to s keeps its count. A
// fixed window's count is worth more than its share: it is what the limit says
// it is compared with, and two limits may take turns on one counter.
func (s *Spec) recounts(o *Spec) bool {
	return s.limit.Kind == FixedWindow && o.limit.Kind == FixedWindow && s.limit.Period == o.limit.Period &&
		s.limit.N > 0 && o.limit.N > 0
}

// recount fills b with the count of the sealed old one, be it more than n. It
// leaves it to the next decision to say whether the clock was set back.
func (c *counter) recount(b, old *bucket, now Time) {
	was, word := old.spec().engine.(*counter), old.word.Load()
	p, used, set := was.now(old, word, clamp(now))
	if set {
		p.index, used = was.unpack(old, word)
	}
	c.set(b, p.index, min(used, 1<<c.width-1))
}

// decide answers for a request of n after ahead others, without taking.
func (c *counter) decide(p period, used, t, ahead, n int64) Decision {
	used = min(used, c.n)
	d := Decision{Remaining: c.n - used}
	if used > 0 {
		d.Reset = sub(p.end, t)
	}
	if n > c.n {
		d.Wait = Never
		return d
	}
	// In which period from now its turn comes.
	k, rest := (used+ahead)/c.n, (used+ahead)%c.n
	if rest+n > c.n {
		k++
	}
	d.Allowed = k == 0
	if k > 0 {
		d.Wait = c.begins(p, k).Sub(Time(t))
	}
	return d
}

// begins returns when the k-th period after p begins.
func (c *counter) begins(p period, k int64) Time {
	if g, ok := c.periods.(grid); ok {
		hi, lo := bits.Mul64(uint64(k-1), uint64(g))
		if hi != 0 || lo > uint64(longest) {
			return Time(p.end).Add(Never)
		}
		return Time(p.end).Add(time.Duration(lo))
	}
	const walk = 100 // a calendar must be walked; so far ahead an estimate does
	for i := int64(1); i < k; i++ {
		if i == walk {
			return Time(p.end).Add(Never)
		}
		p = c.periods.at(p.end)
	}
	return Time(p.end)
}

// refund gives back only what was taken in the period that is stored: what was
// taken in one that has passed weighs on nothing.
func (c *counter) refund(b *bucket, now Time, n int64) step {
	p := c.periods.at(clamp(now))
	for {
		w := b.word.Load()
		if w&sealed != 0 {
			return follow
		}
		index, count := c.unpack(b, w)
		if index != p.index {
			return done
		}
		next, _ := c.pack(b.start.Load(), index, max(0, count-n))
		if b.word.CompareAndSwap(w, next) {
			return done
		}
	}
}

func (c *counter) used(b *bucket, now Time) share {
	_, used, _ := c.now(b, b.word.Load(), clamp(now))
	return shareOf(used, c.n)
}

// renew counts from a new base, for a clock that has run far or was set back.
func (c *counter) renew(b, old *bucket, now Time) {
	p, used, _ := c.now(old, old.word.Load(), clamp(now))
	c.set(b, p.index, used)
}

func (c *counter) state(b *bucket) State {
	index, count := c.unpack(b, b.word.Load())
	if count == 0 {
		return State{Kind: b.spec().limit.Kind, A: unused}
	}
	// The last instant of the period is the latest that a request can have come.
	return State{b.spec().limit.Kind, c.periods.at(c.periods.start(index)).end - 1, count, 0}
}

func (c *counter) load(b *bucket, now Time, st State) {
	p, last, count := c.periods.at(clamp(now)), c.periods.at(clamp(Time(st.A))), c.n
	if st.Kind == b.spec().limit.Kind {
		count = min(max(st.B, 0), 1<<c.width-1)
	}
	if last.index < p.index {
		last, count = p, 0
	}
	c.set(b, last.index, count)
}
