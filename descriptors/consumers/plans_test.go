package consumers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

func plans(t *testing.T, free string) map[string]consumers.Plan {
	t.Helper()
	return map[string]consumers.Plan{"free": {Limits: list(t, free)}, "pro": {Limits: list(t, `[{"rate":"none"}]`)}}
}

// TestChangedPlanCountsAtOnce: for all its consumers, with what they have used,
// in proportion: 6 of 10 are 4.8 of 8.
func TestChangedPlanCountsAtOnce(t *testing.T) {
	r := known(t, consumers.RegistryOptions{})
	if err := r.SetPlans(start, plans(t, `[{"quota":"10/day"}]`)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		put(t, r, start, consumers.Consumer{ID: id, Plan: "free", Tokens: []consumers.Token{token("t", id)}})
	}
	put(t, r, start, consumers.Consumer{ID: "own", Plan: "free", Limits: list(t, `[{"quota":"1/day"}]`), Tokens: []consumers.Token{token("t", "own")}})
	if got := take(t, r, start, "a", 6); got != 6 {
		t.Fatalf("%d of 6 were admitted under 10 a day", got)
	}
	if err := r.SetPlans(start, plans(t, `[{"quota":"8/day"}]`)); err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]int{"a": 3, "b": 8, "own": 1} {
		if got := take(t, r, start, secret, 100); got != want {
			t.Errorf("%s: %d more were admitted after the plan went from 10 to 8, want %d", secret, got, want)
		}
	}
	put(t, r, start, consumers.Consumer{ID: "a", Plan: "pro", Tokens: []consumers.Token{token("t", "a")}})
	if got := take(t, r, start, "a", 100); got != 100 {
		t.Errorf("%d of 100 were admitted under an unlimited plan", got)
	}
}

// TestSetPlansIsWholeOrNotAtAll: what a consumer has does not go away.
func TestSetPlansIsWholeOrNotAtAll(t *testing.T) {
	r := known(t, consumers.RegistryOptions{})
	if err := r.SetPlans(start, plans(t, `[{"quota":"10/day"}]`)); err != nil {
		t.Fatal(err)
	}
	put(t, r, start, consumers.Consumer{ID: "a", Plan: "free", Tokens: []consumers.Token{token("t", "a")}})
	for name, c := range map[string]struct {
		plans map[string]consumers.Plan
		want  string
	}{
		"gone": {map[string]consumers.Plan{"pro": {}, "best": {}}, `consumer "a": unknown plan "free": want one of best, pro`},
		"none": {nil, `consumer "a": unknown plan "free": no plans are configured`},
		"bad": {map[string]consumers.Plan{"free": {Limits: consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: -1, Period: time.Second}}}}},
			`plan "free": limit 1`},
	} {
		if err := r.SetPlans(start, c.plans); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: SetPlans = %v, want %s", name, err, c.want)
		}
	}
	if got := take(t, r, start, "a", 100); got != 10 {
		t.Errorf("%d were admitted after changes that failed, want the 10 of before", got)
	}
	err := r.Load(start, nil, func(yield func(consumers.Consumer, error) bool) {
		yield(consumers.Consumer{ID: "b", Plan: "free", Tokens: []consumers.Token{token("t", "b")}}, nil)
	})
	if err != nil {
		t.Errorf("Load without plans forgot those in force: %v", err)
	}
}
