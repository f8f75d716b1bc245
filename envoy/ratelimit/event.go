package ratelimit

import (
	"context"

	"github.com/tollgate-dev/tollgate/extauthz"
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
	e.Took = s.o.Clock.Now().Sub(d.now)
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
	if g := p.grant; g != nil {
		e.Consumer, e.Token = g.Consumer.ID, g.Token
	}
}
