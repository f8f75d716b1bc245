package extauthz

import (
	"math"
	"net/http"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// Reason is why a request is refused: the last part of a problem's type, and
// the value of x-tollgate-reason.
type Reason string

// The reasons.
const (
	MissingCredentials Reason = "missing-credentials"
	InvalidCredentials Reason = "invalid-credentials"
	ConsumerDisabled   Reason = "consumer-disabled"
	RateLimited        Reason = "rate-limited"
	UpstreamPressure   Reason = "upstream-pressure"
	StoreUnavailable   Reason = "store-unavailable" // of limits that instances share, with on_error: deny
)

// Status returns the HTTP status that goes with a reason, 0 for none.
func (r Reason) Status() int {
	switch r {
	case MissingCredentials, InvalidCredentials:
		return 401
	case ConsumerDisabled:
		return 403
	case RateLimited, UpstreamPressure:
		return 429
	case StoreUnavailable:
		return 503
	}
	return 0
}

// Verdict is what was decided about one request, with all that an answer to it
// says. It may be used again and again, by one decision at a time; its strings
// and slices are valid until the next.
type Verdict struct {
	Outcome    Outcome
	Reason     Reason // empty: admitted
	Consumer   string // id, empty if nobody is known
	Token      string // id, empty for a consumer without one
	Labels     map[string]string
	Domain     string
	Upstream   string       // id of the one that the request leads out to, or empty
	Rule       string       // label of the rule that decided, or empty
	Limit      *limits.Spec // the limit that decided, or nil
	Own        *limits.Spec // the caller's first limit where this request was not limited, for Envoy's ratelimit filter to bring along
	Decision   limits.Decision
	Cost       int64
	RetryAfter int64 // seconds, jitter included; 0: waiting does not help, or there is nothing to wait for
	At         limits.Time
	Wait       time.Duration // how long the request was held

	Headers Headers
	Answer  AnswerStyle
	Status  int  // of a refusal by a limit; 0: the reason's
	GRPC    bool // the client speaks gRPC
	Strip   bool // take the credentials off an admitted request

	// Claims are the limits that were asked, those of shadows included.
	Claims []limits.Claim

	plan     *plan
	clock    *limits.Clock    // that At was read from; nil: who asks says when it is
	answered bool             // the route names Answer
	why      upstreams.Reason // of a refusal on the way out
	entries  []descriptors.Entry
	matches  []match
	claimed  []int // for each claim the index of its match, or -1 for the consumer's own
}

// match is a rule and the descriptor that it matched, as a span of entries.
type match struct {
	rule     *descriptors.Rule
	from, to int
}

// reset empties d and keeps its memory.
func (d *Verdict) reset() {
	clear(d.Claims)
	clear(d.entries)
	clear(d.matches)
	*d = Verdict{Claims: d.Claims[:0], entries: d.entries[:0], matches: d.matches[:0], claimed: d.claimed[:0]}
}

// Allowed reports whether the request may pass.
func (d *Verdict) Allowed() bool { return d.Reason == "" }

// refuse settles on a refusal that no limit is the cause of.
func (d *Verdict) refuse(o Outcome, r Reason) {
	d.Outcome, d.Reason = o, r
}

// status returns the HTTP status of a refusal.
func (d *Verdict) status() int {
	if d.Status != 0 && d.Reason.Status() == http.StatusTooManyRequests {
		return d.Status
	}
	return d.Reason.Status()
}

// shows reports whether clients may see a claim in the rate-limit headers.
func shows(c *limits.Claim) bool {
	return !c.Shadow && !c.Limiter.Spec().Limit().Shadow
}

// retryAfter returns the seconds that a refused client is told to wait: never
// less than wait, and up to a quarter more (at most a minute) so that clients
// refused together do not return together. chance is drawn from [0,1).
func retryAfter(wait time.Duration, chance float64) int64 {
	if wait == limits.Never {
		return 0
	}
	jitter := chance * math.Min(float64(wait)/4, float64(time.Minute))
	seconds := math.Ceil((float64(wait) + jitter) / float64(time.Second))
	return max(1, ceilSeconds(wait), int64(seconds))
}

// ceilSeconds rounds up to whole seconds.
func ceilSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
