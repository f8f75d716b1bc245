package server_test

import (
	"fmt"
	"testing"
)

// TestTheVeryNextDecision: what the API has acknowledged, the next decision
// through the gRPC listener uses, for each of 100 changes of each kind.
func TestTheVeryNextDecision(t *testing.T) {
	r := start(t, base+"plans: {open: {limit: none}, shut: {limit: 0/s}}\n")
	token := r.newToken(t, "billing", "none")
	next := func(what string, want int) {
		t.Helper()
		if got := r.check(t, token); got != want {
			t.Fatalf("%s: the next decision is %d, want %d", what, got, want)
		}
	}
	for i := range 100 {
		for _, c := range []struct {
			what, body string
			want       int
		}{
			{"limit 0/s", `{"limits":"0/s"}`, 429},
			{"limit none", `{"limits":"none"}`, 200},
			{"plan shut", `{"plan":"shut"}`, 429},
			{"plan open", `{"plan":"open"}`, 200},
			{"disabled", `{"limits":"none","disabled":true}`, 403},
			{"enabled", `{"limits":"none"}`, 200},
		} {
			r.must(t, 200, "PUT", "/v1/consumers/billing", c.body, nil)
			next(fmt.Sprintf("change %d to %s", i, c.what), c.want)
		}
		old, issued := token, struct{ Token string }{}
		r.must(t, 201, "POST", "/v1/consumers/billing/tokens/prod/rotate", `{}`, &issued)
		next("the secret before a rotation", 401)
		token = issued.Token
		next("the secret of a rotation", 200)
		r.must(t, 204, "DELETE", "/v1/consumers/billing/tokens/prod", "", nil)
		next("a revoked token", 401)
		r.must(t, 201, "POST", "/v1/consumers/billing/tokens", `{"id":"prod"}`, &issued)
		next("a revoked token whose id was issued again", 401)
		token = old
		next("an older secret", 401)
		token = issued.Token
		next("the token that was issued", 200)
		r.must(t, 204, "DELETE", "/v1/consumers/billing", "", nil)
		next("a removed consumer's token", 401)
		token = r.newToken(t, "billing", "none")
	}
}
