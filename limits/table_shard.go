package limits

import (
	"cmp"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// entry is one key of a table.
type entry struct {
	limiter Limiter
	used    atomic.Int64 // the Time of the last look-up, to touchEvery
	hash    uint64
	key     string
}

// touchEvery is how exactly the last use of a key is known. Writing it at
// every look-up would only heat the cache line.
const touchEvery = 100 * time.Microsecond

func (e *entry) touch(now Time) {
	if d := e.unused(now); d > touchEvery || d < -touchEvery {
		e.used.Store(int64(now))
	}
}

func (e *entry) unused(now Time) time.Duration { return now.Sub(Time(e.used.Load())) }

func (e *entry) waitedFor() bool { return e.limiter.line.Load() != nil }

// shard is a part of a table: an open-addressing hash table with linear
// probing that readers walk without a lock. A reader may miss an entry while a
// removal moves it; it then looks again under the lock.
type shard struct {
	slots atomic.Pointer[[]atomic.Pointer[entry]] // a power of two, never full

	mu     sync.Mutex // guards changes of the slots and what follows
	len    int
	hand   int // where the next search for a victim starts
	floors map[floorKey]*floor

	_ [64]byte // keeps neighbours off the cache line
}

const minSlots = 8

// home is where an entry would stand if there were no others. The low bits of
// the hash have chosen the shard.
func home(hash uint64, slots int) int { return int(hash>>32) & (slots - 1) }

func (sh *shard) find(hash uint64, key string) *entry {
	slots := *sh.slots.Load()
	i := home(hash, len(slots))
	for range slots {
		e := slots[i].Load()
		if e == nil {
			return nil
		}
		if e.hash == hash && e.key == key {
			return e
		}
		i = (i + 1) & (len(slots) - 1)
	}
	return nil
}

// all yields the entries. The lock is held and nothing is removed meanwhile.
func (sh *shard) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		slots := *sh.slots.Load()
		for i := range slots {
			if e := slots[i].Load(); e != nil && !yield(e) {
				return
			}
		}
	}
}

func (sh *shard) insert(e *entry) {
	if slots := len(*sh.slots.Load()); 3*(sh.len+1) > 2*slots {
		sh.resize(2 * slots)
	}
	place(*sh.slots.Load(), e)
	sh.len++
}

func place(slots []atomic.Pointer[entry], e *entry) {
	i := home(e.hash, len(slots))
	for slots[i].Load() != nil {
		i = (i + 1) & (len(slots) - 1)
	}
	slots[i].Store(e)
}

// resize moves everything into n slots. Readers go on in the old ones.
func (sh *shard) resize(n int) {
	slots := make([]atomic.Pointer[entry], n)
	if sh.slots.Load() != nil {
		for e := range sh.all() {
			place(slots, e)
		}
	}
	sh.slots.Store(&slots)
}

// remove takes e out and moves up those that stood behind it for want of a
// better place, so that no tombstone is needed.
func (sh *shard) remove(e *entry) {
	slots := *sh.slots.Load()
	mask := len(slots) - 1
	i := home(e.hash, len(slots))
	for slots[i].Load() != e {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; ; j = (j + 1) & mask {
		next := slots[j].Load()
		if next == nil {
			break
		}
		// next may move to i unless its home lies behind i.
		if (j-home(next.hash, len(slots)))&mask >= (j-i)&mask {
			slots[i].Store(next)
			i = j
		}
	}
	slots[i].Store(nil)
	sh.len--
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
		e := slots[sh.hand&(len(slots)-1)].Load()
		sh.hand++
		if e == nil || e.waitedFor() {
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
