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
	n      int64
	period int64
	chunk  int64 // requests that share an entry
	size   int64 // entries of the ring
}

const (
	maxChunks = 128
	seqBits   = 53
	seqMask   = 1<<seqBits - 1
)

func newWindow(n int64, period time.Duration) *window {
	chunk := (n + maxChunks - 1) / maxChunks
	return &window{n, int64(period), chunk, 2*((n+chunk-1)/chunk) + 2}
}

// The ring holds instants in an order that unsigned integers have, so that 0 is
// before all.
func entryOf(t int64) uint64 { return uint64(t) ^ 1<<63 }

// at returns when request s was taken, or a little later.
func (w *window) at(b *bucket, s int64) int64 {
	if s < 0 {
		return neverUsed
	}
	e := b.more.ring[s/w.chunk%w.size].Load()
	return max(int64(e^1<<63), neverUsed)
}

// raise makes an entry at least t.
func (w *window) raise(b *bucket, chunk, t int64) {
	e := &b.more.ring[chunk%w.size]
	for {
		old := e.Load()
		if old >= entryOf(t) || e.CompareAndSwap(old, entryOf(t)) {
			return
		}
	}
}

func (w *window) set(b *bucket, used, at int64) {
	b.more = &extra{ring: make([]atomic.Uint64, w.size)}
	b.word.Store(uint64(used) << 1)
	for c := int64(0); c*w.chunk < used; c++ {
		w.raise(b, c, at)
	}
}

func (w *window) plant(b *bucket, now Time, s seed) {
	w.set(b, s.atMost(w.n), clamp(now))
}

func next(word uint64) int64 { return int64(word >> 1 & seqMask) }

func (w *window) take(b *bucket, now Time, n int64) (Decision, step) {
	t := clamp(now)
	for {
		word := b.word.Load()
		if word&sealed != 0 {
			return Decision{}, follow
		}
		s := next(word)
		last := w.at(b, s-1)
		switch {
		case last-t > clockSet:
			return Decision{}, renew
		case n > w.n:
			return never(w.left(b, s, t), sub(last+w.period, t)), done
		}
		if due := w.at(b, s+n-1-w.n) + w.period; due > t {
			return Decision{Remaining: w.left(b, s, t), Wait: sub(due, t), Reset: sub(last+w.period, t)}, done
		}
		for c := s / w.chunk; c <= (s+n-1)/w.chunk; c++ {
			w.raise(b, c, max(t, last))
		}
		if b.word.CompareAndSwap(word, word+uint64(n)<<1) {
			return Decision{Allowed: true, Remaining: w.left(b, s+n, t), Reset: sub(max(t, last)+w.period, t)}, done
		}
	}
}

// left returns how many could be taken at t, given the next number.
func (w *window) left(b *bucket, s, t int64) int64 {
	first := s - w.n
	// lo and hi enclose the first chunk that still counts.
	lo, hi := first/w.chunk, (s-1)/w.chunk+1
	if first < 0 {
		lo = 0
	}
	for lo < hi {
		if mid := (lo + hi) / 2; w.at(b, mid*w.chunk) > t-w.period {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return min(max(lo*w.chunk, 0, first)-first, w.n)
}

func (w *window) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	t := clamp(now)
	word := b.word.Load()
	if word&sealed != 0 {
		return Decision{}, follow
	}
	s := next(word)
	last := w.at(b, s-1)
	if last-t > clockSet {
		return Decision{}, renew
	}
	d := Decision{Remaining: w.left(b, s, t), Reset: sub(last+w.period, t)}
	// The last of them may come when the one n before it is a period back, and
	// that one in its turn.
	rounds, place := (ahead+n-1)/w.n, (ahead+n-1)%w.n
	hi, lo := bits.Mul64(uint64(rounds), uint64(w.period))
	if n > w.n || hi != 0 || lo > uint64(longest) {
		d.Wait = Never
		return d, done
	}
	when := max(t, w.at(b, s-w.n+place)+w.period) + int64(lo)
	d.Allowed, d.Wait = when <= t, sub(when, t)
	return d, done
}

// refund takes the last n off the log. Requests that were taken after the
// instant now keep their times: those move down to the numbers before.
func (w *window) refund(b *bucket, now Time, n int64) step {
	t := clamp(now)
	for {
		word := b.word.Load()
		if word&sealed != 0 {
			return follow
		}
		s := next(word)
		n := min(n, s)
		for c := (s - n - 1) / w.chunk; c >= 0 && c >= (s-w.n)/w.chunk && s > n; c-- {
			moved := w.at(b, min(c*w.chunk+w.chunk-1+n, s-1))
			if moved <= t {
				break
			}
			w.raise(b, c, moved)
		}
		version := word>>1>>seqBits + 1
		if b.word.CompareAndSwap(word, (version<<seqBits|uint64(s-n))<<1) {
			return done
		}
	}
}

func (w *window) used(b *bucket, now Time) share {
	return shareOf(w.n-w.left(b, next(b.word.Load()), clamp(now)), w.n)
}

// renew takes the clock as set back: the window is used up from there.
func (w *window) renew(b, old *bucket, now Time) {
	t := clamp(now)
	if w.at(old, next(old.word.Load())-1)-t > clockSet {
		w.set(b, w.n, t)
		return
	}
	b.inherit(old)
}

func (w *window) state(b *bucket) State {
	s := next(b.word.Load())
	last := w.at(b, s-1)
	if last == neverUsed {
		return State{Kind: b.spec.limit.Kind, A: unused}
	}
	return State{b.spec.limit.Kind, last, w.n - w.left(b, s, last), 0}
}

func (w *window) load(b *bucket, now Time, st State) {
	used := w.n
	switch {
	case st.A == unused:
		used = 0
	case st.Kind == b.spec.limit.Kind:
		used = min(max(st.B, 0), w.n)
	}
	w.set(b, used, min(clamp(Time(st.A)), clamp(now)))
}
