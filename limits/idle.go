package limits

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// idleReset is for an upstream whose counter is cleared by silence alone: n
// requests, then none for a period. Any request that is admitted breaks the
// silence; one that is refused does not, since the upstream never sees it.
//
// The word has the count, and above it how many silences there were. When the
// last request came is kept beside it, in one of two places that take turns
// from silence to silence, so that who announces the first request after one
// leaves the time alone by which others find it complete. Like a window's
// times these only grow, and are raised before the swap that takes: one who is
// overtaken has at most made the request that was faster count as of its own
// instant, at which that one was under way.
type idleReset struct {
	n      int64
	period int64
	width  int // bits of the count
}

func newIdleReset(n int64, period time.Duration) *idleReset {
	return &idleReset{n, int64(period), bits.Len64(uint64(n))}
}

// tally is what a bucket holds.
type tally struct{ silences, count, last int64 }

// place returns where the last request after so many silences is kept.
func (idleReset) place(b *bucket, silences int64) *atomic.Int64 {
	if silences&1 == 0 {
		return &b.start
	}
	return &b.seen
}

func (r *idleReset) unpack(b *bucket, word uint64) tally {
	word >>= 1
	k := tally{silences: int64(word >> r.width), count: int64(word & (1<<r.width - 1))}
	k.last = r.place(b, k.silences).Load()
	return k
}

func (r *idleReset) pack(silences, count int64) uint64 {
	return (uint64(silences)<<r.width | uint64(count)) << 1
}

// at returns the tally as it stands at t.
func (r *idleReset) at(k tally, t int64) tally {
	if t-k.last >= r.period {
		return tally{k.silences + 1, 0, k.last}
	}
	return k
}

func (r *idleReset) set(b *bucket, count, last int64) {
	b.word.Store(r.pack(0, count))
	b.start.Store(last)
	b.seen.Store(neverUsed)
}

func (r *idleReset) plant(b *bucket, now Time, s seed) {
	if used := s.atMost(r.n); used > 0 {
		r.set(b, used, clamp(now))
		return
	}
	r.set(b, 0, neverUsed)
}

func (r *idleReset) take(b *bucket, now Time, n int64) (Decision, step) {
	t, set := clamp(now), false
	for {
		word := b.word.Load()
		if word&sealed != 0 {
			return Decision{}, follow
		}
		k := r.unpack(b, word)
		if t, set = b.instant(t, k.last); set {
			return Decision{}, renew
		}
		k = r.at(k, t)
		if n > r.n-k.count {
			if b.word.Load()&^sealed != word {
				continue // the last request was not that of this count
			}
			return r.decide(k, t, 0, n), done
		}
		k.count += n
		k.last = max(k.last, t)
		raise(r.place(b, k.silences), k.last)
		if b.word.CompareAndSwap(word, r.pack(k.silences, k.count)) {
			return Decision{Allowed: true, Remaining: r.n - k.count, Reset: sub(k.last+r.period, t)}, done
		}
	}
}

// raise makes v at least t.
func raise(v *atomic.Int64, t int64) {
	for {
		if old := v.Load(); old >= t || v.CompareAndSwap(old, t) {
			return
		}
	}
}

func (r *idleReset) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	t, set := clamp(now), false
	for {
		word := b.word.Load()
		if word&sealed != 0 {
			return Decision{}, follow
		}
		k := r.unpack(b, word)
		if b.word.Load()&^sealed != word {
			continue
		}
		if t, set = b.instant(t, k.last); set {
			return Decision{}, renew
		}
		return r.decide(r.at(k, t), t, ahead, n), done
	}
}

// decide answers for a request of n after ahead others, without taking.
func (r *idleReset) decide(k tally, t, ahead, n int64) Decision {
	d := Decision{Remaining: r.n - k.count}
	if k.count > 0 {
		d.Reset = sub(k.last+r.period, t)
	}
	if n > r.n {
		d.Wait = Never
		return d
	}
	if n <= d.Remaining-ahead {
		d.Allowed = true
		return d
	}
	// Those ahead take what there is now, and are silent until they can take
	// the next n.
	last := k.last
	if now := min(ahead, d.Remaining); now > 0 {
		last = max(last, t)
		ahead -= now
	}
	silences := 1 + ahead/r.n
	if ahead%r.n+n > r.n {
		silences++
	}
	hi, lo := bits.Mul64(uint64(silences), uint64(r.period))
	if hi != 0 || lo > uint64(longest) {
		d.Wait = Never
		return d
	}
	d.Wait = sub(last+int64(lo), t)
	return d
}

// refund gives back the requests but not the silence that they broke. What was
// taken a period before the last request may have been taken before a silence,
// and weighs on nothing then.
func (r *idleReset) refund(b *bucket, now Time, n int64) step {
	for {
		word := b.word.Load()
		if word&sealed != 0 {
			return follow
		}
		k := r.unpack(b, word)
		if k.last-clamp(now) >= r.period {
			return done
		}
		if b.word.CompareAndSwap(word, r.pack(k.silences, max(0, k.count-n))) {
			return done
		}
	}
}

func (r *idleReset) used(b *bucket, now Time) share {
	k, t := r.unpack(b, b.word.Load()), clamp(now)
	if k.last-t > clockSet {
		return shareOf(r.n, r.n)
	}
	return shareOf(r.at(k, t).count, r.n)
}

// renew takes the clock as set back: the limiter is used up from there.
func (r *idleReset) renew(b, old *bucket, now Time) {
	if t := clamp(now); r.unpack(old, old.word.Load()).last-t > clockSet {
		r.set(b, r.n, t)
		return
	}
	b.inherit(old)
}

func (r *idleReset) state(b *bucket) State {
	k := r.unpack(b, b.word.Load())
	if k.last == neverUsed {
		k.last = unused
	}
	return State{b.spec().limit.Kind, k.last, k.count, 0}
}

func (r *idleReset) load(b *bucket, now Time, st State) {
	switch {
	case st.A == unused:
		r.set(b, 0, neverUsed)
	case st.Kind == b.spec().limit.Kind:
		r.set(b, min(max(st.B, 0), r.n), clamp(Time(st.A)))
	default:
		r.set(b, r.n, min(clamp(Time(st.A)), clamp(now)))
	}
}
