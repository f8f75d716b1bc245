package ratelimit

import (
	"context"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// decision is one request on its way. It is pooled; see clear.
type decision struct {
	server *Server
	policy *Policy
	began  limits.Time
	now    limits.Time // of the decision: later where the call was stopped on its way

	// The request, of which read and scan fill in all but the rules.
	domain   string
	hits     uint32 // hits_addend
	asked    int    // how many descriptors it has; they are read unless there are too many
	entries  []descriptors.Entry
	parts    []part
	rules    *descriptors.Domain // nil: unknown
	unknown  bool                // and nobody is named whose own limits could count
	replaces []*descriptors.Rule // rules of the request that replace others

	// claims is what TakeAll decides, and origins, grown with it in add alone,
	// is where each comes from.
	claims  []limits.Claim
	origins []origin
	waits   bool // a limit may hold the request

	refused  bool
	deciding int // the part that refused, or -1
	event    extauthz.Event

	// The answer.
	statuses []descriptorStatus
	headers  []extauthz.ReplyHeader
	body     []byte
	text     []byte          // memory of headers
	reply    *extauthz.Reply // a pointer, since clear copies
}

// origin is where a claim comes from.
type origin struct {
	part int
	rule *descriptors.Rule // nil: a caller's own limit
}

// forget takes back what was read.
func (d *decision) forget() {
	d.domain, d.hits, d.asked = "", 0, 0
	d.entries, d.parts = d.entries[:0], d.parts[:0]
}

// clear makes the decision ready for another request, holding on to nothing of
// this one but room.
func (d *decision) clear() {
	clear(d.entries)
	clear(d.parts)
	clear(d.replaces)
	clear(d.claims)
	clear(d.origins)
	clear(d.statuses)
	*d = decision{
		entries: d.entries[:0], parts: d.parts[:0], replaces: d.replaces[:0], claims: d.claims[:0], origins: d.origins[:0],
		statuses: d.statuses[:0], headers: d.headers[:0], text: d.text[:0], reply: d.reply,
	}
}

// decide takes all that the request takes, or nothing.
func (d *decision) decide(ctx context.Context) error {
	if d.policy.CountRefused && d.server.o.Shared != nil && !limits.MayWait(ctx) {
		return limits.ErrWouldWait // to count what is refused the store may have to be asked once more
	}
	for {
		d.collect()
		refuser, err := d.take(ctx)
		if err != nil {
			return err
		}
		if refuser < 0 {
			d.relieved()
			d.refund()
			return nil
		}
		d.deciding = d.origins[refuser].part
		p := &d.parts[d.deciding]
		p.over = true
		if d.isRefused() {
			d.refuse()
			return nil
		}
		// A quota that is used up, beside others that perhaps are not: the request goes on without it.
		p.spent, p.spentFrom = d.claims[refuser], d.origins[refuser]
		d.deciding = -1
	}
}

// relieved notes the quotas that are used up beside others that are not, where
// whoever took the claims has found that.
func (d *decision) relieved() {
	for i := range d.parts {
		p := &d.parts[i]
		for j := p.first; j < p.last; j++ {
			if c := &d.claims[j]; c.Group > 0 && !c.Decision.Allowed && d.policy.Mode != extauthz.Shadow && !d.watches(j) {
				p.over, p.spent, p.spentFrom, p.last = true, *c, d.origins[j], p.first
				p.spent.N = p.hits
			}
		}
	}
}

// collect makes the claims of all parts.
func (d *decision) collect() {
	d.claims, d.origins = d.claims[:0], d.origins[:0]
	for i := range d.parts {
		p := &d.parts[i]
		p.first = len(d.claims)
		if !p.over {
			d.claim(i, p)
		}
		p.last = len(d.claims)
	}
}

func (d *decision) claim(i int, p *part) {
	n, shadow, group := p.hits, d.policy.Mode == extauthz.Shadow, 0
	if p.quota {
		group = i + 1
	}
	if p.refund {
		n, shadow = 0, true // how it stands is asked once the rest is admitted
	}
	for r := p.rule; r != nil; r = r.Next {
		if !r.Unlimited && !d.replaced(r) {
			limiter := d.server.o.Book.Limiter(d.now, r, p.entries)
			d.add(limits.Claim{Limiter: limiter, N: n, Shadow: shadow || r.Shadow, Group: group}, origin{i, r})
		}
	}
	for k := range p.grant.Len() {
		d.add(limits.Claim{Limiter: p.grant.Limiter(k), N: n, Shadow: shadow, Group: group}, origin{i, nil})
	}
}

func (d *decision) add(c limits.Claim, o origin) {
	d.claims = append(d.claims, c)
	d.origins = append(d.origins, o)
	d.waits = d.waits || c.Limiter.Spec().Limit().MaxWait > 0
}

// take takes the claims, all or none, and returns the one that refused, or -1.
func (d *decision) take(ctx context.Context) (int, error) {
	var queue *limits.Queue
	if d.waits {
		queue = d.server.o.Queue
	}
	if shared := d.server.o.Shared; shared != nil {
		return shared.TakeAll(ctx, queue, d.now, d.claims)
	}
	if queue != nil {
		return queue.TakeAll(ctx, d.claims)
	}
	refuser, now := d.server.o.Clock.TakeAll(d.now, d.claims)
	d.now = now
	return refuser, nil
}

// watches reports whether a claim is of a limit that only watches. The global
// shadow mode is not meant: there the answer tells what would have been.
func (d *decision) watches(i int) bool {
	r := d.origins[i].rule
	return r != nil && r.Shadow || d.claims[i].Limiter.Spec().Limit().Shadow
}

// isRefused applies quota_mode to the parts that are over.
func (d *decision) isRefused() bool {
	quotas, over := 0, 0
	for i := range d.parts {
		switch p := &d.parts[i]; {
		case p.quota:
			quotas++
			if p.over {
				over++
			}
		case p.over:
			return true
		}
	}
	return quotas > 0 && over == quotas
}

// refuse ends the decision with nothing taken.
func (d *decision) refuse() {
	d.refused = true
	for i := range d.claims {
		if c := &d.claims[i]; !c.Decision.Allowed && !c.Shadow && !d.watches(i) {
			d.parts[d.origins[i].part].over = true
		}
	}
	if d.policy.CountRefused {
		d.useUp()
	}
}

// useUp counts what was refused: what is left of every limit that refuses, and
// the hits of every other.
func (d *decision) useUp() {
	for i := range d.claims {
		c := &d.claims[i]
		switch {
		case c.N == 0:
		case c.Decision.Allowed:
			c.Decision = d.takeOne(c.Limiter, c.N)
		case c.Decision.Remaining > 0:
			d.takeOne(c.Limiter, c.Decision.Remaining)
		}
	}
}

func (d *decision) takeOne(l *limits.Limiter, n int64) limits.Decision {
	shared := d.server.o.Shared
	if shared == nil {
		return l.Take(d.now, n)
	}
	claims := []limits.Claim{{Limiter: l, N: n}}
	_, _ = shared.TakeAll(context.Background(), nil, d.now, claims) // no context, no error
	return claims[0].Decision
}

// refund gives negative hits back.
func (d *decision) refund() {
	for i := range d.parts {
		p := &d.parts[i]
		if !p.refund {
			continue
		}
		for j := p.first; j < p.last; j++ {
			c := &d.claims[j]
			c.Limiter.Refund(d.now, p.hits)
			c.Decision = c.Limiter.Peek(d.now, 1)
		}
	}
}

// outcome is the word for how the request went.
func (d *decision) outcome() extauthz.Outcome {
	if d.refused {
		return extauthz.Throttled
	}
	if _, i := d.subject(); i >= 0 {
		return extauthz.Shadowed
	}
	return extauthz.Admitted
}

// subject returns the part that a decision is about, nil if there is none, and
// the index of its claim that refused, or only would have, or -1.
func (d *decision) subject() (p *part, claim int) {
	if d.deciding >= 0 {
		p := &d.parts[d.deciding]
		return p, d.decisive(p)
	}
	for i := range d.claims {
		if p := &d.parts[d.origins[i].part]; !d.claims[i].Decision.Allowed && !p.refund {
			return p, i
		}
	}
	for i := range d.parts {
		if p := &d.parts[i]; p.rule != nil || !p.grant.Nobody() {
			return p, -1
		}
	}
	return nil, -1
}

// decisive returns the claim of a part that its status is about: of those that
// refuse the one with the longest wait, else the one with the least left. It is
// -1 where no limit shows.
func (d *decision) decisive(p *part) int {
	found := -1
	for i := p.first; i < p.last; i++ {
		if !d.watches(i) && (found < 0 || tighter(d.claims[i].Decision, d.claims[found].Decision)) {
			found = i
		}
	}
	return found
}

// tighter reports whether a tells more than b about why a request cannot, or
// soon can no longer, pass.
func tighter(a, b limits.Decision) bool {
	if a.Allowed != b.Allowed {
		return b.Allowed
	}
	if !a.Allowed {
		return a.Wait > b.Wait
	}
	return a.Remaining < b.Remaining
}
