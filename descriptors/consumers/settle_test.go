package consumers_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// secretOf is that of the consumer idOf.
func secretOf(i int) string { return fmt.Sprintf("secret-%05d", i) }
func idOf(i int) string     { return fmt.Sprintf("consumer-%05d", i) }

// fill loads n consumers with a token each, on the plan "p".
func fill(t *testing.T, r *consumers.Registry, now limits.Time, limit string, n int) {
	t.Helper()
	err := r.Load(now, map[string]consumers.Plan{"p": {Limits: list(t, limit)}}, func(yield func(consumers.Consumer, error) bool) {
		for i := range n {
			if !yield(consumers.Consumer{ID: idOf(i), Plan: "p", Tokens: []consumers.Token{token("prod", secretOf(i))}}, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// settle has everything done that changes left, and returns in how many pieces.
func settle(r *consumers.Registry) (pieces int) {
	for r.Settle() {
		pieces++
	}
	return pieces
}

// TestChangeOfAllKeepsNobodyWaiting: a change of all consumers is in force when it
// returns, for each kind of request, though it brought up no more than a few of
// them; what it left is done in small pieces, between which everybody else goes on.
func TestChangeOfAllKeepsNobodyWaiting(t *testing.T) {
	const n, used = 5000, 3
	plan := func(limit string) map[string]consumers.Plan {
		return map[string]consumers.Plan{"p": {Limits: list(t, limit)}}
	}
	for name, change := range map[string]func(*consumers.Registry) error{
		"plans": func(r *consumers.Registry) error { return r.SetPlans(start, plan(`[{"quota":"20/day"}]`)) },
		"the whole set": func(r *consumers.Registry) error {
			fill(t, r, start, `[{"quota":"20/day"}]`, n-1)
			return nil
		},
	} {
		r := consumers.NewRegistry(consumers.RegistryOptions{})
		fill(t, r, start, `[{"quota":"10/day"}]`, n)
		for i := range n - 1 { // one is left to ask for the first time
			if i == 0 {
				continue
			}
			take(t, r, start, secretOf(i), used)
			r.Consumer(start, idOf(i))
		}
		if err := change(r); err != nil {
			t.Fatal(err)
		}
		check := func(when string, i, want int) {
			t.Helper()
			if got := take(t, r, start, secretOf(i), 100); got != want {
				t.Errorf("%s, %s: %d of 20/day were admitted to %s, want %d", name, when, got, idOf(i), want)
			}
			if g, _ := r.Consumer(start, idOf(i)); takeFrom(start, g, 100) != 20 {
				t.Errorf("%s, %s: not 20/day for %s by its id", name, when, idOf(i))
			}
		}
		left := 20 - 2*used // in proportion
		check("first request", 0, 20)
		for i := 1; i < 200; i++ {
			check("before anything is settled", i, left)
		}
		all, ok := r.Usage(start, idOf(300))
		if !ok || all[0].Remaining != int64(left) {
			t.Errorf("%s: Usage = %+v, %v, want %d that remain", name, all, ok, left)
		}
		put(t, r, start, consumers.Consumer{ID: idOf(301), Limits: list(t, `[{"quota":"40/day"}]`), Tokens: []consumers.Token{token("prod", secretOf(301))}})
		if got := take(t, r, start, secretOf(301), 100); got != 2*left {
			t.Errorf("%s: %d of 40/day were admitted after a change in between, want %d", name, got, 2*left)
		}
		r.Remove(start, idOf(302))
		if _, standing := r.Resolve(start, secretOf(302)); standing != consumers.Unknown {
			t.Errorf("%s: a consumer that was removed in between is %v", name, standing)
		}
		put(t, r, start, consumers.Consumer{ID: idOf(302), Plan: "p", Tokens: []consumers.Token{token("prod", secretOf(302))}})
		check("removed and put back in between", 302, left)
		const byChange = 1000 / consumers.Piece // pieces that the change itself may have done
		if pieces := settle(r); pieces < n/consumers.Piece-byChange-2 {
			t.Errorf("%s: what was left of %d consumers took %d pieces: not %d in each", name, n, pieces, consumers.Piece)
		}
		for i := 400; i < n-1; i += 7 {
			check("settled", i, left)
		}
	}
}

// TestWhoIsGoneIsRemembered: a token that a new set lacks, and a later one has
// again, has used what it used, whether or not anybody settled in between.
func TestWhoIsGoneIsRemembered(t *testing.T) {
	for _, settled := range []bool{true, false} {
		r := consumers.NewRegistry(consumers.RegistryOptions{}).SettleLater()
		fill(t, r, start, `[{"quota":"10/day"}]`, 300)
		for i := range 300 {
			take(t, r, start, secretOf(i), 4)
		}
		fill(t, r, start, `[{"quota":"10/day"}]`, 100)
		if _, standing := r.Resolve(start, secretOf(200)); standing != consumers.Unknown {
			t.Errorf("settled %v: a token that is gone is %v, want Unknown", settled, standing)
		}
		if settled {
			settle(r)
		}
		put(t, r, start, consumers.Consumer{ID: idOf(200), Plan: "p", Tokens: []consumers.Token{token("prod", secretOf(200))}})
		if got := take(t, r, start, secretOf(200), 100); got != 6 {
			t.Errorf("settled %v: put back, %d of 10/day were admitted, want 6", settled, got)
		}
		fill(t, r, start, `[{"quota":"10/day"}]`, 300)
		for _, i := range []int{0, 99, 100, 299} {
			if got := take(t, r, start, secretOf(i), 100); got != 6 {
				t.Errorf("settled %v: loaded again, %d of 10/day were admitted to %s, want 6", settled, got, idOf(i))
			}
		}
	}
}

// TestManyChangesUnsettled: limiters that nobody asked for in hundreds of changes
// are not taken for those of the last, however many there were.
func TestManyChangesUnsettled(t *testing.T) {
	for _, changes := range []int{254, 255, 256, 257, 512} {
		r := consumers.NewRegistry(consumers.RegistryOptions{}).SettleLater()
		fill(t, r, start, `"1/s"`, 1)
		take(t, r, start, secretOf(0), 1)
		for i := range changes {
			now := start.Add(time.Duration(i) * time.Millisecond)
			if err := r.SetPlans(now, map[string]consumers.Plan{"p": {Limits: list(t, fmt.Sprintf(`"%d/s"`, i+2))}}); err != nil {
				t.Fatal(err)
			}
		}
		g, _ := r.Resolve(start, secretOf(0))
		if got := g.Limiter(0).Spec().Limit().N; got != int64(changes+1) {
			t.Errorf("after %d changes the limit is %d/s, want %d/s", changes, got, changes+1)
		}
	}
}
