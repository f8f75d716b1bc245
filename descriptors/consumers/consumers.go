package consumers

import (
	"crypto/sha256"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Limit is a limit in a consumer or a plan.
type Limit struct {
	limits.Limit
	PerConsumer bool // per: consumer; all its tokens share one limiter
	OnError     string
}

// Consumer is who calls. Values handed out by a Registry are shared and must not be changed.
type Consumer struct {
	ID       string
	Plan     string
	Limits   []Limit // its own, in place of its plan's; nil means the plan's or the default
	Labels   map[string]string
	Disabled bool
	Tokens   []Token
	Version  uint64 // grows with every change, for ETags
}

// Token is one credential of a consumer. Only the hash of its secret is known.
type Token struct {
	ID            string
	Hash          Hash
	Expires       time.Time // zero: never
	Created       time.Time
	Previous      Hash // the secret before the last rotation
	PreviousUntil time.Time
}

// Hash is the SHA-256 of a credential.
type Hash [sha256.Size]byte

// HashOf hashes a credential as it stands in the request.
func HashOf(credential string) Hash { panic("skeleton") }

// Plan is a named list of limits.
type Plan struct{ Limits []Limit }

// Set is everything that a source holds.
type Set struct {
	Plans     map[string]Plan
	Consumers []Consumer
}

// Standing is what a credential is worth.
type Standing int

// The standings.
const (
	Unknown  Standing = iota // nobody's, malformed or revoked
	Expired                  // was somebody's
	Disabled                 // its consumer is disabled
	Valid
)

// Grant is what one valid token, or one consumer by id, may take from. Immutable
// but for its limiters.
type Grant struct {
	Consumer *Consumer
	Token    string // the token's id; empty for a grant by consumer id
	Limiters []*limits.Limiter
}

// Registry answers for credentials from one immutable snapshot. Safe for concurrent use.
type Registry struct{}

// RegistryOptions are the defaults of consumers that name nothing.
type RegistryOptions struct {
	Default *limits.Limit // nil: unlimited
	WarmUp  limits.WarmUp // for every rate
}

// NewRegistry returns a registry that knows nobody.
func NewRegistry(o RegistryOptions) *Registry { panic("skeleton") }

// Resolve finds the grant of a credential. Nothing is allocated, and nothing is
// kept of a credential that nobody issued.
func (r *Registry) Resolve(now limits.Time, credential string) (*Grant, Standing) { panic("skeleton") }

// Consumer finds the grant by a consumer's id; all calls by id share one set of limiters.
func (r *Registry) Consumer(now limits.Time, id string) (*Grant, Standing) { panic("skeleton") }

// Replace puts a whole set in force; limiters of tokens that remain are carried over.
func (r *Registry) Replace(now limits.Time, s Set) error { panic("skeleton") }

// Put adds or changes one consumer; Remove takes it away. The next decision knows.
func (r *Registry) Put(now limits.Time, c Consumer) error { panic("skeleton") }

// Remove takes a consumer and its tokens away.
func (r *Registry) Remove(now limits.Time, id string) { panic("skeleton") }

// SetOptions changes the defaults, in force with the next decision.
func (r *Registry) SetOptions(now limits.Time, o RegistryOptions) { panic("skeleton") }
