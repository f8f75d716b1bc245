package admin

import (
	"context"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// maxOverlap bounds how long a rotated secret works on.
const maxOverlap = 366 * 24 * time.Hour

func (a *API) listTokens(w http.ResponseWriter, r *http.Request) error {
	c, err := a.o.Store.Consumer(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	list := Tokens{Tokens: []Token{}}
	for _, t := range c.Tokens {
		list.Tokens = append(list.Tokens, a.shownToken(t))
	}
	return answer(w, http.StatusOK, list)
}

func (a *API) shownToken(t consumers.Token) Token {
	v := Token{ID: t.ID, Expires: known(t.Expires), Created: known(t.Created)}
	if t.PreviousUntil.After(a.o.Clock.Now().Std()) {
		v.PreviousUntil = &t.PreviousUntil
	}
	return v
}

// beforeToken returns a token as events show it, nil if there is none.
func (a *API) beforeToken(ctx context.Context, consumer, token string) any {
	c, err := a.o.Store.Consumer(ctx, consumer)
	if i := slices.IndexFunc(c.Tokens, func(t consumers.Token) bool { return t.ID == token }); err == nil && i >= 0 {
		return a.shownToken(c.Tokens[i])
	}
	return nil // the change itself will say why
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (a *API) issueToken(w http.ResponseWriter, r *http.Request) error {
	var body NewToken
	if err := read(w, r, &body); err != nil {
		return err
	}
	if err := consumers.CheckID(body.ID); err != nil {
		return problemf(http.StatusUnprocessableEntity, "%v", err)
	}
	id, now := r.PathValue("id"), a.o.Clock.Now().Std()
	t := consumers.Token{ID: body.ID, Created: now.Truncate(time.Second)}
	if body.Expires != nil {
		t.Expires = body.Expires.UTC()
		if !t.Expires.After(now) || t.Expires.After(time.Unix(0, math.MaxInt64)) {
			return problemf(http.StatusUnprocessableEntity, "expires: %s: want a time that is still to come and before the year 2262", body.Expires.Format(time.RFC3339))
		}
	}
	secret := consumers.NewToken()
	t.Hash = consumers.HashOf(secret)
	if err := a.o.Store.IssueToken(r.Context(), id, t); err != nil {
		return err
	}
	a.audit(r, issueToken, tokenName(id, t.ID), nil, a.shownToken(t))
	return answer(w, http.StatusCreated, Issued{ID: t.ID, Token: secret, Expires: known(t.Expires)})
}

func (a *API) rotateToken(w http.ResponseWriter, r *http.Request) error {
	var body Rotation
	if r.ContentLength != 0 {
		if err := read(w, r, &body); err != nil {
			return err
		}
	}
	overlap := time.Duration(0)
	if body.Overlap != "" {
		d, err := time.ParseDuration(body.Overlap)
		if err != nil || d < 0 || d > maxOverlap {
			return problemf(http.StatusUnprocessableEntity, "overlap: %q: want a duration such as 1h, at most %s", body.Overlap, maxOverlap)
		}
		overlap = d
	}
	var until time.Time
	if overlap > 0 {
		until = a.o.Clock.Now().Std().Add(overlap)
	}
	id, token, secret := r.PathValue("id"), r.PathValue("token"), consumers.NewToken()
	before := a.beforeToken(r.Context(), id, token)
	t, err := a.o.Store.RotateToken(r.Context(), id, token, consumers.HashOf(secret), until)
	if err != nil {
		return err
	}
	a.audit(r, rotateToken, tokenName(id, token), before, a.shownToken(t))
	return answer(w, http.StatusCreated, Issued{ID: t.ID, Token: secret, Expires: known(t.Expires)})
}

func (a *API) revokeToken(w http.ResponseWriter, r *http.Request) error {
	id, token := r.PathValue("id"), r.PathValue("token")
	before := a.beforeToken(r.Context(), id, token)
	if err := a.o.Store.RevokeToken(r.Context(), id, token); err != nil {
		return err
	}
	a.audit(r, revokeToken, tokenName(id, token), before, nil)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
