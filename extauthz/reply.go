package extauthz

import "github.com/tollgate-dev/tollgate/limits"

// Reply is what a client sees of a decision about limits, the same as from
// ext_authz. It may be used again and again; what it holds is valid until the
// next time, and its memory is its own.
type Reply struct {
	Headers []ReplyHeader
	Body    []byte // of a refusal

	answer  answer
	verdict Verdict
	view    View // of no request
}

// ReplyHeader is a header that an answer sets; its value lies in the answer's memory.
type ReplyHeader struct {
	Name  string
	Value []byte
}

// Compose fills r with what ext_authz would answer for these claims. Refused is
// the index of the claim that refused, or -1, and random, from [0,1), decides how
// much later than needed Retry-After is. Claims in shadow do not show.
func (r *Reply) Compose(style Headers, claims []limits.Claim, refused int, random float64) {
	d, a := &r.verdict, &r.answer
	*d = Verdict{Headers: style, Claims: claims}
	*a = answer{set: a.set[:0], shown: a.shown[:0], text: a.text[:0]}
	if refused < 0 {
		a.set = a.limitHeaders(a.set, d)
	} else {
		c := &claims[refused]
		d.Outcome, d.Reason = Throttled, RateLimited
		d.Limit, d.Decision = c.Limiter.Spec(), c.Decision
		d.RetryAfter = retryAfter(c.Decision.Wait, random)
		a.refuse(&r.view, d)
	}
	*d = Verdict{} // the claims are the caller's
	r.Headers, r.Body = a.set, a.body
}
