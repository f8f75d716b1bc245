package limits

import "time"

// clockSet is how far back a clock may be read and still be the same clock.
// Goroutines read it at slightly different times. A later step back means that
// the clock was set: refill then goes on from there, and starts from nothing,
// so that it is neither a gift nor a standstill for as long as the step.
const clockSet = int64(time.Second)

// sure is for how long instants lie behind before the clock counts as set.
const sure = int64(100 * time.Millisecond)

// A doubt is about an instant that lies more than clockSet before what the bucket
// has seen. Either the clock was set back or, on a machine that has too much to do
// or with a container that was frozen, a thread stood still between its clock and
// its limiter. One such instant does not tell. If another is one too, a while later
// and with nothing taken in between, the clock was set.
type doubt struct {
	word, ramp uint64 // the bucket's
	at         int64
}

// wasSet tells whether the clock was set back, of an instant t that lies more than
// clockSet before what the bucket has seen. Until that is sure, the bucket decides
// at the instant that it has seen, as for who is a little behind.
func (b *bucket) wasSet(t int64) bool {
	more := b.extra()
	d, n := more.doubt.Load(), doubt{b.word.Load() &^ sealed, b.ramp.Load() &^ sealed, t}
	if d == nil || d.word != n.word || d.ramp != n.ramp || t < d.at {
		more.doubt.CompareAndSwap(d, &n)
		return false
	}
	return t-d.at >= sure
}

// instant returns at which instant b decides, of a request at t, where last is the
// latest that b has seen: t, or last if t lies far before it and it is not sure that
// the clock was set back. If it is, set is true.
func (b *bucket) instant(t, last int64) (at int64, set bool) {
	if last-t <= clockSet {
		return t, false
	}
	if b.wasSet(t) {
		return t, true
	}
	return last, false
}
