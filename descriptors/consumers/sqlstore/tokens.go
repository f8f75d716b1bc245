package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// IssueToken is Store.IssueToken.
func (s *Store) IssueToken(ctx context.Context, id string, t consumers.Token) error {
	return s.tokens(ctx, id, func(ctx context.Context, tx *sql.Tx, c *consumers.Consumer) error {
		if tokenOf(c, t.ID) >= 0 {
			return fmt.Errorf("token %q of consumer %q: %w", t.ID, id, consumers.ErrExists)
		}
		c.Tokens = append(c.Tokens, consumers.Token{ID: t.ID, Hash: t.Hash, Expires: t.Expires, Created: t.Created})
		if err := s.o.Registry.Check(*c); err != nil {
			return err
		}
		return s.exec(ctx, tx, "INSERT INTO tollgate_tokens (consumer, id, sha256, expires, created) VALUES (?, ?, ?, ?, ?)",
			id, t.ID, t.Hash[:], given(t.Expires), given(t.Created))
	})
}

// RotateToken is Store.RotateToken.
func (s *Store) RotateToken(ctx context.Context, id, token string, secret consumers.Hash, until time.Time) (t consumers.Token, err error) {
	err = s.tokens(ctx, id, func(ctx context.Context, tx *sql.Tx, c *consumers.Consumer) error {
		i := tokenOf(c, token)
		if i < 0 {
			return noToken(id, token)
		}
		t = c.Tokens[i]
		previous := t.Hash
		t.Hash, t.Previous, t.PreviousUntil = secret, consumers.Hash{}, time.Time{}
		if until.After(s.o.Clock.Now().Std()) {
			t.Previous, t.PreviousUntil = previous, until.UTC().Truncate(time.Microsecond)
		}
		c.Tokens[i] = t
		if err := s.o.Registry.Check(*c); err != nil {
			return err
		}
		var was []byte
		if !t.Previous.Zero() {
			was = t.Previous[:]
		}
		return s.exec(ctx, tx, "UPDATE tollgate_tokens SET sha256 = ?, previous = ?, previous_until = ? WHERE consumer = ? AND id = ?",
			secret[:], was, given(t.PreviousUntil), id, token)
	})
	return t, err
}

// RevokeToken is Store.RevokeToken.
func (s *Store) RevokeToken(ctx context.Context, id, token string) error {
	return s.tokens(ctx, id, func(ctx context.Context, tx *sql.Tx, c *consumers.Consumer) error {
		if tokenOf(c, token) < 0 {
			return noToken(id, token)
		}
		return s.exec(ctx, tx, "DELETE FROM tollgate_tokens WHERE consumer = ? AND id = ?", id, token)
	})
}

// tokens changes the tokens of a consumer that must be there.
func (s *Store) tokens(ctx context.Context, id string, f func(ctx context.Context, tx *sql.Tx, c *consumers.Consumer) error) error {
	_, err := s.change(ctx, id, func(ctx context.Context, tx *sql.Tx, c *consumers.Consumer) error {
		if c == nil {
			return fmt.Errorf("consumer %q: %w", id, consumers.ErrNotFound)
		}
		if err := f(ctx, tx, c); err != nil {
			return err
		}
		return s.exec(ctx, tx, "UPDATE tollgate_consumers SET version = ? WHERE id = ?", rand.Int64(), id)
	})
	return err
}

func tokenOf(c *consumers.Consumer, id string) int {
	return slices.IndexFunc(c.Tokens, func(t consumers.Token) bool { return t.ID == id })
}

func noToken(consumer, token string) error {
	return fmt.Errorf("token %q of consumer %q: %w", token, consumer, consumers.ErrNotFound)
}

// given is a time as a parameter: nil where there is none.
func given(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Truncate(time.Microsecond)
}
