package ratelimit

import (
	"context"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// tell reports a decision to the observer.
func (s *Server) tell(ctx context.Context, d *decision, outcome extauthz.Outcome) {
	if s.o.Observer == nil {
		return
	}
	d.event = extauthz.Event{API: "ratelimit", Outcome: outcome}
	e := &d.event
	if d.rules != nil {
		e.Domain = d.rules.Name() // others are not told: a caller could name any number
	}
	d.describe(e)
	e.Took = s.o.Clock.Now().Sub(d.began)
	if d.waits {
		// What a decision takes by itself does not show beside what it waited.
		e.Wait, e.Took = e.Took, 0
	}
	if outcome == extauthz.Throttled {
		e.Reason = extauthz.RateLimited
	}
	if s.o.Traced || e.Reason != "" {
		e.Trace = extauthz.TraceOf(ctx)
	}
	s.o.Observer.Observe(e)
}

// tally has each rule of the request count what its limit has said.
func (d *decision) tally() {
	for i := range d.claims {
		if o := d.origins[i]; o.rule != nil && !d.parts[o.part].refund {
			o.rule.Count(d.claims[i].N, d.claims[i].Decision, !d.refused)
		}
	}
	for i := range d.parts {
		p := &d.parts[i]
		if p.spentFrom.rule != nil {
			p.spentFrom.rule.Count(p.spent.N, p.spent.Decision, !d.refused)
		}
		for r := p.rule; r != nil && !p.refund; r = r.Next {
			if r.Unlimited && !d.replaced(r) {
				r.Count(p.hits, limits.Decision{Allowed: true}, !d.refused)
			}
		}
	}
}

// describe says which caller and limit a decision is about: the part that
// refused, or would have, or else the first that has a rule or a caller.
func (d *decision) describe(e *extauthz.Event) {
	p, i := d.subject()
	if p == nil {
		return
	}
	rule := p.rule
	if i >= 0 {
		e.Limit, e.Decision, rule = d.claims[i].Limiter.Spec(), d.claims[i].Decision, d.origins[i].rule
	}
	if rule != nil {
		e.Rule = d.server.o.Book.Label(rule, p.entries)
	}
	if g := &p.grant; !g.Nobody() {
		e.Consumer, e.Token = g.Consumer.ID, g.Token
	}
}
