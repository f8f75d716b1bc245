package limits

import (
	"math"
	"sync/atomic"
	"time"
)

// tickets keeps the state of a [smooth] in a bucket. The word has, from above,
// nextFree, how many were admitted since nextFree is the same, and in which cell
// of the store the permits are. Mostly there are none, and then no cell is used.
// When the last request came is kept in bucket.seen, which only grows, as
// idleReset's time does.
//
// Who wants to store permits claims a vacant cell by writing them there, swaps
// the word and vacates the cell that was in use. A claimed cell is nobody else's,
// so there is nothing to wait for. No word comes twice in a bucket: nextFree only
// grows, and where it stays, the number does. What would break that, a refund or
// the 128th request of the same microsecond, makes another bucket.
type tickets struct{ smooth }

const (
	cellWidth = 3
	runWidth  = 7
)

// store has the cells that the permits are kept in, of which the first, 0,
// would stand for none and is left out.
type store [1<<cellWidth - 1]atomic.Uint64

// vacant is in a cell that nobody uses: no number of permits has these bits.
const vacant = math.MaxUint64

const firstMicro = earliest / int64(time.Microsecond)

func (tickets) pack(nextFree int64, run, cell uint64) uint64 {
	return ((uint64(nextFree-firstMicro)<<runWidth|run)<<cellWidth | cell) << 1
}

// unpack is the inverse of pack.
func (tickets) unpack(word uint64) (nextFree int64, run, cell uint64) {
	cell = word >> 1 & (1<<cellWidth - 1)
	run = word >> (1 + cellWidth) & (1<<runWidth - 1)
	return int64(word>>(1+cellWidth+runWidth)) + firstMicro, run, cell
}

// set makes a fresh bucket's state.
func (s *tickets) set(b *bucket, k ticket, last int64) {
	cells, cell := new(store), uint64(0)
	for i := range cells {
		cells[i].Store(vacant)
	}
	if k.stored > 0 {
		cell = 1
		cells[0].Store(math.Float64bits(k.stored))
	}
	b.setMore(&extra{store: cells})
	b.seen.Store(last)
	b.word.Store(s.pack(k.nextFree, 0, cell))
}

// read returns the ticket and the word that it was read under.
func (s *tickets) read(b *bucket) (ticket, uint64) {
	for {
		word := b.word.Load()
		nextFree, _, cell := s.unpack(word)
		if cell == 0 {
			return ticket{nextFree, 0}, word
		}
		bits := b.more().store[cell-1].Load()
		if b.word.Load()&^sealed == word&^sealed {
			return ticket{nextFree, math.Float64frombits(bits)}, word
		}
	}
}

// swap makes k what follows on the ticket of word, unless another was faster.
func (s *tickets) swap(b *bucket, word uint64, k ticket) (bool, step) {
	nextFree, run, used := s.unpack(word)
	if run++; k.nextFree > nextFree {
		run = 0
	}
	cells, cell := b.more().store, uint64(0)
	if k.stored > 0 {
		cell = cells.claim(used, math.Float64bits(k.stored))
	}
	if run>>runWidth > 0 || cell > uint64(len(cells)) {
		cells.vacate(cell)
		return false, renew
	}
	if !b.word.CompareAndSwap(word, s.pack(k.nextFree, run, cell)) {
		cells.vacate(cell)
		return false, done
	}
	cells.vacate(used)
	return true, done
}

// claim writes to a vacant cell and returns which, from 1 on: the first after
// used, since the ones before may still be in the making. It returns one too
// many when all are claimed, by goroutines that have been stopped in the midst.
func (c *store) claim(used, bits uint64) uint64 {
	for i := range uint64(len(c)) {
		cell := (used + i) % uint64(len(c))
		if c[cell].Load() == vacant && c[cell].CompareAndSwap(vacant, bits) {
			return cell + 1
		}
	}
	return uint64(len(c)) + 1
}

func (c *store) vacate(cell uint64) {
	if cell > 0 && cell <= uint64(len(c)) {
		c[cell-1].Store(vacant)
	}
}

func (s *tickets) plant(b *bucket, now Time, sd seed) {
	t, last := clamp(now), int64(neverUsed)
	if sd.used.num > 0 {
		last = t
	}
	s.set(b, s.smooth.unpack(s.Start(Time(t), sd.used.float())), last)
}

func (s *tickets) take(b *bucket, now Time, n int64) (Decision, step) {
	for {
		k, word := s.read(b)
		last := b.seen.Load()
		if word&sealed != 0 {
			return Decision{}, follow
		}
		if last-clamp(now) > clockSet {
			if b.wasSet(clamp(now)) {
				return Decision{}, renew
			}
			now = Time(last)
		}
		t := Time(max(clamp(now), last))
		k, d := s.decide(k, t, n)
		if !d.Allowed {
			return d.shift(now, t), done
		}
		if int64(t) > last {
			raise(&b.seen, int64(t))
		}
		if ok, next := s.swap(b, word, k); ok || next != done {
			return d.shift(now, t), next
		}
	}
}

func (s *tickets) peek(b *bucket, now Time, ahead, n int64) (Decision, step) {
	k, word := s.read(b)
	last := b.seen.Load()
	if word&sealed != 0 {
		return Decision{}, follow
	}
	if last-clamp(now) > clockSet {
		if b.wasSet(clamp(now)) {
			return Decision{}, renew
		}
		now = Time(last)
	}
	st, t := s.smooth.pack(k), Time(max(clamp(now), last))
	d := s.Peek(st, t, n)
	if ahead > 0 {
		d.Wait = after(&s.smooth, st, t, ahead, n)
		d.Allowed = d.Wait == 0
	}
	return d.shift(now, t), done
}

func (s *tickets) refund(b *bucket, _ Time, _ int64) step {
	if b.word.Load()&sealed != 0 {
		return follow
	}
	return remake
}

// giveBack fills b with the state of the sealed old one and n given back.
func (s *tickets) giveBack(b, old *bucket, now Time, n int64) {
	k, _ := s.read(old)
	k = s.smooth.unpack(s.Refund(s.smooth.pack(k), Time(clamp(now)), n))
	s.set(b, k, old.seen.Load())
}

// at returns the state at t, from which on the limiter is used up if the clock
// was set back to there.
func (s *tickets) at(b *bucket, t int64) (k ticket, last int64) {
	k, _ = s.read(b)
	if last = b.seen.Load(); last-t > clockSet {
		return s.smooth.unpack(s.Start(Time(t), 1)), t
	}
	return k, last
}

func (s *tickets) used(b *bucket, now Time) share {
	t := clamp(now)
	k, last := s.at(b, t)
	return fraction(s.Used(s.smooth.pack(k), Time(max(t, last))))
}

func (s *tickets) renew(b, old *bucket, now Time) {
	k, last := s.at(old, clamp(now))
	s.set(b, k, last)
}

func (s *tickets) state(b *bucket) State {
	k, _ := s.read(b)
	st := s.smooth.pack(k)
	st.Kind, st.C = b.spec().limit.Kind, b.seen.Load()
	if st.C == neverUsed {
		st.C = unused
	}
	return st
}

func (s *tickets) load(b *bucket, now Time, st State) {
	t := clamp(now)
	switch {
	case st.Kind == b.spec().limit.Kind:
		k := s.smooth.unpack(st)
		k.nextFree = micros(Time(clamp(Time(st.A))))
		if k.stored = min(k.stored, s.max); !(k.stored > 0) {
			k.stored = 0
		}
		s.set(b, k, max(st.C, neverUsed))
	case st.A == unused:
		s.set(b, s.smooth.unpack(s.Start(Time(t), 0)), neverUsed)
	default:
		last := min(clamp(Time(st.A)), t)
		s.set(b, s.smooth.unpack(s.Start(Time(last), 1)), last)
	}
}
