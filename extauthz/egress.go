package extauthz

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
)

// anyUpstream is the context extension `upstream` of a route that leads out,
// wherever the host says.
const anyUpstream = "*"

// upstream returns the upstream that a request goes to and whether it goes out
// at all: its route says so, or its host is an upstream's and its route does not
// say, by a mode or a domain, that the request comes in. A client chooses the
// host that it sends, so that routes that come in should say so.
func (s *Server) upstream(v *View, r *route) (u *upstreams.Upstream, out bool, err error) {
	switch {
	case s.upstreams == nil && r.upstream == "", r.upstream == "" && r.comesIn:
		return nil, false, nil
	case s.upstreams == nil:
		return nil, r.upstream == anyUpstream, unknownUpstream(r.upstream)
	}
	u = s.upstreams.Find(v.Host, r.upstream)
	if u == nil && r.upstream != "" {
		return nil, true, unknownUpstream(r.upstream)
	}
	return u, u != nil, nil
}

func unknownUpstream(name string) error {
	if name == anyUpstream {
		return nil // a host that matches none passes
	}
	return fmt.Errorf("context extension upstream: no upstream %q is configured", name)
}

// goOut decides about a request that leads out. Nobody is authenticated and
// nothing is stripped: the credentials that it carries are the upstream's.
func (s *Server) goOut(ctx context.Context, u *upstreams.Upstream, v *View, d *Verdict) error {
	d.Strip, d.Outcome = false, Admitted
	if u == nil {
		return nil
	}
	c := u.Config()
	d.Upstream = u.ID()
	if c.Answer.Style != "" && !d.answered {
		var r route
		r.setAnswer(c.Answer.Style) // the configuration was checked
		d.Answer = r.answer
	}
	d.Status = c.Answer.Status
	request := upstreams.Request{Cost: d.Cost, Caller: d.caller(v, c.Caller)}
	if b := c.Budget; b != nil {
		request.Class, request.Label = d.at(v, b.Class), d.at(v, b.Attribute)
	}
	verdict, err := u.Admit(ctx, request)
	if err != nil {
		return err
	}
	d.Wait = verdict.Held
	if verdict.Reason == "" {
		return nil
	}
	d.Outcome, d.Reason = Throttled, RateLimited
	switch verdict.Reason {
	case upstreams.Paused:
		d.Reason = UpstreamPressure
	case upstreams.Unknown:
		d.Outcome, d.Reason = Failed, StoreUnavailable
	}
	d.Limit, d.Decision, d.why = verdict.Limit, verdict.Decision, verdict.Reason
	d.RetryAfter = retryAfter(verdict.Wait, 0) // it is spread already
	return nil
}

// caller returns who is treated as one caller when turns are taken: what stands
// at the configured place, else who asks together with the host that is asked,
// of which there may be one for each account or store.
func (d *Verdict) caller(v *View, from upstreams.Source) string {
	if from.From != "" {
		return d.at(v, from)
	}
	return cmp.Or(v.Principal, v.RemoteAddress) + " " + normalHost(v.Host)
}

// at returns what stands at a place of the request, or nothing. The upstream
// may remember it for longer than the request lasts.
func (d *Verdict) at(v *View, from upstreams.Source) string {
	value, _ := d.value(v, &Source{From: from.From, Name: from.Name})
	return strings.Clone(value)
}

// appendOutward says why a request to an upstream was refused.
func appendOutward(b []byte, d *Verdict) []byte {
	switch d.why {
	case upstreams.Paused:
		b = append(b, "The upstream "...)
		b = append(b, d.Upstream...)
		return append(b, " asked for a pause"...)
	case upstreams.Spent:
		b = append(b, "The budget of calls to the upstream "...)
		b = append(b, d.Upstream...)
		return append(b, " is used up"...)
	}
	b = append(b, "The upstream "...)
	b = append(b, d.Upstream...)
	return append(b, " allows no more requests at the moment, and the queue for it is too long"...)
}
