package consumers

import (
	"hash/maphash"
	"runtime"

	"github.com/tollgate-dev/tollgate/limits"
)

// arrears is what is left to do of changes that concern all: of plans, defaults or
// the whole set. Such a change is in force once its snapshot is. That has another
// age than the limiters of the consumers in use, and none of them is decided by
// before it was brought up to the change, by the next request of its consumer or by
// [Registry.Settle], whichever comes first. So neither a decision nor another
// change waits for a million consumers.
//
// It is guarded by Registry.mu.
type arrears struct {
	before *snapshot   // the set before this one, while it has live parts; it shares no entry with this one
	behind bool        // consumers of the snapshot in force may have live parts that are older
	ages   uint32      // how many snapshots ago all were brought up
	at     uint64      // those before it are, in before or else in the snapshot in force, by hash of id
	since  limits.Time // of the last change: as of then consumers are brought up, whenever it is done
	atOnce int         // how many consumers a change itself brings up
}

// settledAtOnce is how many consumers a change brings up before it returns, so
// that of a small set nothing is left to do.
const settledAtOnce = 1000

// piece is how many consumers are brought up in one go: a tenth of a millisecond's
// worth or so.
const piece = 64

// Settle does a piece of what changes left to do, and reports whether there is
// more. A change is in force without it; but until then who is gone may still wait
// for a turn, and the memory of what was replaced is held. Whoever calls it should
// pause in between, so that callers have the processor.
func (r *Registry) Settle() (more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.settlePiece()
}

// replaced begins with a set in the place of another. Of that, nothing may be left
// to do that concerns the set before it.
func (a *arrears) replaced(before *snapshot) {
	a.before, a.behind, a.at = before, false, 0
}

// changed puts changed plans or options in force.
func (r *Registry) changed(now limits.Time) {
	a := &r.arrears
	if a.behind = true; a.before == nil {
		a.at = 0
	}
	next := *r.snap.Load()
	r.putInForce(now, &next)
}

// putInForce makes a snapshot the one in force. It lets go of the lock now and then.
func (r *Registry) putInForce(now limits.Time, next *snapshot) {
	a := &r.arrears
	a.since = now
	next.age = r.snap.Load().age + 1
	r.snap.Store(next)
	a.ages++
	for done := 0; done < a.atOnce || a.ages == maxAges; done += piece { // who is as old as can be would soon seem new
		if !r.settleSome() {
			break
		}
	}
}

// maxAges is how many ages can be told apart.
const maxAges = 1<<ageBits - 1

// settleSome is Settle for who holds the lock, which it lets go of.
func (r *Registry) settleSome() (more bool) {
	more = r.settlePiece()
	r.mu.Unlock()
	runtime.Gosched() // who waits for the lock goes first
	r.mu.Lock()
	return more
}

func (r *Registry) settlePiece() (more bool) {
	a, s := &r.arrears, r.snap.Load()
	from := a.before
	if from == nil {
		from = s
	}
	if r.seats.given != 0 || r.callers.given != 0 { // else nobody was asked for yet
		n := 0
		from.consumers.from(a.at, func(h uint64, slot *consumerSlot, text string) bool {
			if more = n == piece; more {
				a.at = h
				return false
			}
			n++
			r.bringUp(from, s, entryOf(slot, text))
			return true
		})
	}
	switch {
	case more:
		return true
	case a.before != nil && a.behind:
		a.before, a.at = nil, 0
		return true
	}
	a.before, a.behind, a.ages = nil, false, 0
	return false
}

// settle brings a consumer up to the snapshot in force.
func (r *Registry) settle(owner uint64, id string) {
	a, s := &r.arrears, r.snap.Load()
	if a.before != nil {
		if old := a.before.consumer(owner, id); !old.nobody() {
			r.bringUp(a.before, s, old)
		}
	}
	if a.behind {
		if old := s.consumer(owner, id); !old.nobody() {
			r.bringUp(s, s, old)
		}
	}
}

// bringUp takes what a consumer has in one snapshot along into another, where it
// is up to date then. Nothing of it is left in the first.
func (r *Registry) bringUp(from, to *snapshot, old consumerEntry) {
	r.rebuild(r.arrears.since, from, to, old)
	if from == to {
		return
	}
	owner := maphash.String(r.seed, old.record.id())
	for k := range keysOf(old.record) {
		if e := from.owned(k, owner); e != nil {
			e.seat.Store(0)
		}
	}
	old.slot.caller.Store(0)
}
