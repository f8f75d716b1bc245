package limits

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// machine runs an [Algorithm], whose state is more than a word.
//
// The state lies in one of a few cells, and the bucket's word says in which,
// under a number that every change increases. Who wants to change it claims a
// free cell, writes the new state there and swaps the word; readers look at
// the word again after they have read a cell. A claimed cell is nobody else's,
// so there is nothing to wait for. When all are claimed, by goroutines that
// have been stopped in the midst of it, the bucket is renewed with fresh ones.
type machine struct{ algorithm Algorithm }

// decide takes n if it can, and answers.
func (m *machine) decide(st State, now Time, n int64) (State, Decision) {
	d := m.algorithm.Peek(st, now, n)
	if !d.Allowed {
		return st, d
	}
	st = m.algorithm.Take(st, now, n)
	after := m.algorithm.Peek(st, now, 1)
	d.Remaining, d.Reset = after.Remaining, after.Reset
	return st, d
}

const numCells = 8

type cells struct {
	free  atomic.Uint32 // a bit for each cell that can be claimed
	cells [numCells]struct{ a, b, c atomic.Int64 }
}

func (c *cells) write(i int, st State) {
	c.cells[i].a.Store(st.A)
	c.cells[i].b.Store(st.B)
	c.cells[i].c.Store(st.C)
}

func cellOf(word uint64) int { return int(word >> 1 % numCells) }

// set makes a fresh bucket's state.
func (m *machine) set(b *bucket, st State) {
	c := new(cells)
	c.free.Store(1<<numCells - 2)
	c.write(0, st)
	b.setMore(&extra{cells: c})
}

// read returns the state and the word that it was read under.
func (m *machine) read(b *bucket) (State, uint64) {
	for {
		word := b.word.Load()
		c := &b.more().cells.cells[cellOf(word)]
		st := State{b.spec().limit.Kind, c.a.Load(), c.b.Load(), c.c.Load()}
		if b.word.Load()&^sealed == word&^sealed {
			return st, word
		}
	}
}

// swap makes st the state, unless another was faster.
func (m *machine) swap(b *bucket, word uint64, st State) (bool, step) {
	c := b.more().cells
	var free uint32
	for {
		if free = c.free.Load(); free == 0 {
			return false, renew
		}
		if c.free.CompareAndSwap(free, free&(free-1)) {
			break
		}
	}
	i := bits.TrailingZeros32(free)
	c.write(i, st)
	number := word>>1/numCells + 1
	if b.word.CompareAndSwap(word, (number*numCells+uint64(i))<<1) {
		c.free.Or(1 << cellOf(word))
		return true, done
	}
	c.free.Or(1 << i)
	return false, done
}

// steady returns a state and an instant at which the clock has not run
// backwards. If it was set, the limiter is used up from there.
func (m *machine) steady(st State, now Time) (State, Time, bool) {
	t := Time(clamp(now))
	if st.C-int64(t) > clockSet {
		st = m.algorithm.Start(t, 1)
		st.C = int64(t)
		return st, t, true
	}
	return st, max(t, Time(st.C)), false
}

// shift makes a decision at the instant t one at now.
func (d Decision) shift(now, t Time) Decision {
	by := t.Sub(Time(clamp(now)))
	if d.Wait > 0 && d.Wait != Never {
		d.Wait += by
	}
	if d.Reset > 0 {
		d.Reset += by
	}
	return d
}

func (m *machine) plant(b *bucket, now Time, s seed) {
	used := s.used.float()
	if s.raised {
		used = min(used, 1-1/float64(b.spec().limit.N))
	}
	st := m.algorithm.Start(Time(clamp(now)), used)
	st.C = neverUsed
	if s.used.num > 0 {
		st.C = clamp(now)
	}
	m.set(b, st)
}

func (m *machine) take(b *bucket, now Time, n int64) (Decision, step) {
	for {
		st, word := m.read(b)
		if word&sealed != 0 {
			return Decision{}, follow
		}
		if st.C-clamp(now) > clockSet && !b.wasSet(clamp(now)) {
			now = Time(st.C)
		}
		st, t, set := m.steady(st, now)
		st, d := m.decide(st, t, n)
		switch {
		case d.Allowed:
			st.C = int64(t)
		case !set:
			return d.shift(now, t), done
		}
		switch ok, s := m.swap(b, word, st); {
		case s != done:
			return Decision{}, s
		case ok:
			return d.shift(now, t), done
		}
	}
}

func (m *machine) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	for {
		st, word := m.read(b)
		if word&sealed != 0 {
			return Decision{}, follow
		}
		if st.C-clamp(now) > clockSet && !b.wasSet(clamp(now)) {
			now = Time(st.C)
		}
		st, t, set := m.steady(st, now)
		if set {
			if _, s := m.swap(b, word, st); s != done {
				return Decision{}, s
			}
			continue
		}
		d := m.algorithm.Peek(st, t, n)
		if ahead > 0 {
			d.Wait = after(m.algorithm, st, t, ahead, n)
			d.Allowed = d.Wait == 0
		}
		return d.shift(now, t), done
	}
}

// after returns when n can be taken once ahead others were, by taking them.
func after(a Algorithm, st State, now Time, ahead, n int64) time.Duration {
	const steps = 10_000 // then it is an estimate
	t, all := now, ahead
	for i := 0; ahead > 0; i++ {
		d := a.Peek(st, t, 1)
		switch {
		case d.Allowed && i < steps:
			k := min(ahead, max(d.Remaining, 1))
			st = a.Take(st, t, k)
			ahead -= k
		case d.Wait == Never:
			return Never
		case i < steps:
			t = t.Add(d.Wait)
		default:
			return time.Duration(min(float64(t.Sub(now))*float64(all)/float64(all-ahead), float64(longest)))
		}
	}
	d := a.Peek(st, t, n)
	if d.Wait == Never {
		return Never
	}
	return t.Add(d.Wait).Sub(now)
}

func (m *machine) refund(b *bucket, now Time, n int64) step {
	for {
		st, word := m.read(b)
		if word&sealed != 0 {
			return follow
		}
		last := st.C
		st = m.algorithm.Refund(st, Time(clamp(now)), n)
		st.C = last
		if ok, s := m.swap(b, word, st); ok || s != done {
			return s
		}
	}
}

func (m *machine) used(b *bucket, now Time) share {
	st, _ := m.read(b)
	st, t, _ := m.steady(st, now)
	return fraction(m.algorithm.Used(st, t))
}

// fraction makes a share of used, and lets no rounding make it larger.
func fraction(used float64) share {
	used = min(max(used, 0), 1)
	const one = 1 << 53
	if used == 1 {
		return share{one, one}
	}
	return share{uint64(max(0, math.Round(used*one)-2)), one}
}

func (m *machine) renew(b, old *bucket, _ Time) {
	st, _ := m.read(old)
	m.set(b, st)
}

func (m *machine) state(b *bucket) State {
	st, _ := m.read(b)
	if st.C == neverUsed {
		st.C = unused
	}
	return st
}

func (m *machine) load(b *bucket, now Time, st State) {
	t := clamp(now)
	switch {
	case st.Kind == b.spec().limit.Kind:
		st.C = max(st.C, neverUsed)
	case st.A == unused:
		st = m.algorithm.Start(Time(t), 0)
		st.C = neverUsed
	default:
		st.C = min(clamp(Time(st.A)), t)
		c := st.C
		st = m.algorithm.Start(Time(c), 1)
		st.C = c
	}
	m.set(b, st)
}
