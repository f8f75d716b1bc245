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
	limiter limits.Limiter        // of a plain token, or one that was
	grant   atomic.Pointer[grant] // its own, or what stands for the plain ones of its terms
	state   state
}

type seats struct {
	slabs  atomic.Pointer[[]atomic.Pointer[slab]]
	taken  uint32   // numbers that were ever given out, 0 included
	vacant []uint32 // those that wait longest first
}

// slabSize is how many seats fill the allocator's class of 8 KiB.
const slabSize = 85

type slab [slabSize]seat

// resting is how many seats are kept waiting, so that none is used again at once
// while a decision may still be under way.
const resting = 4096

// at returns the seat of a number.
func (s *seats) at(number uint32) *seat {
	return &(*s.slabs.Load())[number/slabSize].Load()[number%slabSize]
}

// take returns a seat that nobody has.
func (s *seats) take() (number uint32, st *seat) {
	if len(s.vacant) > resting {
		number, s.vacant = s.vacant[0], s.vacant[1:]
		return number, s.at(number)
	}
	s.taken = max(s.taken, 1)
	number = s.taken
	s.taken++
	var slabs []atomic.Pointer[slab]
	if all := s.slabs.Load(); all != nil {
		slabs = *all
	}
	n := int(number / slabSize)
	if n >= len(slabs) {
		more := make([]atomic.Pointer[slab], max(1, 2*len(slabs)))
		for i := range slabs {
			more[i].Store(slabs[i].Load())
		}
		slabs = more
		s.slabs.Store(&more)
	}
	if slabs[n].Load() == nil {
		slabs[n].Store(new(slab))
	}
	return number, s.at(number)
}

// leave lets a seat wait for another token. Its limiter is closed.
func (s *seats) leave(number uint32) {
	s.at(number).state.next()
	s.vacant = append(s.vacant, number)
}
