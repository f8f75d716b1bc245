package consumers

import (
	"fmt"
	"slices"
	"time"
)

// What follows changes the tokens of a consumer as every store that can be
// written to does; what they return is what Store promises.

// IssueToken adds a token without a previous secret. The error is
// ErrExists.
func (c *Consumer) IssueToken(t Token) error {
	if c.token(t.ID) >= 0 {
		return fmt.Errorf("token %q of consumer %q: %w", t.ID, c.ID, ErrExists)
	}
	c.Tokens = append(c.Tokens, Token{ID: t.ID, Hash: t.Hash, Expires: t.Expires, Created: t.Created})
	return nil
}

// RotateToken gives a token another secret and returns it; the old secret is
// good until then, if that is still to come. The error is ErrNotFound.
func (c *Consumer) RotateToken(id string, secret Hash, now, until time.Time) (Token, error) {
	i := c.token(id)
	if i < 0 {
		return Token{}, c.noToken(id)
	}
	t := &c.Tokens[i]
	previous := t.Hash
	t.Hash, t.Previous, t.PreviousUntil = secret, Hash{}, time.Time{}
	if until.After(now) {
		t.Previous, t.PreviousUntil = previous, until
	}
	return *t, nil
}

// RevokeToken takes a token away. The error is ErrNotFound.
func (c *Consumer) RevokeToken(id string) error {
	i := c.token(id)
	if i < 0 {
		return c.noToken(id)
	}
	c.Tokens = slices.Delete(c.Tokens, i, i+1)
	return nil
}

func (c *Consumer) token(id string) int {
	return slices.IndexFunc(c.Tokens, func(t Token) bool { return t.ID == id })
}

func (c *Consumer) noToken(id string) error {
	return fmt.Errorf("token %q of consumer %q: %w", id, c.ID, ErrNotFound)
}
