package consumers

import (
	"slices"
	"sort"
)

// fan is the number of branches on each of an index's two levels.
const fan = 64

// index finds entries by a 64-bit hash. It is persistent: insert and remove
// return a new index and leave the old one as it was, copying one bucket (a
// 4096th of the entries) and the path to it. The zero value is empty.
//
// A bucket keeps its entries sorted by 32 bits of their hash. Hashes are spread
// evenly, so an entry stands near its share of the way, and a search reads one
// or two cache lines of keys and then the entry.
//
// Entries may hold an atomic pointer that is set later, in place: whoever sets
// it or calls insert or remove must hold the same lock, so that no copy loses it.
type index[T any] struct {
	root *[fan]*[fan]bucket[T]
	n    int
}

type bucket[T any] struct {
	keys []uint32 // ascending
	vals []T
}

func place(h uint64) (i, j int, key uint32) {
	return int(h >> 58), int(h >> 52 & (fan - 1)), uint32(h >> 20)
}

// find returns the entries whose hash has the same leading 44 bits: none, one,
// or very rarely more, for the caller to tell apart.
func (x *index[T]) find(h uint64) []T {
	i, j, key := place(h)
	if x.root == nil || x.root[i] == nil {
		return nil
	}
	b := &x.root[i][j]
	from := b.search(key)
	to := from
	for to < len(b.keys) && b.keys[to] == key {
		to++
	}
	return b.vals[from:to]
}

// search returns the position of the first key that is not below key.
func (b *bucket[T]) search(key uint32) int {
	i := int(uint64(key) * uint64(len(b.keys)) >> 32)
	for i > 0 && b.keys[i-1] >= key {
		i--
	}
	for i < len(b.keys) && b.keys[i] < key {
		i++
	}
	return i
}

// insert returns an index that also holds v.
func (x index[T]) insert(h uint64, v T) index[T] {
	return x.edit(h, 1, func(b *bucket[T], key uint32) bucket[T] {
		at := b.search(key)
		return bucket[T]{
			keys: slices.Insert(exact(b.keys, 1), at, key),
			vals: slices.Insert(exact(b.vals, 1), at, v),
		}
	})
}

// remove returns an index without the entry for which is reports true; there
// must be one.
func (x index[T]) remove(h uint64, is func(*T) bool) index[T] {
	return x.edit(h, -1, func(b *bucket[T], key uint32) bucket[T] {
		at := b.search(key)
		for !is(&b.vals[at]) {
			at++
		}
		return bucket[T]{
			keys: slices.Delete(exact(b.keys, 0), at, at+1),
			vals: slices.Delete(exact(b.vals, 0), at, at+1),
		}
	})
}

func (x index[T]) edit(h uint64, delta int, change func(*bucket[T], uint32) bucket[T]) index[T] {
	i, j, key := place(h)
	root, mid := new([fan]*[fan]bucket[T]), new([fan]bucket[T])
	if x.root != nil {
		*root = *x.root
	}
	if root[i] != nil {
		*mid = *root[i]
	}
	mid[j] = change(&mid[j], key)
	root[i] = mid
	return index[T]{root: root, n: x.n + delta}
}

// exact copies s with room for just so many more.
func exact[E any](s []E, more int) []E {
	c := make([]E, len(s), len(s)+more)
	copy(c, s)
	return c
}

// all calls f for every entry until it returns false.
func (x *index[T]) all(f func(*T) bool) {
	if x.root == nil {
		return
	}
	for _, mid := range x.root {
		if mid == nil {
			continue
		}
		for j := range mid {
			for k := range mid[j].vals {
				if !f(&mid[j].vals[k]) {
					return
				}
			}
		}
	}
}

// builder makes an index of many entries at once.
type builder[T any] struct {
	root [fan]*[fan]bucket[T]
	n    int
}

func (b *builder[T]) add(h uint64, v T) {
	i, j, key := place(h)
	if b.root[i] == nil {
		b.root[i] = new([fan]bucket[T])
	}
	k := &b.root[i][j]
	k.keys = append(k.keys, key)
	k.vals = append(k.vals, v)
	b.n++
}

// finish sorts what was added, and gives the entries of each bucket to pack.
// same reports whether two entries may not stand beside each other; finish
// returns every such pair it meets.
func (b *builder[T]) finish(pack func([]T), same func(a, b *T) bool) (x index[T], twice []*T) {
	for _, mid := range b.root {
		if mid == nil {
			continue
		}
		for j := range mid {
			k := &mid[j]
			sort.Sort(k)
			*k = bucket[T]{keys: exact(k.keys, 0), vals: exact(k.vals, 0)}
			pack(k.vals)
			for at := range k.vals {
				for before := at - 1; before >= 0 && k.keys[before] == k.keys[at]; before-- {
					if same(&k.vals[before], &k.vals[at]) {
						twice = append(twice, &k.vals[before], &k.vals[at])
					}
				}
			}
		}
	}
	return index[T]{root: &b.root, n: b.n}, twice
}

// Len, Less and Swap are sort.Interface.
func (b *bucket[T]) Len() int           { return len(b.keys) }
func (b *bucket[T]) Less(i, j int) bool { return b.keys[i] < b.keys[j] }
func (b *bucket[T]) Swap(i, j int) {
	b.keys[i], b.keys[j] = b.keys[j], b.keys[i]
	b.vals[i], b.vals[j] = b.vals[j], b.vals[i]
}
