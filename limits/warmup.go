package limits

import (
	"math"
	"time"
)

// warmth is how far a limiter's warm-up is.
type warmth struct {
	start int64 // instant of the first request, or cold or warm
	seen  int64 // requests admitted in the grace; ^requests once the ramp has begun
}

const (
	cold = math.MinInt64     // the first request begins the grace
	warm = math.MinInt64 + 1 // the warm-up is over
)

func (b *bucket) keep(w warmth) {
	b.start.Store(w.start)
	b.seen.Store(w.seen)
}

// ramped tells whether the ramp has begun, be it over or not.
func (w warmth) ramped() bool { return w.start > warm && w.seen < 0 }

// warmth returns how far b is. Of a kind that does not warm up all that counts
// is that it is not new: it starts no grace under another limit.
func (b *bucket) warmth() warmth {
	switch b.spec().engine.(type) {
	case *warming, blocked, ended:
		return warmth{b.start.Load(), b.seen.Load()}
	case *gcra:
		w := warmth{b.start.Load(), b.seen.Load()}
		if w.start == cold && unpack(b.word.Load()) != neverUsed {
			w.start = warm
		}
		return w
	}
	return warmth{start: warm}
}

func (w warmth) state() (start, seen int64) {
	switch w.start {
	case cold:
		return unbegun, 0
	case warm:
		return 0, 0
	}
	return w.start, w.seen
}

func (st State) warmth() warmth {
	switch st.B {
	case unbegun:
		return warmth{start: cold}
	case 0:
		return warmth{start: warm}
	}
	return warmth{st.B, st.C}
}

// warming is a rate with a warm-up. A limiter passes through
//
//	cold   nobody has asked yet
//	grace  since the first request: nothing is limited, but counted
//	ramp   the allowed rate falls linearly from r0 to the limit's
//	warm   the plain rate
//
// The ramp is the plain rate on a clock that runs fast at first and is right
// at the ramp's end: with gain = r0/limit - 1 and rem the time to the end,
//
//	v(t) = t - gain * rem² / (2 * ramp)
//
// has the slope r0/limit at the ramp's beginning and 1 at its end, so that a
// bucket that refills one request per interval of v refills at just the rate
// on the curve. The bucket's instant z is one of v during the ramp.
//
// It therefore stands in another word from then on. The ramp begins with two
// swaps that whoever comes first, or helps, can make: the word of the grace is
// sealed, so that what is under way in it fails, and seen is turned over.
type warming struct {
	gcra
	grace, ramp, idle int64
	free              int64 // requests at most in the grace; 0 for no cap
}

// slack is how late a request may come in the ramp without losing its turn to
// the next. Beyond it and one request nothing is saved up.
const slack = 20_000_000

func (w *warming) graceEnd(start int64) int64 { return start + w.grace }
func (w *warming) rampEnd(start int64) int64  { return start + w.grace + w.ramp }

func (b *bucket) phase() warmth { return warmth{b.start.Load(), b.seen.Load()} }

// put makes z and p the state of a bucket that nobody else sees yet.
func (b *bucket) put(p warmth, z int64) {
	if p.ramped() {
		b.ramp.Store(pack(z))
	} else {
		b.word.Store(pack(z))
	}
	b.keep(p)
}

// z returns the instant z of a bucket that is in the phase p.
func (w *warming) z(b *bucket, p warmth) int64 {
	if !p.ramped() {
		return unpack(b.word.Load())
	}
	return w.rampZ(w.curve(p.start, ^p.seen), b.ramp.Load())
}

// rampZ returns z in the ramp. Until somebody takes, it is one request behind
// the beginning.
func (w *warming) rampZ(c curve, word uint64) int64 {
	if z := unpack(word); z != neverUsed {
		return z
	}
	return c.at(c.begin) - w.interval
}

// turn begins the ramp, unless b is being replaced.
func (w *warming) turn(b *bucket) {
	if b.word.Or(sealed)&sealed != 0 && b.heir() != nil {
		return
	}
	for {
		if seen := b.seen.Load(); seen < 0 || b.seen.CompareAndSwap(seen, ^seen) {
			return
		}
	}
}

// count adds n to what was admitted in the grace, unless the ramp has begun.
func (b *bucket) count(n int64) {
	for {
		if seen := b.seen.Load(); seen < 0 || b.seen.CompareAndSwap(seen, seen+n) {
			return
		}
	}
}

// curve is v for one limiter.
type curve struct {
	begin, end int64
	bend       float64 // gain / (2 * ramp)
}

// curve is called once the ramp has begun, or on what it would be if it began.
func (w *warming) curve(start, seen int64) curve {
	c := curve{begin: w.graceEnd(start), end: w.rampEnd(start)}
	if w.ramp == 0 {
		return c
	}
	times := 2.0
	if w.grace > 0 {
		times = max(times, float64(seen)*float64(w.interval)/float64(w.grace))
	}
	c.bend = (times - 1) / (2 * float64(w.ramp))
	return c
}

func (c curve) at(t int64) int64 {
	rem := c.end - max(t, c.begin)
	if rem <= 0 {
		return t
	}
	ahead := math.Ceil(c.bend * float64(rem) * float64(rem))
	return c.end - rem - int64(min(ahead, float64(longest)/2))
}

// reaches returns the first instant from t on at which v is z or more, at most
// the ramp's end.
func (c curve) reaches(t, z int64) int64 {
	lo, hi := t, c.end
	for lo < hi {
		if mid := lo + (hi-lo)/2; c.at(mid) >= z {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

func (w *warming) plant(b *bucket, now Time, s seed) {
	at := clamp(now)
	if s.start == cold {
		w.gcra.plant(b, now, s)
		return
	}
	z := at - w.full + s.used.of(w.full)
	if s.start != warm && s.seen < 0 {
		// A longer grace than before must not hold up a ramp that has begun.
		s.start = min(s.start, at-w.grace)
		z += w.curve(s.start, ^s.seen).at(at) - at
	}
	b.put(s.warmth, z)
}

// phase returns what limits a request at now, or that b must be renewed.
func (w *warming) phase(b *bucket, now int64) (warmth, step) {
	for {
		p := b.phase()
		z := w.z(b, p)
		switch {
		case w.idle > 0 && z != neverUsed && now-w.lastUse(p, z) > w.idle:
			return p, renew
		case p.start == cold || p.start == warm || p.seen < 0 && now >= w.rampEnd(p.start):
			return p, done
		case w.wasSet(p, z, now) && b.wasSet(now):
			return p, renew
		case p.seen < 0:
			return p, done
		case now >= w.graceEnd(p.start), b.word.Load()&sealed != 0:
			if w.turn(b); b.heir() != nil {
				return p, follow
			}
			continue
		}
		return p, done
	}
}

// lastUse returns when the bucket was last asked, or a little later.
func (w *warming) lastUse(p warmth, z int64) int64 {
	if p.start != warm && p.seen < 0 {
		z = max(z, w.rampEnd(p.start))
	}
	return z + w.full
}

// wasSet tells whether the clock was set back during the warm-up. That ends it.
func (w *warming) wasSet(p warmth, z, now int64) bool {
	if p.seen >= 0 {
		return max(p.start, z)-now > clockSet
	}
	c := w.curve(p.start, ^p.seen)
	return c.begin-now > clockSet || z > c.at(now+clockSet)
}

func (w *warming) renew(b, old *bucket, now Time) {
	at := clamp(now)
	p := old.phase()
	z := w.z(old, p)
	switch {
	case w.idle > 0 && z != neverUsed && at-w.lastUse(p, z) > w.idle:
		p, z = warmth{start: cold}, neverUsed
	case p.start == cold || p.start == warm:
	case w.wasSet(p, z, at):
		p, z = warmth{start: warm}, at
	}
	b.put(p, z)
}

func (w *warming) take(b *bucket, now Time, n int64) (Decision, step) {
	at := clamp(now)
	for {
		p, s := w.phase(b, at)
		switch {
		case s != done:
			return Decision{}, s
		case p.start == warm:
			return w.gcra.take(b, now, n)
		case n > w.burst:
			return w.gcra.take(b, now, n) // refuses, and begins no grace
		case p.start == cold:
			b.start.CompareAndSwap(cold, at)
		case p.seen < 0:
			return w.takeRamp(b, p, at, n)
		default:
			return w.takeGrace(b, p, at, n)
		}
	}
}

// takeGrace admits what is free, and counts it. The bucket is drawn on too, so
// that a cap on what is free leaves no burst on top.
func (w *warming) takeGrace(b *bucket, p warmth, now, n int64) (Decision, step) {
	for {
		seen := b.seen.Load()
		if seen < 0 {
			return Decision{}, follow
		}
		if w.free > 0 && seen+n > w.free {
			break
		}
		if !b.seen.CompareAndSwap(seen, seen+n) {
			continue
		}
		p.seen = seen + n
		z, s := w.draw(b, now, n)
		if s != done {
			b.count(-n)
			return Decision{}, s
		}
		d := w.inGrace(p, now, z)
		d.Allowed = true
		return d, done
	}
	d, s := w.gcra.takeFrom(b, &b.word, now, n, neverUsed)
	if s != done || !d.Allowed {
		return w.peekGrace(b, p, now, 0, n)
	}
	b.count(n)
	d.Reset = w.fullAfter(p, now+int64(d.Reset)-w.full, now)
	return d, done
}

// draw takes n from the bucket, or what there is.
func (w *warming) draw(b *bucket, now, n int64) (z int64, s step) {
	for {
		old := b.word.Load()
		if old&sealed != 0 {
			return 0, follow
		}
		z = unpack(old)
		z = max(z, min(now, max(z, now-w.full)+n*w.interval))
		if b.word.CompareAndSwap(old, pack(z)) {
			return z, done
		}
	}
}

// inGrace returns the decision's numbers in the grace, of a bucket with the
// given z.
func (w *warming) inGrace(p warmth, now, z int64) Decision {
	d := Decision{Remaining: MaxN, Reset: w.fullAfter(p, z, now)}
	if w.free > 0 {
		d.Remaining = max(w.free-p.seen, w.level(now, z))
	}
	return d
}

// fullAfter returns how long it takes until the bucket is full, which it
// cannot be before the warm-up is over.
func (w *warming) fullAfter(p warmth, z, now int64) time.Duration {
	return sub(max(z, w.rampEnd(p.start)-w.interval)+w.full, now)
}

func (w *warming) peekGrace(b *bucket, p warmth, now, ahead, n int64) (Decision, step) {
	word := b.word.Load()
	if word&sealed != 0 {
		return Decision{}, follow
	}
	p.seen = max(0, b.seen.Load())
	z := max(unpack(word), now-w.full)
	d := w.inGrace(p, now, z)
	if w.free == 0 || p.seen+ahead+n <= w.free {
		d.Allowed = true
		return d, done
	}
	free := min(ahead, max(0, w.free-p.seen))
	cost, ok := w.cost(ahead-free, n)
	if !ok {
		d.Wait = Never
		return d, done
	}
	when := max(z, min(now, z+free*w.interval)) + cost
	if end := w.graceEnd(p.start); when >= end {
		c := w.curve(p.start, p.seen+free)
		when = w.rampWhen(c, c.at(c.begin)-w.interval, now, cost)
	}
	d.Allowed, d.Wait = when <= now, sub(when, now)
	return d, done
}

// rampWhen returns when a bucket that is empty at the instant z of the curve
// has refilled cost.
func (w *warming) rampWhen(c curve, z, now, cost int64) int64 {
	if t := c.reaches(max(now, c.begin), z+cost); t < c.end {
		return t
	}
	return max(c.end, max(z, c.end-w.interval)+cost)
}

func (w *warming) takeRamp(b *bucket, p warmth, now, n int64) (Decision, step) {
	c := w.curve(p.start, ^p.seen)
	if now >= c.end {
		return w.takeFrom(b, &b.ramp, now, n, c.end-w.interval)
	}
	cost := n * w.interval
	v, late := c.at(now), c.at(now-slack)
	for {
		word := b.ramp.Load()
		if word&sealed != 0 {
			return Decision{}, follow
		}
		z := max(w.rampZ(c, word), v-w.full, late-cost)
		if z+cost > v {
			d := w.inRamp(c, p, now, z)
			d.Wait = sub(w.rampWhen(c, z, now, cost), now)
			return d, done
		}
		if b.ramp.CompareAndSwap(word, pack(z+cost)) {
			d := w.inRamp(c, p, now, z+cost)
			d.Allowed = true
			return d, done
		}
	}
}

func (w *warming) inRamp(c curve, p warmth, now, z int64) Decision {
	v := c.at(now)
	saved := max(z, c.at(now-slack)-w.interval)
	return Decision{Remaining: w.level(v, saved), Reset: w.fullAfter(p, z, now)}
}

func (w *warming) peekRamp(b *bucket, p warmth, now, ahead, n int64) (Decision, step) {
	c := w.curve(p.start, ^p.seen)
	if now >= c.end {
		return w.peekFrom(b, &b.ramp, now, ahead, n, c.end-w.interval)
	}
	word := b.ramp.Load()
	if word&sealed != 0 {
		return Decision{}, follow
	}
	cost, ok := w.cost(ahead, n)
	z := max(w.rampZ(c, word), c.at(now)-w.full, c.at(now-slack)-n*w.interval)
	d := w.inRamp(c, p, now, z)
	if !ok {
		d.Wait = Never
		return d, done
	}
	when := w.rampWhen(c, z, now, cost)
	d.Allowed, d.Wait = when <= now, sub(when, now)
	return d, done
}

func (w *warming) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	at := clamp(now)
	p, s := w.phase(b, at)
	switch {
	case s != done:
		return Decision{}, s
	case p.start == warm || n > w.burst:
		return w.gcra.peek(b, now, ahead, n)
	case p.start == cold:
		// As if the grace began now.
		p.start = at
		d, s := w.peekGrace(b, p, at, ahead, n)
		d.Reset = 0
		return d, s
	case p.seen < 0:
		return w.peekRamp(b, p, at, ahead, n)
	}
	return w.peekGrace(b, p, at, ahead, n)
}

func (w *warming) refund(b *bucket, _ Time, n int64) step {
	p := b.phase()
	if p.ramped() {
		return w.refundTo(&b.ramp, n)
	}
	s := w.refundTo(&b.word, n)
	if s == done && p.start > warm {
		b.count(-n)
	}
	return s
}

func (w *warming) used(b *bucket, now Time) share {
	p := b.phase()
	at, z := clamp(now), w.z(b, p)
	if p.ramped() {
		c := w.curve(p.start, ^p.seen)
		if at >= c.end {
			z = max(z, c.end-w.interval)
		}
		at = c.at(at)
	}
	return shareOf(z+w.full-at, w.full)
}

func (w *warming) state(b *bucket) State {
	p := b.phase()
	return b.rateState(p, w.z(b, p))
}

func (w *warming) load(b *bucket, now Time, st State) {
	p, z := loadRate(now, st)
	b.put(p, z)
}

// cool returns st as it will be once the warm-up is over, or one that is a
// little emptier.
func (w *warming) cool(st State) State {
	if st.B != unbegun && st.B != 0 {
		st.A = max(st.A, w.rampEnd(st.B)-w.interval)
	}
	st.B, st.C = 0, 0
	return st
}
