package extauthz

import (
	"math/rand/v2"

	"github.com/tollgate-dev/tollgate/limits"
)

// Reply is what a client sees of a decision about limits.
type Reply struct {
	Headers []ReplyHeader
	Body    []byte // of a refusal
}

// ReplyHeader is one header of a Reply.
type ReplyHeader struct{ Name, Value string }

// ReplyAboutLimits returns what ext_authz would answer for these claims, so that
// a client sees the same from every API. Refused is the index of the claim that
// refused, or -1. Claims in shadow do not show.
func ReplyAboutLimits(style Headers, claims []limits.Claim, refused int) Reply {
	d := Verdict{Headers: style, Claims: claims}
	var a answer
	if refused < 0 {
		a.set = a.limitHeaders(nil, &d)
	} else {
		c := &claims[refused]
		d.Outcome, d.Reason = Throttled, RateLimited
		d.Limit, d.Decision = c.Limiter.Spec(), c.Decision
		d.RetryAfter = retryAfter(c.Decision.Wait, rand.Float64())
		a.refuse(&View{}, &d)
	}
	r := Reply{Body: a.body}
	if len(a.set) > 0 {
		r.Headers = make([]ReplyHeader, len(a.set))
	}
	for i, h := range a.set {
		r.Headers[i] = ReplyHeader{Name: h.name, Value: string(h.value)}
	}
	return r
}
