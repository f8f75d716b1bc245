package consumers

import (
	"hash/maphash"
	"strconv"
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
)

// What follows makes and moves the live parts of snapshots. All of it is called
// with Registry.mu held.

// activate makes the live part of a secret with its first request, or with the
// first one after a change.
func (r *Registry) activate(now limits.Time, h *Hash) (*snapshot, *tokenEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.snap.Load()
	e := s.token(h)
	if e == nil {
		return s, nil // taken away since the caller looked
	}
	ce, v, t := s.holder(e)
	if ce.nobody() {
		return s, nil
	}
	if r.settle(e.owner, v.id); e.seat.Load() != 0 {
		return s, e
	}
	if r.callerOf(ce) == nil && r.seatPlain(now, s, e, &v, t) {
		return s, e
	}
	c := r.live(now, s, e.owner, ce)
	r.grantToken(s, e.owner, c, t, v.disabled, r.limiters(now, c, scopeToken, t.id), [2]uint32{})
	return s, e
}

// seatPlain gives a secret a seat if its token is plain.
func (r *Registry) seatPlain(now limits.Time, s *snapshot, e *tokenEntry, v *view, t tokenView) bool {
	terms := r.acquireTerms(v)
	if !r.plain(v, terms) || t.previousUntil != 0 {
		r.releaseTerms(terms)
		return false
	}
	number := r.seats.take()
	seat := r.seats.make(number)
	if saved, ok := r.memory.take(now, stateKey(scopeToken, v.id, t.id, terms.slots[0])); ok {
		seat.Restore(terms.specs[0], now, saved)
	} else {
		seat.Init(terms.specs[0], now)
	}
	stateOf(seat).plain(terms)
	stateOf(seat).become(s.age)
	e.seat.Store(number)
	return true
}

// plain reports whether the tokens of a consumer under some terms are plain, but
// those that have two secrets.
func (r *Registry) plain(v *view, t *terms) bool {
	return t.plain && v.labels == "" && r.options.Share == nil
}

// activateID makes the grant of a consumer's id with its first request.
func (r *Registry) activateID(now limits.Time, id string) *grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, owner := r.snap.Load(), maphash.String(r.seed, id)
	e := s.consumer(owner, id)
	if e.nobody() {
		return nil
	}
	r.settle(owner, id)
	c := r.live(now, s, owner, e)
	if g := c.byID.Load(); g != nil {
		return g
	}
	g := newIDGrant(c, s.age, e.record.view().disabled, r.limiters(now, c, scopeID, ""))
	c.byID.Store(g)
	return g
}

// live returns the entry's caller, made if it is not there yet.
func (r *Registry) live(now limits.Time, s *snapshot, owner uint64, e consumerEntry) *caller {
	r.expand(s, owner, e)
	if c := r.callerOf(e); c != nil {
		return c
	}
	c, _ := r.newCaller(e.record)
	if c.terms.shared {
		ls := sharedLimiters(r.limiters(now, c, scopeConsumer, ""))
		c.shared = &ls
	}
	r.setCaller(e, c)
	return c
}

// callerOf returns the caller of a consumer that is in use and not plain, or nil.
func (r *Registry) callerOf(e consumerEntry) *caller {
	if number := e.slot.caller.Load(); number != 0 {
		return r.callers.at(number).Load()
	}
	return nil
}

func (r *Registry) setCaller(e consumerEntry, c *caller) {
	number := e.slot.caller.Load()
	if number == 0 {
		number = r.callers.take()
	}
	r.callers.make(number).Store(c)
	e.slot.caller.Store(number)
}

// termsOf returns the terms of a plain token.
func (r *Registry) termsOf(seat *limits.Limiter) *terms {
	t, _ := r.plains.Load(seat.Spec())
	terms, _ := t.(*terms)
	return terms
}

// expand gives the plain tokens of a consumer that are in use grants of their
// own, with the limiters that they have.
func (r *Registry) expand(s *snapshot, owner uint64, e consumerEntry) {
	if r.callerOf(e) != nil {
		return
	}
	v := e.record.view()
	var c *caller
	for t := range v.eachToken {
		secret := s.owned(t.key, owner)
		if secret == nil || secret.seat.Load() == 0 {
			continue
		}
		number := secret.seat.Load()
		seat := r.seats.at(number)
		if terms := r.termsOf(seat); c == nil {
			c = &caller{id: v.id, labels: r.labelsOf(&v), terms: terms} // which the seat has acquired
		} else {
			r.releaseTerms(terms)
		}
		r.seats.grants.make(number).Store(newGrant(c, t.id, t.expires, v.disabled, []*limits.Limiter{seat}, stateOf(seat)))
		stateOf(seat).And(^uint32(plainly | durablePlain))
	}
	if c != nil {
		r.setCaller(e, c)
	}
}

// newCaller makes a caller without limiters, and says whether it is disabled.
func (r *Registry) newCaller(rec record) (c *caller, disabled bool) {
	v := rec.view()
	return &caller{id: v.id, labels: r.labelsOf(&v), terms: r.acquireTerms(&v)}, v.disabled
}

func (r *Registry) labelsOf(v *view) map[string]string {
	return r.labels.acquire(v.labels, func() map[string]string { return decodeLabels(v.labels) })
}

func (r *Registry) acquireTerms(v *view) *terms {
	text := v.limits
	if text == "" {
		if text = r.plans[v.plan]; text == "" {
			text = encodeLimits(r.options.Default)
		}
	}
	r.scratch = append(append(strconv.AppendUint(r.scratch[:0], r.warmUps, 10), ' '), text...)
	if t, ok := r.terms.again(r.scratch); ok {
		return t
	}
	key := string(r.scratch)
	return r.terms.acquire(key, func() *terms {
		t := newTerms(key, text, r.options.WarmUp)
		if t.plain {
			r.plains.Store(t.specs[0], t)
		}
		return t
	})
}

func (r *Registry) releaseTerms(t *terms) {
	if r.terms.release(t.key) && t.plain {
		r.plains.Delete(t.specs[0])
	}
}

// drop gives back what newCaller took from the pools.
func (r *Registry) drop(c *caller, rec record) {
	r.labels.release(rec.view().labels)
	r.releaseTerms(c.terms)
}

// newIDGrant makes the grant of a consumer's id, which has a state of its own.
func newIDGrant(c *caller, age uint32, disabled bool, ls []*limits.Limiter) *grant {
	st := state{new(atomic.Uint32)}
	st.become(age)
	return newGrant(c, "", never, disabled, ls, st)
}

func newGrant(c *caller, token string, expires limits.Time, disabled bool, ls []*limits.Limiter, st state) *grant {
	return &grant{caller: c, token: token, limiters: ls, expires: expires, disabled: disabled, state: st, turn: st.turn()}
}

// grantToken makes the grants of a token's secrets, which share its limiters,
// and returns that of its present secret. had are the seats of the present and
// the previous secret before, 0 for none: the limiter of a token that was plain
// stands in the first.
func (r *Registry) grantToken(s *snapshot, owner uint64, c *caller, t tokenView, disabled bool, ls []*limits.Limiter, had [2]uint32) *grant {
	give := func(key uint64, number uint32, expires limits.Time) *grant {
		if number == 0 {
			number = r.seats.take()
		}
		st := stateOf(r.seats.make(number))
		st.become(s.age)
		g := newGrant(c, t.id, expires, disabled, ls, st)
		r.seats.grants.make(number).Store(g)
		s.owned(key, owner).seat.Store(number)
		return g
	}
	g := give(t.key, had[0], t.expires)
	switch {
	case t.previousUntil != 0:
		give(t.previous, had[1], min(t.expires, t.previousUntil))
	case had[1] != 0:
		r.seats.leave(had[1])
	}
	return g
}

// seated returns the seats of a token's present and previous secret, 0 for none.
func (s *snapshot) seated(t tokenView, owner uint64) (numbers [2]uint32) {
	for i, key := range []uint64{t.key, t.previous} {
		if i == 1 && t.previousUntil == 0 {
			break
		}
		if e := s.owned(key, owner); e != nil {
			numbers[i] = e.seat.Load()
		}
	}
	return numbers
}

// limitersOf returns those of a token that is not plain, given its seats.
func (r *Registry) limitersOf(numbers [2]uint32) []*limits.Limiter {
	return r.seats.grant(max(numbers[0], numbers[1])).limiters
}

// rebuild moves a consumer that is in use into a snapshot in which it may have
// changed or gone.
func (r *Registry) rebuild(now limits.Time, from, to *snapshot, old consumerEntry) {
	if r.callerOf(old) == nil && r.rebuildPlain(now, from, to, old) {
		return
	}
	c := r.callerOf(old)
	owner := maphash.String(r.seed, c.id)
	e := to.consumer(owner, c.id)
	if e.nobody() {
		r.retire(now, from, owner, old.record, c)
		r.callers.at(old.slot.caller.Load()).Store(nil)
		r.callers.leave(old.slot.caller.Load())
		return
	}
	e.slot.caller.Store(old.slot.caller.Load())
	n, disabled := r.newCaller(e.record)
	if n.terms == c.terms && e.record == old.record {
		r.drop(n, e.record)
		r.move(from, to, owner, e.record)
		if g := c.byID.Load(); g != nil {
			g.state.become(to.age)
		}
		return
	}
	if n.terms.shared || c.terms.shared {
		n.shared = r.fitShared(now, c, n)
	}
	if g := c.byID.Load(); g != nil {
		watched := g.state.next()
		n.byID.Store(newIDGrant(n, to.age, disabled, r.fit(now, g.limiters, c, n, scopeID, "")))
		r.journal.follow(n.byID.Load(), watched)
	}
	before, after := old.record.view(), e.record.view()
	for t := range before.eachToken {
		had := from.seated(t, owner)
		if had == [2]uint32{} {
			continue
		}
		u, ok := after.named(t.id)
		if !ok {
			r.forget(now, had, c, t.id)
			continue
		}
		watched := r.next(had)
		g := r.grantToken(to, owner, n, u, disabled, r.fit(now, r.limitersOf(had), c, n, scopeToken, t.id), had)
		r.journal.follow(g, watched)
	}
	r.drop(c, old.record)
	r.setCaller(e, n)
}

// next makes the grants of a token's seats gone, and reports whether one of them
// was watched.
func (r *Registry) next(seated [2]uint32) (watched bool) {
	for _, number := range seated {
		if number != 0 {
			watched = stateOf(r.seats.at(number)).next() || watched
		}
	}
	return watched
}

// rebuildPlain is rebuild for a consumer none of whose tokens has a grant of its
// own, unless one of them must have: then it expands the consumer and returns
// false.
func (r *Registry) rebuildPlain(now limits.Time, from, to *snapshot, old consumerEntry) bool {
	before := old.record.view()
	owner := maphash.String(r.seed, before.id)
	inUse := false
	for t := range before.eachToken {
		inUse = inUse || from.seated(t, owner) != [2]uint32{}
	}
	if !inUse {
		return true
	}
	e := to.consumer(owner, before.id)
	if e.nobody() {
		for t := range before.eachToken {
			r.vacate(now, from.seated(t, owner)[0], before.id, t.id)
		}
		return true
	}
	after := e.record.view()
	n := r.acquireTerms(&after)
	defer r.releaseTerms(n)
	plain := r.plain(&after, n)
	for t := range before.eachToken {
		if number := from.seated(t, owner)[0]; number != 0 {
			was := r.termsOf(r.seats.at(number))
			u, _ := after.named(t.id)
			plain = plain && u.previousUntil == 0 && n.slots[0] == was.slots[0]
		}
	}
	if !plain {
		r.expand(from, owner, old)
		return false
	}
	for t := range before.eachToken {
		number := from.seated(t, owner)[0]
		if u, ok := after.named(t.id); ok && number != 0 {
			number = r.refit(now, number, n, before.id, t.id)
			stateOf(r.seats.at(number)).become(to.age)
			to.owned(u.key, owner).seat.Store(number)
			continue
		}
		r.vacate(now, number, before.id, t.id)
	}
	return true
}

// refit puts a plain token under other terms, and returns its seat from then on:
// another one, as a changed limiter needs several times the memory of one that was
// made anew.
func (r *Registry) refit(now limits.Time, number uint32, n *terms, id, token string) uint32 {
	seat := r.seats.at(number)
	was := r.termsOf(seat)
	if was == n {
		return number
	}
	r.terms.acquire(n.key, nil) // it is there: who calls has it
	defer r.releaseTerms(was)
	to := r.seats.take()
	if !seat.Move(now, n.specs[0], r.seats.make(to)) {
		r.seats.leave(to)
		seat.SetSpec(now, n.specs[0])
		stateOf(seat).plain(n)
		return number
	}
	stateOf(r.seats.at(to)).plain(n)
	watched := seat.Note.Load()&watched != 0
	r.seats.leave(number)
	if watched && n.durable {
		r.journal.watch(to, r.seats.at(to), n, id, token)
	}
	return to
}

// vacate ends a plain token, if it has a seat.
func (r *Registry) vacate(now limits.Time, number uint32, id, token string) {
	if number == 0 {
		return
	}
	seat := r.seats.at(number)
	terms := r.termsOf(seat)
	r.remember(now, seat, stateKey(scopeToken, id, token, terms.slots[0]))
	r.releaseTerms(terms)
	r.seats.leave(number)
}

// move takes the seats of a consumer that did not change along.
func (r *Registry) move(from, to *snapshot, owner uint64, rec record) {
	for k := range keysOf(rec) {
		a, b := from.owned(k, owner), to.owned(k, owner)
		if a == nil || b == nil || a.seat.Load() == 0 {
			continue
		}
		stateOf(r.seats.at(a.seat.Load())).become(to.age)
		b.seat.Store(a.seat.Load())
	}
}

// retire ends everything of a consumer that is gone.
func (r *Registry) retire(now limits.Time, from *snapshot, owner uint64, rec record, c *caller) {
	v := rec.view()
	for t := range v.eachToken {
		if had := from.seated(t, owner); had != [2]uint32{} {
			r.forget(now, had, c, t.id)
		}
	}
	if g := c.byID.Load(); g != nil {
		g.state.next()
		r.forgetLimiters(now, g.limiters, c, scopeID, "")
	}
	if c.shared != nil {
		r.forgetLimiters(now, *c.shared, c, scopeConsumer, "")
	}
	r.drop(c, rec)
}

// limiters makes the limiters of a grant, going on where ones of the same
// identity left off. Those per consumer are the caller's.
func (r *Registry) limiters(now limits.Time, c *caller, scope scope, token string) []*limits.Limiter {
	if len(c.terms.specs) == 0 {
		return nil
	}
	ls := make([]*limits.Limiter, len(c.terms.specs))
	for i := range ls {
		switch {
		case scope.owns(c.terms.limits[i]):
			ls[i] = r.limiter(now, c, i, scope, token, limits.New)
		case scope != scopeConsumer:
			ls[i] = (*c.shared)[i]
		}
	}
	return ls
}

func (r *Registry) limiter(now limits.Time, c *caller, i int, scope scope, token string, fresh func(*limits.Spec, limits.Time) *limits.Limiter) *limits.Limiter {
	l := fresh(c.terms.specs[i], now)
	if st, ok := r.memory.take(now, stateKey(scope, c.id, token, c.terms.slots[i])); ok {
		l = limits.Restore(c.terms.specs[i], now, st)
	}
	if r.options.Share != nil {
		r.options.Share(now, c.id, string(scope)+"/"+token+"/"+c.terms.slots[i], l)
	}
	return l
}

// added is a limiter for a limit that a consumer in use gets: it opens no grace.
func added(s *limits.Spec, now limits.Time) *limits.Limiter {
	l := limits.Restore(s, now, limits.State{})
	l.Reset(now)
	return l
}

func (r *Registry) fitShared(now limits.Time, c, n *caller) *sharedLimiters {
	var old []*limits.Limiter
	if c.shared != nil {
		old = *c.shared
	}
	ls := sharedLimiters(r.fit(now, old, c, n, scopeConsumer, ""))
	return &ls
}

// fit makes limiters for changed terms out of those for the old ones: a limit
// that remains keeps its limiter, with what was used, and none that is added
// opens a grace.
func (r *Registry) fit(now limits.Time, old []*limits.Limiter, c, n *caller, scope scope, token string) []*limits.Limiter {
	if n.terms == c.terms {
		return old
	}
	from := n.terms.match(c.terms)
	ls := make([]*limits.Limiter, len(from))
	kept := make([]bool, len(old))
	for i, j := range from {
		switch {
		case !scope.owns(n.terms.limits[i]):
			if scope != scopeConsumer {
				ls[i] = (*n.shared)[i]
			}
		case j >= 0:
			ls[i], kept[j] = old[j], true
			ls[i].SetSpec(now, n.terms.specs[i])
		default:
			ls[i] = r.limiter(now, n, i, scope, token, added)
		}
	}
	for j, l := range old {
		if !kept[j] && scope.owns(c.terms.limits[j]) {
			r.remember(now, l, stateKey(scope, c.id, token, c.terms.slots[j]))
		}
	}
	return ls
}

// forget ends the grants of a token and the limiters of its own.
func (r *Registry) forget(now limits.Time, had [2]uint32, c *caller, token string) {
	r.forgetLimiters(now, r.limitersOf(had), c, scopeToken, token)
	for _, number := range had {
		if number != 0 {
			r.seats.leave(number)
		}
	}
}

// forgetLimiters closes limiters; their states are remembered for a while.
func (r *Registry) forgetLimiters(now limits.Time, ls []*limits.Limiter, c *caller, scope scope, token string) {
	for i, l := range ls {
		if scope.owns(c.terms.limits[i]) {
			r.remember(now, l, stateKey(scope, c.id, token, c.terms.slots[i]))
		}
	}
}

// remember closes a limiter that is gone and keeps its state for a while.
func (r *Registry) remember(now limits.Time, l *limits.Limiter, k StateKey) {
	s := saved(now, l, k, r.options.Idle)
	durable := durable(l.Spec())
	s.State = l.Close() // final, also where a decision is under way
	r.memory.put(now, s)
	if durable {
		r.journal.remove(s)
	}
}
