package consumers

import (
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
)

// A seat is the live part of a secret that was used: a limiter, whose note is the
// seat's state. Seats have numbers, from 1 on, and stand in slabs: so neither they
// nor an index of a million secrets have anything in them that the collector need
// look at.
//
// Most tokens are plain: one limit, per token, no labels, one secret. All that
// there is of such a token is its seat and its consumer's record. Any other has a
// grant of its own, and its seat is but the state.
//
// Seats are used again. All that a late reader may look at is atomic.

// stateOf returns the state of a seat.
func stateOf(seat *limits.Limiter) state { return state{&seat.Note} }

// slabs are found by their numbers. Who makes them holds a lock; at may be called
// by anybody.
type slabs[S any] struct {
	all atomic.Pointer[[]atomic.Pointer[S]]
}

// at returns a slab, nil if it was never made.
func (x *slabs[S]) at(n int) *S {
	if all := x.all.Load(); all != nil && n < len(*all) {
		return (*all)[n].Load()
	}
	return nil
}

// make is at for whoever may make it.
func (x *slabs[S]) make(n int, fresh func() *S) *S {
	var all []atomic.Pointer[S]
	if p := x.all.Load(); p != nil {
		all = *p
	}
	if n >= len(all) {
		more := make([]atomic.Pointer[S], max(n+1, 2*len(all)))
		for i := range all {
			more[i].Store(all[i].Load())
		}
		all = more
		x.all.Store(&more)
	}
	if all[n].Load() == nil {
		all[n].Store(fresh())
	}
	return all[n].Load()
}

// numbered is values that are found by numbers, in slabs.
type numbered[T any] struct{ slabs[[slabSize]T] }

const slabSize = 128

// at returns the value of a number, nil if it was never made.
func (n *numbered[T]) at(number uint32) *T {
	if s := n.slabs.at(int(number / slabSize)); s != nil {
		return &s[number%slabSize]
	}
	return nil
}

// make is at for whoever may make it.
func (n *numbered[T]) make(number uint32) *T {
	s := n.slabs.make(int(number/slabSize), func() *[slabSize]T { return new([slabSize]T) })
	return &s[number%slabSize]
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

// resting is for how many changes a seat, or a caller, is not used again: when the
// limits of all change, for a tenth of a second or so.
const resting = 1 << 16

// seats is where all that is live is found.
type seats struct {
	slabs[limits.Slab]
	numbers
	grants numbered[atomic.Pointer[grant]] // by the numbers of seats; nil where the token is plain
}

// at returns a seat that was made.
func (s *seats) at(number uint32) *limits.Limiter {
	return s.slabs.at(int(number / limits.SlabSize)).At(int(number % limits.SlabSize))
}

// make is at for whoever may make it.
func (s *seats) make(number uint32) *limits.Limiter {
	return s.slabs.make(int(number/limits.SlabSize), limits.NewSlab).At(int(number % limits.SlabSize))
}

// grant returns the grant of a seat, nil where its token is plain.
func (s *seats) grant(number uint32) *grant {
	if g := s.grants.at(number); g != nil {
		return g.Load()
	}
	return nil
}

// take gives out a number. A seat that somebody still waits for is left to them.
func (s *seats) take() uint32 {
	for {
		number := s.numbers.take()
		if seat := s.slabs.at(int(number / limits.SlabSize)); seat == nil || seat.At(int(number%limits.SlabSize)).Waiting() == 0 {
			return number
		}
	}
}

// leave lets a seat wait for another token. Its limiter is closed.
func (s *seats) leave(number uint32) {
	stateOf(s.at(number)).next()
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
