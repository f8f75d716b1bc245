package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/events"
)

// What the API does to its objects, as events say it.
const (
	setConsumer    = "consumer.set"
	removeConsumer = "consumer.remove"
	issueToken     = "token.issue"
	rotateToken    = "token.rotate"
	revokeToken    = "token.revoke"
	resetUsage     = "usage.reset"
	setSettings    = "settings.set"
	refreshSource  = "source.refresh"
	endPressure    = "upstream.reset"
	backUpStore    = "store.backup"
)

// audit tells of a change that was made. before and after hold no secret: of
// tokens they are what the API lists.
func (a *API) audit(r *http.Request, kind, what string, before, after any) {
	a.o.Events.Publish(a.o.Clock.Now().Std(), events.Event{Kind: kind, What: what, Actor: a.actor(r), Before: before, After: after})
}

// actor says who calls. There is one admin token; whoever has it is told apart
// by the address only.
func (a *API) actor(r *http.Request) string {
	if a.o.AdminToken() == (config.TokenHash{}) {
		return "local " + r.RemoteAddr
	}
	return "admin " + r.RemoteAddr
}

func consumerName(id string) string { return "consumer " + id }

func tokenName(consumer, token string) string { return "token " + token + " of consumer " + consumer }

// raceAttempts is how often a change without a condition is tried on the
// version that was read, so that the event tells what it really replaced.
const raceAttempts = 10

// replace changes a consumer and returns what it was: nil, there was none. A
// change without a condition gets one here, that of the version just read.
func (a *API) replace(ctx context.Context, id string, m consumers.Match, change func(consumers.Match) error) (any, error) {
	for try := 1; ; try++ {
		before, version, err := a.before(ctx, id)
		if err != nil {
			return nil, err
		}
		if m != consumers.Always || try == raceAttempts {
			version = m
		}
		err = change(version)
		lost := errors.Is(err, consumers.ErrConflict) || errors.Is(err, consumers.ErrExists)
		if !lost || m != consumers.Always || try == raceAttempts {
			return before, err
		}
	}
}

// before returns a consumer as events show it, nil if there is none, and the
// condition that it is still so.
func (a *API) before(ctx context.Context, id string) (any, consumers.Match, error) {
	c, err := a.o.Store.Consumer(ctx, id)
	switch {
	case errors.Is(err, consumers.ErrNotFound):
		return nil, consumers.IfAbsent, nil
	case err != nil:
		return nil, 0, err
	}
	return shown(c), consumers.Match(c.Version), nil
}
