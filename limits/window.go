package limits

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// window admits at most n in any time of length period, wherever it starts. It
// is a log: of the request with number s it keeps when it was taken, and s may
// be taken once the one n before it lies a period back. A log of many requests
// is kept in chunks that know when their last request was taken, at most
// maxChunks per n, so that at least 127 of 128 are usable and small limits are
// exact.
//
// The word has the number of the next request, and above it a version that
// tells a number from the same one before a refund. The ring is long enough
// for n before and n after the next number, so that writing down when requests
// will have been taken, before the swap that takes them, destroys nothing that
// anybody still needs. Times in it only grow: one who announces and is
// overtaken has at most made the log say that a request came later.
type window struct {
	n        int64
	period   int64
	perChunk int64 // requests that share an entry
	size     int64 // entries of the ring
}

const (
	maxChunks = 128
	seqBits   = 53
	seqMask   = 1<<seqBits - 1
)

func newWindow(n int64, period time.Duration) *window {
	perChunk := (n + maxChunks - 1) / maxChunks
	return &window{n, int64(period), perChunk, 2*((n+perChunk-1)/perChunk) + 2}
}

// The ring holds instants in an order that unsigned integers have, so that 0 is
// before all.
func entryOf(t int64) uint64 { return uint64(t) ^ 1<<63 }

// view is the log of a bucket around the request with the number next: the
// chunk that this one is in, and where in the ring the chunk stands.
type view struct {
	*window
	ring        []atomic.Uint64
	next, chunk int64
	place       int64
}

func (w *window) view(b *bucket, word uint64) view {
	next := int64(word >> 1 & seqMask)
	chunk := next / w.perChunk
	return view{w, b.more().ring, next, chunk, chunk % w.size}
}

// entry returns a chunk's place in the ring. It is one of those that the ring
// holds around v.chunk, which spares a division.
func (v *view) entry(chunk int64) *atomic.Uint64 {
	i := v.place + chunk - v.chunk
	switch {
	case i < 0:
		i += v.size
	case i >= v.size:
		i -= v.size
	}
	return &v.ring[i]
}

// taken returns when the last request of a chunk was taken, or a little later.
func (v *view) taken(chunk int64) int64 {
	return max(int64(v.entry(chunk).Load()^1<<63), neverUsed)
}

// at is taken for the chunk of request s.
func (v *view) at(s int64) int64 {
	switch {
	case s < 0:
		return neverUsed
	case v.perChunk == 1:
		return v.taken(s)
	}
	return v.taken(s / v.perChunk)
}

// last returns when the latest request was taken.
func (v *view) last() int64 { return v.at(v.next - 1) }

// raise makes a chunk's entry at least t.
func (v *view) raise(chunk, t int64) {
	e := v.entry(chunk)
	for {
		old := e.Load()
		if old >= entryOf(t) || e.CompareAndSwap(old, entryOf(t)) {
			return
		}
	}
}

// left returns how many more could be taken at t once n were.
func (v *view) left(n, t int64) int64 {
	next := v.next + n
	first := max(next-v.n, 0)
	// lo and hi enclose the first chunk that still counts.
	lo, hi := first/v.perChunk, v.chunk
	for hi*v.perChunk < next {
		hi++
	}
	for lo < hi {
		if mid := (lo + hi) / 2; v.taken(mid) > t-v.period {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return min(max(lo*v.perChunk, first)-next+v.n, v.n)
}

func (w *window) set(b *bucket, used, at int64) {
	b.setMore(&extra{ring: make([]atomic.Uint64, w.size)})
	b.word.Store(uint64(used) << 1)
	for c := int64(0); c*w.perChunk < used; c++ {
		b.more().ring[c].Store(entryOf(at))
	}
}

func (w *window) plant(b *bucket, now Time, s seed) {
	w.set(b, s.atMost(w.n), clamp(now))
}

func (w *window) take(b *bucket, now Time, n int64) (Decision, step) {
	t, set := clamp(now), false
	for {
		word := b.word.Load()
		if word&sealed != 0 {
			return Decision{}, follow
		}
		v := w.view(b, word)
		last := v.last()
		if t, set = b.instant(t, last); set {
			return Decision{}, renew
		}
		d := Decision{Wait: Never}
		if n <= w.n {
			d.Wait = sub(v.at(v.next+n-1-w.n)+w.period, t)
		}
		if d.Wait > 0 {
			d.Remaining, d.Reset = v.left(0, t), sub(last+w.period, t)
			return d, done
		}
		last = max(last, t)
		for c := v.chunk; c*w.perChunk < v.next+n; c++ {
			v.raise(c, last)
		}
		if b.word.CompareAndSwap(word, word+uint64(n)<<1) {
			return Decision{Allowed: true, Remaining: v.left(n, t), Reset: sub(last+w.period, t)}, done
		}
	}
}

func (w *window) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	word := b.word.Load()
	if word&sealed != 0 {
		return Decision{}, follow
	}
	v := w.view(b, word)
	last := v.last()
	t, set := b.instant(clamp(now), last)
	if set {
		return Decision{}, renew
	}
	d := Decision{Remaining: v.left(0, t), Reset: sub(last+w.period, t)}
	// The last of them may come when the one n before it is a period back, and
	// that one in its turn.
	rounds, place := (ahead+n-1)/w.n, (ahead+n-1)%w.n
	hi, lo := bits.Mul64(uint64(rounds), uint64(w.period))
	if n > w.n || hi != 0 || lo > uint64(longest) {
		d.Wait = Never
		return d, done
	}
	when := max(t, v.at(v.next-w.n+place)+w.period) + int64(lo)
	d.Allowed, d.Wait = when <= t, sub(when, t)
	return d, done
}

// refund takes the last n off the log. Requests that were taken after the
// instant now keep their times: those move down to the numbers before. When as
// many as n of the limit have come since, what was taken then weighs on nothing.
func (w *window) refund(b *bucket, now Time, n int64) step {
	t := clamp(now)
	for {
		word := b.word.Load()
		if word&sealed != 0 {
			return follow
		}
		v := w.view(b, word)
		n := min(n, v.next)
		if v.at(v.next-w.n) > t {
			return done
		}
		v.moveDown(n, t)
		version := word>>1>>seqBits + 1
		if b.word.CompareAndSwap(word, (version<<seqBits|uint64(v.next-n))<<1) {
			return done
		}
	}
}

// moveDown gives the requests after t the times of those n further on.
func (v *view) moveDown(n, t int64) {
	if n >= min(v.next, v.n) {
		return // none is left that counts
	}
	last := (v.next - n - 1) / v.perChunk
	from := func(c int64) int64 { return v.at(min((c+1)*v.perChunk-1+n, v.next-1)) }
	first, least := last+1, max(0, v.next-v.n-n)/v.perChunk // what lies before counts no more
	for first > least && from(first-1) > t {
		first--
	}
	// Upwards, or a time would move further than by n.
	for c := first; c <= last; c++ {
		v.raise(c, from(c))
	}
}

func (w *window) used(b *bucket, now Time) share {
	v, t := w.view(b, b.word.Load()), clamp(now)
	if v.last()-t > clockSet {
		return shareOf(w.n, w.n)
	}
	return shareOf(w.n-v.left(0, t), w.n)
}

// renew takes the clock as set back: the window is used up from there.
func (w *window) renew(b, old *bucket, now Time) {
	t := clamp(now)
	if v := w.view(old, old.word.Load()); v.last()-t > clockSet {
		w.set(b, w.n, t)
		return
	}
	b.inherit(old)
}

func (w *window) state(b *bucket) State {
	v := w.view(b, b.word.Load())
	last := v.last()
	if last == neverUsed {
		return State{Kind: b.spec().limit.Kind, A: unused}
	}
	return State{b.spec().limit.Kind, last, w.n - v.left(0, last), 0}
}

func (w *window) load(b *bucket, now Time, st State) {
	used := w.n
	switch {
	case st.A == unused:
		used = 0
	case st.Kind == b.spec().limit.Kind:
		used = min(max(st.B, 0), w.n)
	}
	w.set(b, used, min(clamp(Time(st.A)), clamp(now)))
}
