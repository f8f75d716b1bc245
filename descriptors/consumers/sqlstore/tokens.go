package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// IssueToken is Store.IssueToken.
func (s *Store) IssueToken(ctx context.Context, id string, t consumers.Token) error {
	return s.tokens(ctx, id, func(ctx context.Context, tx *sql.Tx, c *consumers.Consumer) error {
		if err := c.IssueToken(t); err != nil {
			return err
		}
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
		var err error
		if t, err = c.RotateToken(token, secret, s.o.Clock.Now().Std(), until.UTC().Truncate(time.Microsecond)); err != nil {
			return err
		}
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
		if err := c.RevokeToken(token); err != nil {
			return err
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

// given is a time as a parameter: nil where there is none.
func given(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Truncate(time.Microsecond)
}
