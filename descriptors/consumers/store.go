package consumers

import (
	"context"
	"errors"
	"math"
	"time"
)

// What stores answer when they cannot do what was asked. Test with errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrConflict = errors.New("was changed by somebody else in the meantime")
	ErrReadOnly = errors.New("the source of the consumers is read-only")

	// ErrUnavailable says that the source cannot be asked just now.
	ErrUnavailable = errors.New("the source of the consumers cannot be reached")
)

// Match is a condition on the version of what a call changes; where it does not
// hold, the call changes nothing and returns [ErrConflict] ([ErrExists] for
// IfAbsent). Other values than the named ones are the version to change.
type Match uint64

// The conditions that name no version.
const (
	Always   Match = 0
	IfAbsent Match = math.MaxUint64
)

// Store is a source of consumers as the admin API uses it. A change is durable
// and in force in the [Registry] when its call returns. Errors are [Problems]
// where a value cannot be meant, else wrap one of the above where they apply.
// All methods are safe for concurrent use.
type Store interface {
	// List returns up to n consumers in the order of their ids, beginning
	// behind the id after, and where the next page begins: "" behind the last.
	List(ctx context.Context, after string, n int) (page []Consumer, next string, err error)

	// Consumer returns one consumer with its tokens.
	Consumer(ctx context.Context, id string) (Consumer, error)

	// Put adds a consumer or changes one. Tokens are left as they are: c.Tokens
	// and c.Version are ignored. It returns what is stored now.
	Put(ctx context.Context, c Consumer, m Match) (Consumer, error)

	// Delete removes a consumer and its tokens.
	Delete(ctx context.Context, id string, m Match) error

	// IssueToken adds a token to a consumer: its ID, Hash, Expires and Created.
	IssueToken(ctx context.Context, id string, t Token) error

	// RotateToken gives a token another secret; the old one is accepted until
	// the given time, or not at all where that is zero or past.
	RotateToken(ctx context.Context, id, token string, secret Hash, until time.Time) (Token, error)

	// RevokeToken removes a token.
	RevokeToken(ctx context.Context, id, token string) error

	// Refresh reads the source again, if it can change by itself, and returns
	// when that is in force.
	Refresh(ctx context.Context) error
}
