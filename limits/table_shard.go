package limits

import (
	"cmp"
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// entry is one key of a table, or none and waits for one.
type entry struct {
	limiter Limiter
	used    atomic.Int64 // the Time of the last look-up, to touchEvery
	place   atomic.Uint64
	tag     atomic.Uint64 // with place the hashed key; both are 0 of an entry without one
	name    KeyHash       // guarded by the shard's lock
}

// hashed is a key: 128 bits of it, by seeds that nobody knows. That two keys
// are taken for one is as likely as guessing both.
type hashed struct{ place, tag uint64 }

func (e *entry) is(h hashed) bool { return e.place.Load() == h.place && e.tag.Load() == h.tag }

func (e *entry) live() bool { return e.place.Load() != 0 }

// touchEvery is how exactly the last use of a key is known. Writing it at
// every look-up would only heat the cache line.
const touchEvery = 100 * time.Microsecond

func (e *entry) unused(now Time) time.Duration { return now.Sub(Time(e.used.Load())) }

func (e *entry) waitedFor() bool { return e.limiter.line() != nil }

// slab is entries that are allocated together. As in a [Slab] there are no
// pointers in them.
type slab struct {
	anchor  slabAnchor
	entries [slabSize]entry
	lent    int // entries whose limiters a store may still have, see shard.free
}

const slabSize = 64

func newSlab() *slab {
	s := new(slab)
	for i := range s.entries {
		s.anchor.settle(&s.entries[i].limiter, i)
	}
	return s
}

// rack is where a slab stands, and which of its entries were looked up since
// [Table.Used] yielded them. A slab that is gone leaves an empty one.
type rack struct {
	slab  atomic.Pointer[slab]
	dirty atomic.Uint64
}

// shard is a part of a table: entries by number, and an open-addressing hash
// table with linear probing of their numbers, which readers walk without a lock.
// A slot is 0 or has the upper half of an entry's tag above its number, from 1
// on, so that a reader looks only at the entry that it wants. A reader may miss
// an entry while a removal moves it; it then looks again under the lock.
//
// Entries are used again for other keys. All that a reader looks at who comes
// late is atomic.
type shard struct {
	slots atomic.Pointer[[]atomic.Uint64] // a power of two, never full
	racks atomic.Pointer[[]rack]

	mu     sync.Mutex // guards changes of what is above, and what follows
	len    int
	hand   int      // where the next search for a victim starts
	next   uint32   // entries that were ever used
	idle   []uint32 // entries that wait for a key, those that wait longest first
	floors map[floorKey]*floor

	_ [64]byte // keeps neighbours off the cache line
}

const minSlots = 8

// resting is how many entries a shard keeps waiting, so that one is not used
// again at once while a decision may still be under way.
const resting = 32

// home is where a key would stand if there were no others. The low bits of the
// hash have chosen the shard.
func home(place uint64, slots int) int { return int(place>>32) & (slots - 1) }

func slotOf(h hashed, number uint32) uint64 { return h.tag&^(1<<32-1) | uint64(number+1) }

// spot is an entry and where its use is noted.
type spot struct {
	*entry
	rack *rack
	bit  uint64
}

// at returns the entry of a slot.
func (sh *shard) at(slot uint64) spot {
	number := uint32(slot) - 1
	r := &(*sh.racks.Load())[number/slabSize]
	if s := r.slab.Load(); s != nil {
		return spot{&s.entries[number%slabSize], r, 1 << (number % slabSize)}
	}
	return spot{}
}

// touch notes a look-up.
func (s spot) touch(now Time) {
	if d := s.unused(now); d > touchEvery || d < -touchEvery {
		s.used.Store(int64(now))
		if s.rack.dirty.Load()&s.bit == 0 {
			s.rack.dirty.Or(s.bit)
		}
	}
}

func (sh *shard) find(h hashed) spot {
	slots := *sh.slots.Load()
	i := home(h.place, len(slots))
	for range slots {
		slot := slots[i].Load()
		if slot == 0 {
			return spot{}
		}
		if slot>>32 == h.tag>>32 {
			if s := sh.at(slot); s.entry != nil && s.is(h) {
				return s
			}
		}
		i = (i + 1) & (len(slots) - 1)
	}
	return spot{}
}

// all yields the entries. The lock is held and nothing is removed meanwhile.
func (sh *shard) all() iter.Seq[spot] {
	return func(yield func(spot) bool) {
		slots := *sh.slots.Load()
		for i := range slots {
			if slot := slots[i].Load(); slot != 0 && !yield(sh.at(slot)) {
				return
			}
		}
	}
}

// insert gives a key an entry, whose limiter is still to be made; publish shows
// it to readers.
func (sh *shard) insert() (number uint32, e *entry) {
	if len(sh.idle) > resting {
		number, sh.idle = sh.idle[0], sh.idle[1:]
		return number, sh.at(uint64(number + 1)).entry
	}
	number = sh.next
	sh.next++
	racks := *sh.racks.Load()
	n := int(number / slabSize)
	if n == len(racks) {
		racks = sh.grow(racks)
	}
	if number%slabSize == 0 {
		racks[n].slab.Store(newSlab())
	}
	return number, &racks[n].slab.Load().entries[number%slabSize]
}

// grow makes room for more slabs. What was noted in the old racks meanwhile is
// lost, so all is noted.
func (sh *shard) grow(racks []rack) []rack {
	more := make([]rack, max(1, 2*len(racks)))
	for i := range racks {
		more[i].slab.Store(racks[i].slab.Load())
		more[i].dirty.Store(1<<64 - 1)
	}
	sh.racks.Store(&more)
	return more
}

func (sh *shard) publish(h hashed, number uint32) {
	if slots := len(*sh.slots.Load()); 3*(sh.len+1) > 2*slots {
		sh.resize(2 * slots)
	}
	place(*sh.slots.Load(), h.place, slotOf(h, number))
	sh.len++
}

func place(slots []atomic.Uint64, h, slot uint64) {
	i := home(h, len(slots))
	for slots[i].Load() != 0 {
		i = (i + 1) & (len(slots) - 1)
	}
	slots[i].Store(slot)
}

// resize moves everything into n slots. Readers go on in the old ones.
func (sh *shard) resize(n int) {
	slots := make([]atomic.Uint64, n)
	if old := sh.slots.Load(); old != nil {
		for i := range *old {
			if slot := (*old)[i].Load(); slot != 0 {
				place(slots, sh.at(slot).place.Load(), slot)
			}
		}
	}
	sh.slots.Store(&slots)
}

// remove takes e out and moves up those that stood behind it for want of a
// better place, so that no tombstone is needed.
func (sh *shard) remove(e *entry) {
	slots := *sh.slots.Load()
	mask := len(slots) - 1
	i := home(e.place.Load(), len(slots))
	for sh.at(slots[i].Load()).entry != e {
		i = (i + 1) & mask
	}
	number := uint32(slots[i].Load()) - 1
	for j := (i + 1) & mask; ; j = (j + 1) & mask {
		next := slots[j].Load()
		if next == 0 {
			break
		}
		// next may move to i unless its home lies behind i.
		if (j-home(sh.at(next).place.Load(), len(slots)))&mask >= (j-i)&mask {
			slots[i].Store(next)
			i = j
		}
	}
	slots[i].Store(0)
	sh.len--
	sh.free(number, e)
}

// free lets an entry wait for another key. A limiter with a lease is not used
// again: its store may still have it. A slab of only such is left to it.
func (sh *shard) free(number uint32, e *entry) {
	e.place.Store(0)
	e.tag.Store(0)
	if e.limiter.Lease() == nil {
		sh.idle = append(sh.idle, number)
		return
	}
	r := &(*sh.racks.Load())[number/slabSize]
	s := r.slab.Load()
	if s.lent++; s.lent < slabSize {
		return
	}
	r.slab.Store(newSlab())
	for i := range uint32(slabSize) {
		sh.idle = append(sh.idle, number/slabSize*slabSize+i)
	}
}

// used calls f for the entries that were looked up since it was called last,
// slab by slab from one on, for about as many as most. It returns where to go on,
// 0 at the end, and how many it called f for. The lock is held meanwhile.
func (sh *shard) used(now Time, from, most int, f func(KeyHash, *Limiter)) (next, n int) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	racks := *sh.racks.Load()
	for i := from; i < len(racks); i++ {
		if n >= most {
			return i, n
		}
		r := &racks[i]
		if r.dirty.Load() == 0 {
			continue
		}
		s := r.slab.Load()
		for dirty := r.dirty.Swap(0); dirty != 0 && s != nil; dirty &= dirty - 1 {
			k := bits.TrailingZeros64(dirty)
			e := &s.entries[k]
			if !e.live() {
				continue
			}
			if e.unused(now) < overlap || e.waitedFor() {
				r.dirty.Or(1 << k)
			}
			f(e.name, &e.limiter)
			n++
		}
	}
	return 0, n
}

// How far the search for a victim goes: it looks at so many entries, and at
// more only while each would be a loss.
const (
	fewCandidates  = 8
	manyCandidates = 64
)

// inFlight is how long after a look-up a decision on the limiter may be still
// to come.
const inFlight = time.Millisecond

// loss is what forgetting an entry would cost, the dearer the greater.
type loss struct {
	class     int
	reset     time.Duration // how long the floor would have to be kept
	remaining int64
	used      int64
}

// The classes of loss.
const (
	free      = iota // full again, or no fuller than later keys start anyway
	cheap            // some was used; keys that start from its floor still get some
	recent           // a decision on it may be under way
	exhausted        // later keys would get nothing
)

// loss judges e; f is what the floor of its spec answers.
func (e *entry) loss(now Time, f Decision) loss {
	d := e.limiter.Peek(now, 1)
	l := loss{class: cheap, reset: d.Reset, remaining: d.Remaining, used: e.used.Load()}
	inFlight := e.unused(now) < inFlight
	switch {
	case inFlight && d.Remaining > 0:
		return loss{class: recent, used: l.used}
	case d.Reset == 0, d.Reset <= f.Reset && d.Remaining >= f.Remaining:
		l.class = free
	case d.Remaining == 0:
		l.class = exhausted
	}
	return l
}

func (a loss) less(b loss) bool {
	return cmp.Or(
		cmp.Compare(a.class, b.class),
		cmp.Compare(a.reset, b.reset),
		cmp.Compare(b.remaining, a.remaining),
		cmp.Compare(a.used, b.used),
	) < 0
}

// victim returns the entry to forget next, or nil. It goes round like a clock,
// so that every entry is looked at in turn, and does not sort the whole shard.
func (sh *shard) victim(now Time) *entry {
	slots := *sh.slots.Load()
	var best *entry
	var least loss
	var spec *Spec // whose floor answers f
	var f Decision
	for seen, n := 0, 0; n < len(slots) && seen < manyCandidates; n++ {
		slot := slots[sh.hand&(len(slots)-1)].Load()
		sh.hand++
		if slot == 0 {
			continue
		}
		e := sh.at(slot).entry
		if e.waitedFor() {
			continue
		}
		if s := e.limiter.Spec(); s != spec {
			spec, f = s, sh.peekFloor(now, s)
		}
		if l := e.loss(now, f); best == nil || l.less(least) {
			best, least = e, l
		}
		if seen++; seen >= fewCandidates && least.class <= cheap {
			break
		}
	}
	return best
}
