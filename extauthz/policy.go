package extauthz

import (
	"regexp"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Mode is the global switch over limits. 401 and 403 do not depend on it.
type Mode int

// The modes.
const (
	Enforce Mode = iota
	Shadow       // decide and count, refuse nobody
	Off          // do not even decide
)

// Headers says which rate-limit headers clients get.
type Headers int

// The header styles.
const (
	HeadersIETF    Headers = iota // RateLimit-Policy and RateLimit, as the current IETF draft
	HeadersDraft03                // X-RateLimit-*, as Envoy itself
	HeadersNone
)

// Place is where a credential may stand; exactly one of its fields but Scheme is set.
type Place struct {
	Header    string // lower case
	Scheme    string // of Header: "Bearer"; "none" or empty: the whole value
	Query     string
	Cookie    string
	Principal bool
	Metadata  []string // namespace, then the path of keys
}

// Source is one entry of a descriptor line: where a descriptor's key takes its value from.
type Source struct {
	Key   string
	From  string         // consumer, token, label, method, path, host, header, query, remote_address, principal, metadata, context
	Name  string         // of label, header, query, context; of metadata the namespace
	Field string         // of metadata: the key
	Regex *regexp.Regexp // its first group, or the whole match, is the value; nil: all of it
}

// Policy is the configured part of a decision. It is immutable; a Server swaps it whole.
type Policy struct {
	Credentials []Place
	Strip       bool
	Anonymous   string // consumer of requests without a token; empty: refuse them
	Mode        Mode
	Headers     Headers
	Domain      string
	Descriptors [][]Source
}

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

// Event is one finished decision, for an Observer. Its strings may be kept.
type Event struct {
	API      string // "ext_authz" or "ratelimit"
	Outcome  Outcome
	Domain   string
	Rule     string // the deciding rule's path, or empty
	Consumer string
	Token    string
	Limit    *limits.Spec // the limit that decided, or nil
	Decision limits.Decision
	Took     time.Duration
	Wait     time.Duration // how long it was held

	// Of refusals only, for the log line.
	Method, Path, RequestID, TraceID string
}

// Observer is told of every decision, on the deciding goroutine: it must not
// block and, unless the event is a refusal, not allocate.
type Observer interface {
	Observe(e *Event)
}
