package consumers

import (
	"hash/maphash"
	"strconv"

	"github.com/tollgate-dev/tollgate/limits"
)

// What follows makes and moves the live parts of snapshots. All of it is called
// with Registry.mu held.

// activate makes the grant of a secret with its first request.
func (r *Registry) activate(now limits.Time, h *Hash) *Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.snap.Load()
	e := s.token(h)
	if e == nil {
		return nil // taken away since the caller looked
	}
	if g := e.grant.Load(); g != nil {
		return g
	}
	ce, t := s.holder(e)
	if ce == nil {
		return nil
	}
	c := r.live(now, ce)
	r.grantToken(s, e.owner, c, t, ce.record.view().disabled, r.limiters(now, c, scopeToken, t.id))
	return e.grant.Load()
}

// activateID makes the grant of a consumer's id with its first request.
func (r *Registry) activateID(now limits.Time, id string) *Grant {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.snap.Load().consumer(maphash.String(r.seed, id), id)
	if e == nil {
		return nil
	}
	c := r.live(now, e)
	if g := c.byID.Load(); g != nil {
		return g
	}
	g := newGrant(c, "", never, e.record.view().disabled, r.limiters(now, c, scopeID, ""))
	c.byID.Store(g)
	return g
}

// live returns the entry's caller, made if it is not there yet.
func (r *Registry) live(now limits.Time, e *consumerEntry) *Caller {
	if c := e.caller.Load(); c != nil {
		return c
	}
	c, _ := r.newCaller(e.record)
	if c.terms.shared {
		ls := sharedLimiters(r.limiters(now, c, scopeConsumer, ""))
		c.shared = &ls
	}
	e.caller.Store(c)
	return c
}

// newCaller makes a caller without limiters, and says whether it is disabled.
func (r *Registry) newCaller(rec record) (c *Caller, disabled bool) {
	v := rec.view()
	text := v.limits
	if text == "" {
		if text = r.plans[v.plan]; text == "" {
			text = encodeLimits(r.options.Default)
		}
	}
	key := strconv.FormatUint(r.warmUps, 10) + " " + text
	return &Caller{
		ID:     v.id,
		Labels: r.labels.acquire(v.labels, func() map[string]string { return decodeLabels(v.labels) }),
		terms:  r.terms.acquire(key, func() *terms { return newTerms(key, text, r.options.WarmUp) }),
	}, v.disabled
}

// drop gives back what newCaller took from the pools.
func (r *Registry) drop(c *Caller, rec record) {
	r.labels.release(rec.view().labels)
	r.terms.release(c.terms.key)
}

func newGrant(c *Caller, token string, expires limits.Time, disabled bool, ls []*limits.Limiter) *Grant {
	return &Grant{Consumer: c, Token: token, Limiters: ls, expires: expires, disabled: disabled, durable: c.terms.durable}
}

// grantToken makes the grants of a token's secrets, which share its limiters,
// and returns that of its present secret.
func (r *Registry) grantToken(s *snapshot, owner uint64, c *Caller, t tokenView, disabled bool, ls []*limits.Limiter) *Grant {
	g := newGrant(c, t.id, t.expires, disabled, ls)
	s.owned(t.key, owner).grant.Store(g)
	if t.previousUntil != 0 {
		s.owned(t.previous, owner).grant.Store(newGrant(c, t.id, min(t.expires, t.previousUntil), disabled, ls))
	}
	return g
}

// grants returns the live grants of a token: none, or one for each secret.
func (s *snapshot) grants(t tokenView, owner uint64) (gs []*Grant) {
	for _, key := range []uint64{t.key, t.previous} {
		if e := s.owned(key, owner); e != nil {
			if g := e.grant.Load(); g != nil {
				gs = append(gs, g)
			}
		}
	}
	return gs
}

// carry moves every live part of one snapshot into another, or, where both are
// the same, brings it up to the plans and options in force.
func (r *Registry) carry(now limits.Time, from, to *snapshot) {
	from.consumers.all(func(e *consumerEntry) bool {
		r.rebuild(now, from, to, e)
		return true
	})
}

// rebuild moves a consumer that is in use into a snapshot in which it may have
// changed or gone.
func (r *Registry) rebuild(now limits.Time, from, to *snapshot, old *consumerEntry) {
	c := old.caller.Load()
	if c == nil {
		return
	}
	owner := maphash.String(r.seed, c.ID)
	e := to.consumer(owner, c.ID)
	if e == nil {
		r.retire(now, from, owner, old.record, c)
		return
	}
	n, disabled := r.newCaller(e.record)
	if n.terms == c.terms && e.record == old.record {
		r.drop(n, e.record)
		r.move(from, to, owner, e.record)
		e.caller.Store(c)
		return
	}
	if n.terms.shared || c.terms.shared {
		n.shared = r.fitShared(now, c, n)
	}
	if g := c.byID.Load(); g != nil {
		n.byID.Store(newGrant(n, "", never, disabled, r.fit(now, g.Limiters, c, n, scopeID, "")))
		r.journal.replace(n.byID.Load(), g)
	}
	remaining := map[string]tokenView{}
	after, before := e.record.view(), old.record.view()
	for t := range after.eachToken {
		remaining[t.id] = t
	}
	for t := range before.eachToken {
		gs := from.grants(t, owner)
		if len(gs) == 0 {
			continue
		}
		if u, ok := remaining[t.id]; ok {
			g := r.grantToken(to, owner, n, u, disabled, r.fit(now, gs[0].Limiters, c, n, scopeToken, t.id))
			r.journal.replace(g, gs...)
			continue
		}
		r.forget(now, gs, c, scopeToken, t.id)
	}
	r.drop(c, old.record)
	e.caller.Store(n)
}

// move takes the grants of a consumer that did not change along.
func (r *Registry) move(from, to *snapshot, owner uint64, rec record) {
	if from == to {
		return
	}
	for k := range keysOf(rec) {
		a, b := from.owned(k, owner), to.owned(k, owner)
		if a != nil && b != nil {
			b.grant.Store(a.grant.Load())
		}
	}
}

// retire ends everything of a consumer that is gone.
func (r *Registry) retire(now limits.Time, from *snapshot, owner uint64, rec record, c *Caller) {
	v := rec.view()
	for t := range v.eachToken {
		if gs := from.grants(t, owner); len(gs) > 0 {
			r.forget(now, gs, c, scopeToken, t.id)
		}
	}
	if g := c.byID.Load(); g != nil {
		r.forget(now, []*Grant{g}, c, scopeID, "")
	}
	if c.shared != nil {
		r.forgetLimiters(now, *c.shared, c, scopeConsumer, "")
	}
	r.drop(c, rec)
}

// limiters makes the limiters of a grant, going on where ones of the same
// identity left off. Those per consumer are the caller's.
func (r *Registry) limiters(now limits.Time, c *Caller, scope scope, token string) []*limits.Limiter {
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

func (r *Registry) limiter(now limits.Time, c *Caller, i int, scope scope, token string, fresh func(*limits.Spec, limits.Time) *limits.Limiter) *limits.Limiter {
	l := fresh(c.terms.specs[i], now)
	if st, ok := r.memory.take(now, stateKey(scope, c.ID, token, c.terms.slots[i])); ok {
		l = limits.Restore(c.terms.specs[i], now, st)
	}
	if r.options.Share != nil {
		r.options.Share(now, c.ID, string(scope)+"/"+token+"/"+c.terms.slots[i], l)
	}
	return l
}

// added is a limiter for a limit that a consumer in use gets: it opens no grace.
func added(s *limits.Spec, now limits.Time) *limits.Limiter {
	l := limits.Restore(s, now, limits.State{})
	l.Reset(now)
	return l
}

func (r *Registry) fitShared(now limits.Time, c, n *Caller) *sharedLimiters {
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
func (r *Registry) fit(now limits.Time, old []*limits.Limiter, c, n *Caller, scope scope, token string) []*limits.Limiter {
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
			r.remember(now, l, stateKey(scope, c.ID, token, c.terms.slots[j]))
		}
	}
	return ls
}

// forget ends the grants of a token and the limiters of their own.
func (r *Registry) forget(now limits.Time, gs []*Grant, c *Caller, scope scope, token string) {
	r.journal.replace(nil, gs...)
	r.forgetLimiters(now, gs[0].Limiters, c, scope, token)
}

// forgetLimiters closes limiters; their states are remembered for a while.
func (r *Registry) forgetLimiters(now limits.Time, ls []*limits.Limiter, c *Caller, scope scope, token string) {
	for i, l := range ls {
		if scope.owns(c.terms.limits[i]) {
			r.remember(now, l, stateKey(scope, c.ID, token, c.terms.slots[i]))
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
