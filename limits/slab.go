package limits

import (
	"sync/atomic"
	"unsafe"
)

// SlabSize is the number of limiters in a [Slab], which has 64 KiB: smaller
// pieces of memory do not begin where a cache line does.
const SlabSize = 1023

// Slab is limiters in one piece of memory, for who keeps many. They have no
// pointers in them: what they refer to is known at the slab's beginning, and so a
// million of them are nothing that the collector looks at. Each fills a cache
// line of its own.
//
// Make one with [NewSlab], and its limiters with [Limiter.Init] and
// [Limiter.Restore], of which the slab must see one at a time. The limiters
// themselves are as safe for concurrent use as others.
type Slab struct {
	anchor   slabAnchor
	_        [64 - unsafe.Sizeof(slabAnchor{})%64]byte
	limiters [SlabSize]Limiter
}

// NewSlab returns a slab of limiters that are still to be made.
func NewSlab() *Slab {
	s := new(Slab)
	for i := range s.limiters {
		s.anchor.settle(&s.limiters[i], i)
	}
	return s
}

// At returns the limiter i of the slab.
func (s *Slab) At(i int) *Limiter { return &s.limiters[i] }

// anchor is what a bucket that stands alone points to. It stands before the bucket
// in the same piece of memory.
type anchor struct {
	spec atomic.Pointer[Spec]
	more atomic.Pointer[extra]
}

// slabAnchor is the anchor of many buckets. Few of them have limits other than the
// first one's, or any extra.
type slabAnchor struct {
	spec  atomic.Pointer[Spec]                    // that of number 1
	specs atomic.Pointer[[]atomic.Pointer[Spec]]  // those of the numbers from 2 on
	more  atomic.Pointer[[]atomic.Pointer[extra]] // by the buckets' places; nil while none has any
	uses  []int32                                 // of each number, by the slab's buckets
	size  int                                     // buckets
}

// lone is a bucket that stands alone.
type lone struct {
	//lint:ignore U1000 reached through bucket.back
	anchor
	bucket
}

// loneLimiter is a limiter that stands alone.
type loneLimiter struct {
	//lint:ignore U1000 reached through bucket.back
	anchor
	Limiter
}

func newBucket() *bucket {
	l := new(lone)
	l.back = uint16(unsafe.Offsetof(l.bucket))
	return &l.bucket
}

func newLimiter() *Limiter {
	l := new(loneLimiter)
	l.first.back = uint16(unsafe.Offsetof(l.Limiter))
	return &l.Limiter
}

// settle makes h the anchor of a limiter that stands behind it.
func (h *slabAnchor) settle(l *Limiter, place int) {
	l.first.back = uint16(uintptr(unsafe.Pointer(&l.first)) - uintptr(unsafe.Pointer(h)))
	h.size = place + 1
	l.first.place = uint16(h.size)
}

// alone returns the anchor of a bucket whose place is 0. That it lies in the same
// piece of memory is what makes this a use of unsafe.Add that the language
// defines.
func (b *bucket) alone() *anchor { return (*anchor)(unsafe.Add(unsafe.Pointer(b), -int(b.back))) }

// slab is alone for a bucket with a place.
func (b *bucket) slab() *slabAnchor {
	return (*slabAnchor)(unsafe.Add(unsafe.Pointer(b), -int(b.back)))
}

// spec returns the limit that b is under.
func (b *bucket) spec() *Spec {
	if b.place == 0 {
		return b.alone().spec.Load()
	}
	return b.slab().numbered(b.limit.Load())
}

func (h *slabAnchor) numbered(n uint32) *Spec {
	if n < 2 {
		return h.spec.Load()
	}
	return (*h.specs.Load())[n-2].Load()
}

// setSpec puts b, which nobody decides by yet, under a limit.
func (b *bucket) setSpec(s *Spec) {
	if b.place == 0 {
		b.alone().spec.Store(s)
		return
	}
	h, was := b.slab(), b.limit.Load()
	if was > 0 {
		h.uses[was-1]--
	}
	b.limit.Store(h.number(s))
}

// number counts one more use of a limit, and returns its number.
func (h *slabAnchor) number(s *Spec) uint32 {
	free := -1
	for i, uses := range h.uses {
		if h.numbered(uint32(i+1)) == s {
			h.uses[i]++
			return uint32(i + 1)
		}
		if uses == 0 {
			free = i
		}
	}
	if free < 0 {
		free = len(h.uses)
		h.uses = append(h.uses, 0)
	}
	h.uses[free] = 1
	if free == 0 {
		h.spec.Store(s)
		return 1
	}
	var specs []atomic.Pointer[Spec]
	if all := h.specs.Load(); all != nil {
		specs = *all
	}
	if free > len(specs) { // who reads goes on with the old ones
		more := make([]atomic.Pointer[Spec], max(free, 2*len(specs)))
		for i := range specs {
			more[i].Store(specs[i].Load())
		}
		specs = more
	}
	specs[free-1].Store(s)
	h.specs.Store(&specs)
	return uint32(free + 1)
}

// more returns what b has besides a limit and its words, or nil.
func (b *bucket) more() *extra {
	if b.place == 0 {
		return b.alone().more.Load()
	}
	if all := b.slab().more.Load(); all != nil {
		return (*all)[b.place-1].Load()
	}
	return nil
}

// setMore replaces what more returns, of a bucket that nobody decides by yet.
func (b *bucket) setMore(x *extra) {
	if b.place == 0 {
		b.alone().more.Store(x)
		return
	}
	if x != nil || b.slab().more.Load() != nil {
		b.slab().extras()[b.place-1].Store(x)
	}
}

// extra returns what more does, made if there is nothing yet.
func (b *bucket) extra() *extra {
	for {
		if m := b.more(); m != nil {
			return m
		}
		if b.place == 0 {
			b.alone().more.CompareAndSwap(nil, new(extra))
		} else {
			b.slab().extras()[b.place-1].CompareAndSwap(nil, new(extra))
		}
	}
}

func (h *slabAnchor) extras() []atomic.Pointer[extra] {
	all := h.more.Load()
	if all == nil {
		fresh := make([]atomic.Pointer[extra], h.size)
		h.more.CompareAndSwap(nil, &fresh)
		all = h.more.Load()
	}
	return *all
}
