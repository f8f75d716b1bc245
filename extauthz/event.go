package extauthz

import (
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Outcome is the word for how a request went, as metrics, logs and Envoy's metadata spell it.
type Outcome string

// The outcomes.
const (
	Admitted        Outcome = "admitted"
	Throttled       Outcome = "throttled"
	Unauthenticated Outcome = "unauthenticated"
	Forbidden       Outcome = "forbidden"
	Shadowed        Outcome = "shadowed" // admitted, would have been throttled
	Failed          Outcome = "error"
)

// Event is one finished decision, for an Observer. Its strings may be kept, but for those that say otherwise.
type Event struct {
	API      string // "ext_authz" or "ratelimit"
	Outcome  Outcome
	Reason   Reason // why it was refused; empty: it was not
	Domain   string
	Rule     string // the deciding rule's label, or empty
	Upstream string // where the request leads out to, or empty
	Consumer string
	Token    string
	Limit    *limits.Spec // the limit that decided, or nil
	Decision limits.Decision
	Took     time.Duration // to decide, without Wait
	Wait     time.Duration // how long it was held

	// Of refusals only, and valid until Observe returns. Path is as it was sent,
	// with what may hold a credential: NormalPath is what may be shown.
	Method, Path, RequestID string

	// Of refusals, and of all where the observer records traces.
	Trace Trace
}

// Observer is told of every decision, on the deciding goroutine: it must not
// block and, unless the event is a refusal, not allocate. The Event is reused
// after the call.
type Observer interface {
	Observe(e *Event)
}
