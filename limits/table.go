package limits

import (
	"hash/maphash"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Table holds live limiters by key, bounded in number, for keys that callers
// choose. It forgets what it can forget for nothing first: limiters that are
// full again. When there are more keys than it holds and none is full, it
// forgets the one that is worth least and keeps what was used as a floor, from
// which later keys of the same limit start; so a key that returns never finds
// more than it would have found had it stayed, and under pressure new keys are
// refused their burst before an exhausted one is forgotten. A limit's warm-up
// is for limiters that are kept, as a token's; in a table it counts as over.
//
// All methods are safe for concurrent use. Finding a key that is there takes
// no lock and allocates nothing.
type Table struct {
	seeds     [2]maphash.Seed // of its own, so that nobody can choose keys that collide
	size      int64
	idle      time.Duration
	live      atomic.Int64
	evictions atomic.Uint64
	share     func(now Time, key string, l *Limiter)
	recalled  recalled
	shards    []shard // a power of two

	noting  sync.Mutex // guards what follows: where Used goes on
	shardAt int
	rackAt  int
	round   int
}

// TableOptions bound a table.
type TableOptions struct {
	Size int           // limiters at most; 0 means 100000
	Idle time.Duration // forget a limiter unused for so long, once it is full; 0 means an hour

	// Share, if there is one, is called with each limiter that is made, before
	// anybody uses it: to give it a lease. The key must not be kept.
	Share func(now Time, key string, l *Limiter)
}

const (
	defaultSize = 100_000
	defaultIdle = time.Hour

	maxShards = 256
	// A shard should not be so small that chance fills it long before others.
	minPerShard = 256
)

// NewTable returns an empty table.
func NewTable(o TableOptions) *Table {
	if o.Size <= 0 {
		o.Size = defaultSize
	}
	if o.Idle <= 0 {
		o.Idle = defaultIdle
	}
	n := min(max(o.Size/minPerShard, 1), maxShards)
	t := &Table{
		seeds:  [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		size:   int64(o.Size),
		idle:   o.Idle,
		share:  o.Share,
		shards: make([]shard, 1<<(bits.Len(uint(n))-1)),
	}
	for i := range t.shards {
		t.shards[i].resize(minSlots)
		t.shards[i].racks.Store(new([]rack))
	}
	return t
}

// Limiter returns the limiter of key, made on first use. The key is copied
// when it is kept. A spec other than the one in force is set.
//
// The limiter is meant for one decision, made at once: a table under pressure
// may forget a key as soon as it was not used for a millisecond, and what is
// taken from a forgotten limiter is not remembered. One that requests wait for
// in a [Queue] is not forgotten. These limiters may come on top of the size.
func (t *Table) Limiter(now Time, key []byte, s *Spec) *Limiter {
	return t.LimiterString(now, unsafe.String(unsafe.SliceData(key), len(key)), s)
}

// LimiterString is Limiter for a key that is a string.
func (t *Table) LimiterString(now Time, key string, s *Spec) *Limiter {
	h := t.hash(key)
	sh := t.shard(h)
	e := sh.find(h)
	if e.entry == nil || e.unused(now) > t.idle {
		e = t.make(now, sh, h, key, s)
	}
	e.touch(now)
	l := &e.limiter
	if was := l.Spec(); was != s && e.is(h) {
		sh.respec(now, was, s)
		l.SetSpec(now, s)
	}
	return l
}

// Used calls f with the limiters that were looked up since it was called with
// them last, or are waited for, and with what names them over restarts: what a
// store has to write, for [Table.Recall]. It stops at about as many as most and
// goes on with the others the next time; what it costs is what was used and not
// what is there. A decision follows its look-up: who was looked up just now comes
// the next time too. f must not use the table. Used returns how often it has come
// to the table's end.
func (t *Table) Used(now Time, most int, f func(KeyHash, *Limiter)) (round int) {
	t.noting.Lock()
	defer t.noting.Unlock()
	for range len(t.shards) + 1 { // the first one's second half last
		var n int
		t.rackAt, n = t.shards[t.shardAt].used(now, t.rackAt, most, f)
		if most -= n; most <= 0 {
			break
		}
		if t.shardAt++; t.shardAt == len(t.shards) {
			t.shardAt = 0
			t.round++
		}
	}
	return t.round
}

// UseAll has Used call f with all limiters once more.
func (t *Table) UseAll() {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		racks := *sh.racks.Load()
		for j := range racks {
			racks[j].dirty.Store(1<<64 - 1)
		}
		sh.mu.Unlock()
	}
}

// overlap is how long after a look-up its decision has certainly been made.
const overlap = 100 * time.Millisecond

// Len returns how many limiters are live.
func (t *Table) Len() int { return int(t.live.Load()) }

// Evictions returns how many were forgotten to make room.
func (t *Table) Evictions() uint64 { return t.evictions.Load() }

// Expire forgets limiters idle for longer than the table's bound, and returns
// how many. One that is not full yet stays: forgetting it would give back what
// was used. Call it now and then; a key that returns after such a time starts
// anew in any case.
func (t *Table) Expire(now Time) int {
	n := 0
	t.recalled.expire(now)
	for i := range t.shards {
		n += t.expireShard(now, &t.shards[i])
	}
	return n
}

func (t *Table) expireShard(now Time, sh *shard) int {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	var gone []*entry
	for e := range sh.all() {
		if t.expired(now, e.entry) {
			gone = append(gone, e.entry)
		}
	}
	for _, e := range gone {
		sh.remove(e)
	}
	t.live.Add(int64(-len(gone)))
	sh.expireFloors(now)
	return len(gone)
}

// expired tells whether e can start anew: nobody used it for long, and it
// would not be the fuller for it.
func (t *Table) expired(now Time, e *entry) bool {
	return e.unused(now) > t.idle && !e.waitedFor() && e.limiter.Peek(now, 1).Reset == 0
}

// hash returns a key as the table has it. place is never 0.
func (t *Table) hash(key string) hashed {
	return hashed{maphash.String(t.seeds[0], key) | 1<<63, maphash.String(t.seeds[1], key)}
}

func (t *Table) shard(h hashed) *shard {
	return &t.shards[h.place&uint64(len(t.shards)-1)]
}

// make returns the entry of a key that was not found, or is stale.
func (t *Table) make(now Time, sh *shard, h hashed, key string, s *Spec) spot {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	// The key may be there after all: made by another just now, or missed
	// because removing a neighbour moved it.
	if e := sh.find(h); e.entry != nil {
		if !t.expired(now, e.entry) {
			return e
		}
		sh.remove(e.entry)
		t.live.Add(-1)
	}
	t.makeRoom(now, sh) // first, so that the new key starts from the floor of the one that goes
	number, e := sh.insert()
	e.name = HashKey(key)
	st, known := t.recalled.take(now, e.name)
	if !known {
		st, known = sh.floor(now, s)
	}
	if known {
		e.limiter.Restore(s, now, st)
	} else {
		e.limiter.plantWarm(s, now)
	}
	if t.share != nil {
		t.share(now, strings.Clone(key), &e.limiter) // or every look-up's key would escape
	}
	e.used.Store(int64(now.Add(-2 * touchEvery))) // so that touch notes it
	e.tag.Store(h.tag)
	e.place.Store(h.place)
	sh.publish(h, number)
	return sh.at(slotOf(h, number))
}

// makeRoom counts one more limiter, and forgets others when those are too many.
// The shard's lock is held. Room is made in the shard at hand, whoever filled
// the others; should it have nothing to give, the table is over its bound until
// the next new key.
func (t *Table) makeRoom(now Time, sh *shard) {
	t.live.Add(1)
	for t.live.Load() > t.size {
		victim := sh.victim(now)
		if victim == nil {
			return
		}
		sh.forget(now, victim)
		t.live.Add(-1)
		t.evictions.Add(1)
	}
}
