package consumers

import (
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
)

// seat is the live part of a secret that was used. Seats have numbers, from 1
// on, and are allocated in slabs: so an index of a million secrets has nothing in
// it that the collector need look at, and it looks at a million limiters one after
// the other in place of an object here and one there.
//
// Most tokens are plain: one limit, per token, no labels, one secret. All that
// there is of such a token is its limiter, here, and its consumer's record. Any
// other has a grant of its own.
//
// Seats are used again. All that a late reader may look at is atomic.
type seat struct {
	limiter limits.Limiter // of a plain token, or one that was
	state   state
}

// numbered is values that are found by numbers, in slabs. Who makes them holds a
// lock; at may be called by anybody.
type numbered[T any] struct {
	slabs atomic.Pointer[[]atomic.Pointer[[slabSize]T]]
}

// slabSize is how many seats fill the allocator's class of 8 KiB.
const slabSize = 93

// at returns the value of a number, nil if it was never made.
func (n *numbered[T]) at(number uint32) *T {
	slabs := n.slabs.Load()
	if slabs == nil || int(number/slabSize) >= len(*slabs) {
		return nil
	}
	if s := (*slabs)[number/slabSize].Load(); s != nil {
		return &s[number%slabSize]
	}
	return nil
}

// make is at for whoever may make it.
func (n *numbered[T]) make(number uint32) *T {
	var slabs []atomic.Pointer[[slabSize]T]
	if all := n.slabs.Load(); all != nil {
		slabs = *all
	}
	at := int(number / slabSize)
	if at >= len(slabs) {
		more := make([]atomic.Pointer[[slabSize]T], max(at+1, 2*len(slabs)))
		for i := range slabs {
			more[i].Store(slabs[i].Load())
		}
		slabs = more
		n.slabs.Store(&more)
	}
	if slabs[at].Load() == nil {
		slabs[at].Store(new([slabSize]T))
	}
	return &slabs[at].Load()[number%slabSize]
}

// numbers gives out numbers from 1 on, and those that came back again.
type numbers struct {
	given   uint32
	vacant  []uint32 // those that wait longest first
	resting int      // so many are kept waiting, so that none is given out again while it may still be looked at
}

func (n *numbers) take() uint32 {
	if len(n.vacant) > n.resting {
		number := n.vacant[0]
		n.vacant = n.vacant[1:]
		return number
	}
	n.given++
	return n.given
}

func (n *numbers) leave(number uint32) { n.vacant = append(n.vacant, number) }

// resting is for how many changes a seat, or a caller, is not used again.
const resting = 4096

// seats is where all that is live is found.
type seats struct {
	numbered[seat]
	numbers
	grants numbered[atomic.Pointer[grant]] // by the numbers of seats; nil where the token is plain
}

// grant returns the grant of a seat, nil where its token is plain.
func (s *seats) grant(number uint32) *grant {
	if g := s.grants.at(number); g != nil {
		return g.Load()
	}
	return nil
}

// leave lets a seat wait for another token. Its limiter is closed.
func (s *seats) leave(number uint32) {
	s.at(number).state.next()
	if g := s.grants.at(number); g != nil {
		g.Store(nil)
	}
	s.numbers.leave(number)
}

// callers is where consumers that are not plain are found.
type callers struct {
	numbered[atomic.Pointer[caller]]
	numbers
}
