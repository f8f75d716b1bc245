package consumers

import (
	"context"
	"fmt"
	"time"
)

// ReadOnly is the [Store] of a source that cannot be written to: it shows what
// the registry holds.
type ReadOnly struct {
	registry *Registry
	refresh  func(context.Context) error
}

// NewReadOnly returns a store over a registry that somebody else keeps up to
// date; refresh makes him do it now.
func NewReadOnly(r *Registry, refresh func(context.Context) error) *ReadOnly {
	return &ReadOnly{registry: r, refresh: refresh}
}

// List is Store.List.
func (s *ReadOnly) List(_ context.Context, after string, n int) (page []Consumer, next string, err error) {
	page = s.registry.List(after, n+1)
	if len(page) > n {
		page = page[:n]
		next = page[n-1].ID
	}
	return page, next, nil
}

// Consumer is Store.Consumer.
func (s *ReadOnly) Consumer(_ context.Context, id string) (Consumer, error) {
	c, ok := s.registry.Lookup(id)
	if !ok {
		return c, fmt.Errorf("consumer %q: %w", id, ErrNotFound)
	}
	return c, nil
}

// Refresh is Store.Refresh.
func (s *ReadOnly) Refresh(ctx context.Context) error { return s.refresh(ctx) }

// Put returns [ErrReadOnly].
func (s *ReadOnly) Put(context.Context, Consumer, Match) (Consumer, error) {
	return Consumer{}, ErrReadOnly
}

// Delete returns [ErrReadOnly].
func (s *ReadOnly) Delete(context.Context, string, Match) error { return ErrReadOnly }

// IssueToken returns [ErrReadOnly].
func (s *ReadOnly) IssueToken(context.Context, string, Token) error { return ErrReadOnly }

// RotateToken returns [ErrReadOnly].
func (s *ReadOnly) RotateToken(context.Context, string, string, Hash, time.Time) (Token, error) {
	return Token{}, ErrReadOnly
}

// RevokeToken returns [ErrReadOnly].
func (s *ReadOnly) RevokeToken(context.Context, string, string) error { return ErrReadOnly }
