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
// or two cache lines of keys and then the entry. What entries have that is of no
// fixed size stands in the bucket's text, so that neither they nor it need be
// looked at by the collector.
//
// Entries may hold an atomic number that is set later, in place: whoever sets
// it or calls insert or remove must hold the same lock, so that no copy loses it.
type index[T any] struct {
	root *[fan]*[fan]bucket[T]
	n    int
}

type bucket[T any] struct {
	keys []uint32 // ascending
	vals []T
	text string
}

func place(h uint64) (i, j int, key uint32) {
	return int(h >> 58), int(h >> 52 & (fan - 1)), uint32(h >> 20)
}

// find returns the entries whose hash has the same leading 44 bits: none, one,
// or very rarely more, for the caller to tell apart. Their text comes with them.
func (x *index[T]) find(h uint64) (vals []T, text string) {
	i, j, key := place(h)
	if x.root == nil || x.root[i] == nil {
		return nil, ""
	}
	b := &x.root[i][j]
	from := b.search(key)
	to := from
	for to < len(b.keys) && b.keys[to] == key {
		to++
	}
	return b.vals[from:to], b.text
}

// text returns that of a hash's bucket.
func (x *index[T]) text(h uint64) string {
	i, j, _ := place(h)
	if x.root == nil || x.root[i] == nil {
		return ""
	}
	return x.root[i][j].text
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
	return x.edit(h, 1, func(b *bucket[T], key uint32) bucket[T] { return b.insert(key, v) })
}

func (b *bucket[T]) insert(key uint32, v T) bucket[T] {
	at := b.search(key)
	return bucket[T]{
		keys: slices.Insert(exact(b.keys, 1), at, key),
		vals: slices.Insert(exact(b.vals, 1), at, v),
		text: b.text,
	}
}

// remove returns an index without the entry for which is reports true; there
// must be one.
func (x index[T]) remove(h uint64, is func(*T) bool) index[T] {
	return x.edit(h, -1, func(b *bucket[T], key uint32) bucket[T] { return b.remove(key, is) })
}

func (b *bucket[T]) remove(key uint32, is func(*T) bool) bucket[T] {
	at := b.search(key)
	for !is(&b.vals[at]) {
		at++
	}
	return bucket[T]{
		keys: slices.Delete(exact(b.keys, 0), at, at+1),
		vals: slices.Delete(exact(b.vals, 0), at, at+1),
		text: b.text,
	}
}

// edit returns an index with a changed copy of a bucket.
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

// from calls f for every entry whose hash is not below h where find looks, in the
// order of these, until it returns false. Each comes with the least hash from which
// it is found again.
func (x *index[T]) from(h uint64, f func(h uint64, v *T, text string) bool) {
	if x.root == nil {
		return
	}
	i, j, key := place(h)
	for ; i < fan; i, j, key = i+1, 0, 0 {
		if x.root[i] == nil {
			continue
		}
		for ; j < fan; j, key = j+1, 0 {
			b := &x.root[i][j]
			for at := b.search(key); at < len(b.vals); at++ {
				if !f(uint64(i)<<58|uint64(j)<<52|uint64(b.keys[at])<<20, &b.vals[at], b.text) {
					return
				}
			}
		}
	}
}

// all calls f for every entry, with the text that it stands in, until it returns
// false.
func (x *index[T]) all(f func(v *T, text string) bool) {
	if x.root == nil {
		return
	}
	for _, mid := range x.root {
		if mid == nil {
			continue
		}
		for j := range mid {
			for k := range mid[j].vals {
				if !f(&mid[j].vals[k], mid[j].text) {
					return
				}
			}
		}
	}
}

// builder makes an index of many entries at once.
type builder[T any] struct {
	root [fan]*[fan]building[T]
	n    int
}

type building[T any] struct {
	bucket[T]
	text []byte
}

// in returns the bucket that a hash belongs to, to append to its text.
func (b *builder[T]) in(h uint64) *building[T] {
	i, j, _ := place(h)
	if b.root[i] == nil {
		b.root[i] = new([fan]building[T])
	}
	return &b.root[i][j]
}

func (b *builder[T]) add(h uint64, v T) {
	k := b.in(h)
	_, _, key := place(h)
	k.keys = append(k.keys, key)
	k.vals = append(k.vals, v)
	b.n++
}

// last returns what add added last of those in a hash's bucket.
func (b *builder[T]) last(h uint64) *T {
	vals := b.in(h).vals
	return &vals[len(vals)-1]
}

// finish sorts what was added. It calls alike for every two entries whose hashes
// do not differ where an index looks.
func (b *builder[T]) finish(alike func(a, b *T, text string)) index[T] {
	x := index[T]{root: new([fan]*[fan]bucket[T]), n: b.n}
	for i, mid := range b.root {
		if mid == nil {
			continue
		}
		x.root[i] = new([fan]bucket[T])
		for j := range mid {
			k := &mid[j]
			sort.Sort(&k.bucket)
			made := bucket[T]{keys: exact(k.keys, 0), vals: exact(k.vals, 0), text: string(k.text)}
			x.root[i][j], mid[j] = made, building[T]{}
			for at := range made.vals {
				for before := at - 1; before >= 0 && made.keys[before] == made.keys[at]; before-- {
					alike(&made.vals[before], &made.vals[at], made.text)
				}
			}
		}
	}
	return x
}

// Len, Less and Swap are sort.Interface.
func (b *bucket[T]) Len() int           { return len(b.keys) }
func (b *bucket[T]) Less(i, j int) bool { return b.keys[i] < b.keys[j] }
func (b *bucket[T]) Swap(i, j int) {
	b.keys[i], b.keys[j] = b.keys[j], b.keys[i]
	b.vals[i], b.vals[j] = b.vals[j], b.vals[i]
}
