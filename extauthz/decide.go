package extauthz

import (
	"context"
	"errors"
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// Decide decides about one request and fills d. It holds the request where a
// limit says so, as long as ctx lasts. The error means that nothing could be
// decided: a context extension that cannot be meant, or a caller who left.
// Nothing is allocated once d is warm, but for a path, host or cookie that is
// not in its normal form and for regular expressions. Decide does not tell the
// Observer.
func (s *Server) Decide(ctx context.Context, now limits.Time, v *View, d *Verdict) error {
	return s.decide(ctx, s.plan.Load(), nil, now, v, d)
}

func (s *Server) decide(ctx context.Context, p *plan, clock *limits.Clock, now limits.Time, v *View, d *Verdict) error {
	d.reset()
	d.plan, d.clock, d.At = p, clock, now
	d.Headers, d.Strip = p.policy.Headers, p.policy.Strip
	d.GRPC = isGRPC(v)
	r, err := p.route(v)
	if err != nil {
		return err
	}
	d.Domain, d.Cost, d.Answer, d.answered = r.domain, r.cost, r.answer, r.answered
	if u, out, err := s.upstream(v, &r); out || err != nil {
		if err != nil {
			return err
		}
		return s.goOut(ctx, u, v, d)
	}
	if p.policy.Waiting {
		return errWaiting
	}
	d.Outcome = Admitted
	grant := s.identify(v, d)
	if !r.authenticate && d.Reason != "" {
		d.Outcome, d.Reason, grant = Admitted, "", consumers.Grant{}
		d.Consumer, d.Token, d.Labels = "", "", nil
	}
	if d.Reason == "" && !r.limit && grant.Len() > 0 {
		d.Own = grant.Limiter(0).Spec()
	}
	if d.Reason != "" || !r.limit || p.policy.Mode == Off {
		return nil
	}
	return s.limit(ctx, v, d, &grant)
}

// errWaiting is no verdict: whoever asks now may be a known consumer.
var errWaiting = errors.New("the consumers are not known yet: their source has not answered")

// isGRPC reports whether the client speaks gRPC, or gRPC-Web.
func isGRPC(v *View) bool {
	t, _ := v.header("content-type")
	rest, ok := strings.CutPrefix(t, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';' || rest[0] == '-')
}

// identify finds out who calls and writes it into d, or the refusal.
func (s *Server) identify(v *View, d *Verdict) consumers.Grant {
	credential, f := d.plan.credential(v)
	var grant consumers.Grant
	var standing consumers.Standing
	refusal := InvalidCredentials
	switch f {
	case secret:
		grant, standing = s.registry.Resolve(d.At, credential)
	case identity:
		grant, standing = s.registry.Consumer(d.At, credential)
	case absent:
		refusal = MissingCredentials
		if id := d.plan.policy.Anonymous; id != "" {
			grant, standing = s.registry.Consumer(d.At, id)
		}
	}
	d.Consumer, d.Token, d.Labels = grant.Consumer.ID, grant.Token, grant.Consumer.Labels
	switch {
	case standing == consumers.Disabled:
		d.refuse(Forbidden, ConsumerDisabled)
	case standing != consumers.Valid:
		d.refuse(Unauthenticated, refusal)
	}
	return grant
}

// limit takes from all the limits that the request is under, or from none.
func (s *Server) limit(ctx context.Context, v *View, d *Verdict, grant *consumers.Grant) error {
	if rules := s.book.Rules(); rules != nil {
		d.describe(v, rules.Domain(d.Domain))
	}
	d.claim(grant, s.book, d.Cost)
	if len(d.Claims) == 0 {
		return nil
	}
	refused, err := s.take(ctx, d)
	if err != nil {
		return err
	}
	if refused >= 0 {
		d.Outcome, d.Reason = Throttled, RateLimited
		d.decidedBy(refused, s.book)
		if d.Decision.Undecided {
			d.Outcome, d.Reason = Failed, StoreUnavailable
		}
		d.RetryAfter = retryAfter(d.Decision.Wait, s.random())
		return nil
	}
	for i := range d.Claims {
		if !d.Claims[i].Decision.Allowed && !d.relieved(i) {
			d.Outcome = Shadowed
			d.decidedBy(i, s.book)
			break
		}
	}
	return nil
}

// take asks the limits and returns the claim that refuses, or -1.
func (s *Server) take(ctx context.Context, d *Verdict) (refused int, err error) {
	d.groupQuotas()
	if s.shared == nil && d.anyQuota() {
		limits.PeekAll(d.At, d.Claims)
		limits.Relieve(d.Claims)
	}
	hold := s.queue != nil && d.mayHold()
	switch {
	case s.shared != nil && !hold:
		return s.shared.TakeAll(ctx, nil, d.At, d.Claims)
	case !hold && d.clock == nil:
		return limits.TakeAll(d.At, d.Claims), nil
	case !hold:
		refused, d.At = d.clock.TakeAll(d.At, d.Claims)
		return refused, nil
	}
	start := s.clock.Now()
	if s.shared != nil {
		refused, err = s.shared.TakeAll(ctx, s.queue, d.At, d.Claims)
	} else {
		refused, err = s.queue.TakeAll(ctx, d.Claims)
	}
	d.Wait = s.clock.Now().Sub(start)
	return refused, err
}

// mayHold reports whether a limit of the request lets it wait for its turn.
func (d *Verdict) mayHold() bool {
	for i := range d.Claims {
		if d.Claims[i].Limiter.Spec().Limit().MaxWait > 0 {
			return true
		}
	}
	return false
}

// groupQuotas makes each quota_mode rule a group of its own: such a rule does not
// refuse while another one of them still admits.
func (d *Verdict) groupQuotas() {
	for i := range d.Claims {
		if d.isQuota(i) {
			d.Claims[i].Group = i + 1
		}
	}
}

// relieved reports whether a claim is a shadow only because others
// of its kind admit.
func (d *Verdict) relieved(claim int) bool {
	return d.isQuota(claim) && !d.matches[d.claimed[claim]].rule.Shadow && d.plan.policy.Mode != Shadow
}

func (d *Verdict) anyQuota() bool {
	for i := range d.Claims {
		if d.isQuota(i) {
			return true
		}
	}
	return false
}

func (d *Verdict) isQuota(claim int) bool {
	m := d.claimed[claim]
	return m >= 0 && d.matches[m].rule.Quota
}

// decidedBy notes the limit that refused, or would have.
func (d *Verdict) decidedBy(claim int, book *descriptors.Book) {
	c := &d.Claims[claim]
	d.Limit, d.Decision = c.Limiter.Spec(), c.Decision
	if m := d.claimed[claim]; m >= 0 {
		match := &d.matches[m]
		d.Rule = book.Label(match.rule, d.entries[match.from:match.to])
	}
}
