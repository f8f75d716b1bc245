package consumers

import (
	"hash/maphash"
	"iter"
)

// What follows is for sources that are compared with a registry piece by piece.

// Stands reports whether a consumer is in force just as it is given.
func (r *Registry) Stands(c *Consumer) bool {
	s := r.snap.Load()
	e := s.consumer(maphash.String(r.seed, c.ID), c.ID)
	if e.nobody() || e.record != newRecord(c) {
		return false
	}
	for _, h := range secretsOf(c) { // of which the record holds a part
		if s.token(&h) == nil {
			return false
		}
	}
	return true
}

// IDs yields the ids of all consumers, in no order.
func (r *Registry) IDs() iter.Seq[string] {
	s := r.snap.Load()
	return func(yield func(string) bool) {
		s.everyone(func(e consumerEntry) bool { return yield(e.record.id()) })
	}
}
