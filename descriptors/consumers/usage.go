package consumers

import (
	"container/heap"
	"hash/maphash"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Usage is how much of one limit is used.
type Usage struct {
	Token     string       // the token's id; empty for calls by the consumer's id and for limits per consumer
	Spec      *limits.Spec // the limit
	Remaining int64        // requests of cost 1 that would be admitted right now
	Reset     time.Duration
	Admitted  int64 // since the limiter was made
	Refused   int64
}

// Usage returns the use of every limit of a consumer, and false if there is no
// such consumer. Limits that nobody has used yet show as they would be made.
func (r *Registry) Usage(now limits.Time, id string) ([]Usage, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Usage
	ok := r.eachLimiter(now, id, func(token string, l *limits.Limiter) {
		d, u := l.Peek(now, 1), l.Usage()
		all = append(all, Usage{Token: token, Spec: l.Spec(), Remaining: d.Remaining, Reset: d.Reset, Admitted: u.Admitted, Refused: u.Refused})
	})
	return all, ok
}

// ResetUsage fills all buckets of a consumer again. It returns false if there
// is no such consumer.
func (r *Registry) ResetUsage(now limits.Time, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.eachLimiter(now, id, func(_ string, l *limits.Limiter) { l.Reset(now) })
}

// eachLimiter visits the limiters of a consumer, made where nobody has called
// yet: an admin's question costs what a request would.
func (r *Registry) eachLimiter(now limits.Time, id string, visit func(token string, l *limits.Limiter)) bool {
	s, owner := r.snap.Load(), maphash.String(r.seed, id)
	e := s.consumer(owner, id)
	if e.nobody() {
		return false
	}
	r.settle(owner, id)
	v := e.record.view()
	if r.callerOf(e) == nil && r.eachPlain(now, s, owner, &v, visit) {
		return true
	}
	c := r.live(now, s, owner, e)
	own := func(token string, ls []*limits.Limiter, scope scope) {
		for i, l := range ls {
			if scope.owns(c.terms.limits[i]) {
				visit(token, l)
			}
		}
	}
	for t := range v.eachToken {
		had := s.seated(t, owner)
		if had == [2]uint32{} {
			r.grantToken(s, owner, c, t, v.disabled, r.limiters(now, c, scopeToken, t.id), had)
			had = s.seated(t, owner)
		}
		g := r.seats.grant(max(had[0], had[1]))
		own(t.id, g.limiters, scopeToken)
		if g.durable() {
			r.journal.add(g)
		}
	}
	if c.shared != nil {
		own("", *c.shared, scopeConsumer)
	}
	if g := c.byID.Load(); g != nil {
		own("", g.limiters, scopeID)
		if g.durable() {
			r.journal.add(g)
		}
	}
	return true
}

// eachPlain is eachLimiter for a consumer whose tokens are all plain, or false.
func (r *Registry) eachPlain(now limits.Time, s *snapshot, owner uint64, v *view, visit func(token string, l *limits.Limiter)) bool {
	for t := range v.eachToken {
		e := s.owned(t.key, owner)
		if e == nil || e.seat.Load() == 0 && !r.seatPlain(now, s, e, v, t) {
			return false
		}
	}
	for t := range v.eachToken {
		number := s.owned(t.key, owner).seat.Load()
		seat := r.seats.at(number)
		visit(t.id, seat)
		if stateOf(seat).Load()&durablePlain != 0 {
			r.journal.watch(number, seat, r.termsOf(seat), v.id, t.id)
		}
	}
	return true
}

// Each calls f for every grant that has been asked for, in no order, until it
// returns false. A token in rotation may have two, with the same limiters.
func (r *Registry) Each(f func(Grant) bool) {
	for r.Settle() {
	}
	s := r.snap.Load()
	goes := true
	s.tokens.all(func(e *tokenEntry, _ string) bool {
		number := e.seat.Load()
		if number == 0 {
			return true
		}
		if g := r.seats.grant(number); g != nil {
			goes = f(g.public())
		} else if c, v, t := s.holder(e); !c.nobody() {
			goes = f(Grant{Consumer: Caller{ID: v.id}, Token: t.id, only: r.seats.at(number)})
		}
		return goes
	})
	if !goes {
		return
	}
	s.everyone(func(e consumerEntry) bool {
		if c := r.callerOf(e); c != nil {
			if g := c.byID.Load(); g != nil {
				return f(g.public())
			}
		}
		return true
	})
}

// Lookup returns a consumer as the registry knows it: without the times at
// which its tokens were made.
func (r *Registry) Lookup(id string) (Consumer, bool) {
	s, owner := r.snap.Load(), maphash.String(r.seed, id)
	e := s.consumer(owner, id)
	if e.nobody() {
		return Consumer{}, false
	}
	return s.describe(e, owner), true
}

// List returns up to n consumers in the order of their ids, beginning behind
// the id after.
func (r *Registry) List(after string, n int) []Consumer {
	return r.Search("", after, n)
}

// Search is List of the consumers whose id has text in it, in lower-case or
// upper-case letters; text is in lower case.
func (r *Registry) Search(text, after string, n int) []Consumer {
	s := r.snap.Load()
	var h entryHeap
	s.everyone(func(e consumerEntry) bool {
		id := e.record.id()
		switch {
		case id <= after || !strings.Contains(strings.ToLower(id), text):
		case len(h) < n:
			heap.Push(&h, e)
		case n > 0 && id < h[0].record.id():
			h[0] = e
			heap.Fix(&h, 0)
		}
		return true
	})
	list := make([]Consumer, len(h))
	for i := len(h) - 1; i >= 0; i-- {
		e := heap.Pop(&h).(consumerEntry)
		list[i] = s.describe(e, maphash.String(r.seed, e.record.id()))
	}
	return list
}

func (s *snapshot) describe(e consumerEntry, owner uint64) Consumer {
	v := e.record.view()
	ls, _ := decodeLimits(v.limits) // what encodeLimits wrote
	c := Consumer{ID: v.id, Plan: v.plan, Limits: ls, Labels: decodeLabels(v.labels), Disabled: v.disabled, Version: e.record.version()}
	for t := range v.eachToken {
		token := Token{ID: t.id}
		if e := s.owned(t.key, owner); e != nil {
			token.Hash = e.hash
		}
		if t.expires != never {
			token.Expires = t.expires.Std()
		}
		if e := s.owned(t.previous, owner); e != nil && t.previousUntil != 0 {
			token.Previous, token.PreviousUntil = e.hash, t.previousUntil.Std()
		}
		c.Tokens = append(c.Tokens, token)
	}
	return c
}

// entryHeap has the greatest id on top.
type entryHeap []consumerEntry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].record.id() > h[j].record.id() }
func (h entryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *entryHeap) Push(x any)        { *h = append(*h, x.(consumerEntry)) }
func (h *entryHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}
