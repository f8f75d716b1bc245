package consumers_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// start is the instant at which tests begin.
var start = limits.At(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))

// list reads limits in their JSON form.
func list(t testing.TB, s string) consumers.Limits {
	t.Helper()
	var ls consumers.Limits
	if err := ls.UnmarshalJSON([]byte(s)); err != nil {
		t.Fatalf("limits %s: %v", s, err)
	}
	return ls
}

func token(id, secret string) consumers.Token {
	return consumers.Token{ID: id, Hash: consumers.HashOf(secret)}
}

// known returns a registry that holds the given consumers.
func known(t testing.TB, o consumers.RegistryOptions, cs ...consumers.Consumer) *consumers.Registry {
	t.Helper()
	r := consumers.NewRegistry(o)
	if err := r.Replace(start, consumers.Set{Consumers: cs}); err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t testing.TB, r *consumers.Registry, now limits.Time, c consumers.Consumer) {
	t.Helper()
	if err := r.Put(now, c); err != nil {
		t.Fatal(err)
	}
}

// take lets n requests of a credential in as far as they are allowed, and returns how many.
func take(t testing.TB, r *consumers.Registry, now limits.Time, secret string, n int) (admitted int) {
	t.Helper()
	g, standing := r.Resolve(now, secret)
	if standing != consumers.Valid {
		t.Fatalf("Resolve(%q) = %v, want Valid", secret, standing)
	}
	return takeFrom(now, g, n)
}

func takeFrom(now limits.Time, g consumers.Grant, n int) (admitted int) {
	claims := make([]limits.Claim, g.Len())
	for range n {
		for i := range claims {
			claims[i] = limits.Claim{Limiter: g.Limiter(i), N: 1}
		}
		if len(claims) == 0 || limits.TakeAll(now, claims) < 0 {
			admitted++
		}
	}
	return admitted
}

func TestResolve(t *testing.T) {
	issued := consumers.NewToken()
	rotated := token("rotated", "new")
	rotated.Previous, rotated.PreviousUntil = consumers.HashOf("old"), start.Add(time.Hour).Std()
	expiring := token("expiring", "short")
	expiring.Expires = start.Add(time.Minute).Std()
	far := token("far", "far")
	far.Expires = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	r := known(t, consumers.RegistryOptions{},
		consumers.Consumer{ID: "a", Tokens: []consumers.Token{token("t", "secret"), token("issued", issued), rotated, expiring, far}},
		consumers.Consumer{ID: "off", Disabled: true, Tokens: []consumers.Token{token("t", "off")}},
	)
	for _, c := range []struct {
		name, credential string
		after            time.Duration
		want             consumers.Standing
		consumer, token  string
	}{
		{"known", "secret", 0, consumers.Valid, "a", "t"},
		{"issued", issued, 0, consumers.Valid, "a", "issued"},
		{"unknown", "guess", 0, consumers.Unknown, "", ""},
		{"empty", "", 0, consumers.Unknown, "", ""},
		{"another case", "Secret", 0, consumers.Unknown, "", ""},
		{"malformed", "tg_guess", 0, consumers.Unknown, "", ""},
		{"before it expires", "short", time.Minute - 1, consumers.Valid, "a", "expiring"},
		{"when it expires", "short", time.Minute, consumers.Expired, "a", "expiring"},
		{"expires beyond what nanoseconds reach", "far", 24 * time.Hour, consumers.Valid, "a", "far"},
		{"rotated", "new", 0, consumers.Valid, "a", "rotated"},
		{"previous in the overlap", "old", time.Hour - 1, consumers.Valid, "a", "rotated"},
		{"previous after the overlap", "old", time.Hour, consumers.Expired, "a", "rotated"},
		{"disabled", "off", 0, consumers.Disabled, "off", "t"},
	} {
		g, got := r.Resolve(start.Add(c.after), c.credential)
		if got != c.want {
			t.Errorf("%s: Resolve(%q) = %v, want %v", c.name, c.credential, got, c.want)
			continue
		}
		if c.want == consumers.Unknown {
			if !g.Nobody() {
				t.Errorf("%s: Resolve(%q) has a grant of %s", c.name, c.credential, g.Consumer.ID)
			}
			continue
		}
		if g.Consumer.ID != c.consumer || g.Token != c.token {
			t.Errorf("%s: Resolve(%q) is %s/%s, want %s/%s", c.name, c.credential, g.Consumer.ID, g.Token, c.consumer, c.token)
		}
	}
	for id, want := range map[string]consumers.Standing{"a": consumers.Valid, "off": consumers.Disabled, "nobody": consumers.Unknown, "": consumers.Unknown} {
		if g, got := r.Consumer(start, id); got != want || g.Nobody() != (want == consumers.Unknown) {
			t.Errorf("Consumer(%q) = %v, %v, want %v", id, g, got, want)
		}
	}
}

func TestWhoseLimitsApply(t *testing.T) {
	r := consumers.NewRegistry(consumers.RegistryOptions{Default: list(t, `"20/s"`)})
	plans := map[string]consumers.Plan{"free": {Limits: list(t, `"5/s"`)}, "open": {Limits: consumers.Limits{}}, "bare": {}}
	cs := []consumers.Consumer{
		{ID: "default"},
		{ID: "plan", Plan: "free"},
		{ID: "own", Plan: "free", Limits: list(t, `[{"rate":"100/s"},{"quota":"10/day"}]`)},
		{ID: "unlimited", Plan: "free", Limits: list(t, `"none"`)},
		{ID: "open-plan", Plan: "open"},
		{ID: "bare-plan", Plan: "bare"},
	}
	for i := range cs {
		cs[i].Tokens = []consumers.Token{token("t", cs[i].ID)}
	}
	if err := r.Replace(start, consumers.Set{Plans: plans, Consumers: cs}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string][]string{
		"default": {"20"}, "plan": {"5"}, "own": {"100", "10"}, "unlimited": nil, "open-plan": nil, "bare-plan": {"20"},
	} {
		g, _ := r.Resolve(start, id)
		var got []string
		for i := range g.Len() {
			got = append(got, fmt.Sprint(g.Limiter(i).Spec().Limit().N))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limits of %s (-want +got):\n%s", id, diff)
		}
	}
	r.SetOptions(start, consumers.RegistryOptions{Default: list(t, `"7/s"`)})
	if g, _ := r.Resolve(start, "default"); g.Limiter(0).Spec().Limit().N != 7 {
		t.Errorf("after a new default the limit is %v", g.Limiter(0).Spec().Limit().N)
	}
	if g, _ := r.Resolve(start, "plan"); g.Limiter(0).Spec().Limit().N != 5 {
		t.Errorf("a new default changed a plan's limit to %v", g.Limiter(0).Spec().Limit().N)
	}
}

// TestChangeKeepsWhatWasUsed changes a consumer that has used up its limit: in
// no way does it get more at once, but for what the change says.
func TestChangeKeepsWhatWasUsed(t *testing.T) {
	const limit = `[{"quota":"10/day"}]`
	c := consumers.Consumer{ID: "a", Limits: list(t, limit), Tokens: []consumers.Token{token("t", "s")}}
	with := func(change func(*consumers.Consumer)) consumers.Consumer {
		d := c
		d.Tokens = slices.Clone(c.Tokens)
		change(&d)
		return d
	}
	rotated := with(func(c *consumers.Consumer) {
		c.Tokens[0] = consumers.Token{ID: "t", Hash: consumers.HashOf("s2"), Previous: consumers.HashOf("s"), PreviousUntil: start.Add(time.Hour).Std()}
	})
	for _, tc := range []struct {
		name   string
		secret string // after the change
		want   int    // admitted after it
		change func(t *testing.T, r *consumers.Registry)
	}{
		{"the same", "s", 0, func(t *testing.T, r *consumers.Registry) { put(t, r, start, c) }},
		{"labels", "s", 0, func(t *testing.T, r *consumers.Registry) {
			put(t, r, start, with(func(c *consumers.Consumer) { c.Labels = map[string]string{"a": "b"} }))
		}},
		{"another name", "s", 0, func(t *testing.T, r *consumers.Registry) {
			put(t, r, start, with(func(c *consumers.Consumer) { c.Limits = list(t, `[{"quota":"10/day","name":"q"}]`) }))
		}},
		{"a second limit before it", "s", 0, func(t *testing.T, r *consumers.Registry) {
			put(t, r, start, with(func(c *consumers.Consumer) { c.Limits = list(t, `[{"rate":"1/s"},{"quota":"10/day"}]`) }))
		}},
		{"another token", "s", 0, func(t *testing.T, r *consumers.Registry) {
			put(t, r, start, with(func(c *consumers.Consumer) { c.Tokens = append(c.Tokens, token("u", "u")) }))
		}},
		{"rotation, new secret", "s2", 0, func(t *testing.T, r *consumers.Registry) { put(t, r, start, rotated) }},
		{"rotation, old secret", "s", 0, func(t *testing.T, r *consumers.Registry) { put(t, r, start, rotated) }},
		{"revoked and issued again", "s", 0, func(t *testing.T, r *consumers.Registry) {
			put(t, r, start, with(func(c *consumers.Consumer) { c.Tokens = nil }))
			put(t, r, start, c)
		}},
		{"removed and added again", "s", 0, func(t *testing.T, r *consumers.Registry) {
			r.Remove(start, "a")
			put(t, r, start, c)
		}},
		{"limit taken away and added again", "s", 0, func(t *testing.T, r *consumers.Registry) {
			put(t, r, start, with(func(c *consumers.Consumer) { c.Limits = list(t, `"none"`) }))
			put(t, r, start, c)
		}},
		{"replaced", "s", 0, func(t *testing.T, r *consumers.Registry) {
			if err := r.Replace(start, consumers.Set{Consumers: []consumers.Consumer{c}}); err != nil {
				t.Fatal(err)
			}
		}},
		{"replaced by nothing and again", "s", 0, func(t *testing.T, r *consumers.Registry) {
			for _, s := range []consumers.Set{{}, {Consumers: []consumers.Consumer{c}}} {
				if err := r.Replace(start, s); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"disabled and enabled", "s", 0, func(t *testing.T, r *consumers.Registry) {
			put(t, r, start, with(func(c *consumers.Consumer) { c.Disabled = true }))
			put(t, r, start, c)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := known(t, consumers.RegistryOptions{}, c)
			if got := take(t, r, start, "s", 12); got != 10 {
				t.Fatalf("of 12 requests %d were admitted, want 10", got)
			}
			tc.change(t, r)
			if got := take(t, r, start, tc.secret, 12); got != tc.want {
				t.Errorf("after the change %d more were admitted, want %d", got, tc.want)
			}
		})
	}
}

// TestNoSecondGrace changes a token that has had its grace, within the idle period.
func TestNoSecondGrace(t *testing.T) {
	o := consumers.RegistryOptions{WarmUp: limits.WarmUp{Grace: time.Second}, Idle: time.Hour}
	c := consumers.Consumer{ID: "a", Limits: list(t, `"5/s"`), Tokens: []consumers.Token{token("t", "s")}}
	used := func(t *testing.T) (*consumers.Registry, limits.Time) {
		r := known(t, o, c)
		if got := take(t, r, start, "s", 100); got != 100 {
			t.Fatalf("in the grace %d of 100 were admitted", got)
		}
		return r, start.Add(10 * time.Minute)
	}
	for name, change := range map[string]func(t *testing.T, r *consumers.Registry, now limits.Time){
		"none":   func(*testing.T, *consumers.Registry, limits.Time) {},
		"put":    func(t *testing.T, r *consumers.Registry, now limits.Time) { put(t, r, now, c) },
		"remove": func(t *testing.T, r *consumers.Registry, now limits.Time) { r.Remove(now, "a"); put(t, r, now, c) },
		"none and back": func(t *testing.T, r *consumers.Registry, now limits.Time) {
			d := c
			d.Limits = consumers.Limits{}
			put(t, r, now, d)
			put(t, r, now, c)
		},
		"per consumer": func(t *testing.T, r *consumers.Registry, now limits.Time) {
			d := c
			d.Limits = list(t, `[{"rate":"5/s","per":"consumer"}]`)
			put(t, r, now, d)
		},
		"second rate": func(t *testing.T, r *consumers.Registry, now limits.Time) {
			d := c
			d.Limits = list(t, `[{"rate":"5/s"},{"rate":"6/s"}]`)
			put(t, r, now, d)
		},
		"restart": func(t *testing.T, r *consumers.Registry, now limits.Time) {
			states := r.Unsaved(start.Add(time.Second / 2))
			fresh := consumers.NewRegistry(o)
			fresh.Recall(states)
			if err := fresh.Replace(now, consumers.Set{Consumers: []consumers.Consumer{c}}); err != nil {
				t.Fatal(err)
			}
			if got := take(t, fresh, now, "s", 100); got > 5 {
				t.Errorf("after the restart %d were admitted at once, want at most 5", got)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, now := used(t)
			change(t, r, now)
			if got := take(t, r, now, "s", 100); got > 5 {
				t.Errorf("after the change %d were admitted at once, want at most 5", got)
			}
		})
	}
	t.Run("unlimited before", func(t *testing.T) {
		d := c
		d.Limits = consumers.Limits{}
		r := known(t, o, d)
		take(t, r, start, "s", 100)
		put(t, r, start, c)
		if got := take(t, r, start, "s", 100); got > 5 {
			t.Errorf("a limit on a token in use admitted %d at once, want at most 5", got)
		}
	})
	t.Run("forgotten after the idle period", func(t *testing.T) {
		r, _ := used(t)
		r.Remove(start, "a")
		now := start.Add(2 * time.Hour)
		put(t, r, now, c)
		if got := take(t, r, now, "s", 100); got != 100 {
			t.Errorf("after the idle period %d of 100 were admitted, want a new grace", got)
		}
	})
}

func TestChangedLimitCountsAtOnce(t *testing.T) {
	c := consumers.Consumer{ID: "a", Limits: list(t, `"10/s"`), Tokens: []consumers.Token{token("t", "s")}}
	r := known(t, consumers.RegistryOptions{}, c)
	before, _ := r.Resolve(start, "s")
	take(t, r, start, "s", 10)
	c.Limits = list(t, `"1000/s"`)
	put(t, r, start, c)
	after, _ := r.Resolve(start, "s")
	now := start.Add(time.Millisecond)
	if a, b := before.Limiter(0).Peek(now, 1), after.Limiter(0).Peek(now, 1); a != b {
		t.Errorf("a request that came before the change is answered %+v, one after it %+v", a, b)
	}
	if got := take(t, r, now, "s", 2); got == 0 {
		t.Error("a millisecond after a raise to 1000/s nothing is admitted")
	}
	c.Limits = list(t, `"0/s"`)
	put(t, r, now, c)
	if got := takeFrom(now.Add(time.Hour), before, 10); got != 0 {
		t.Errorf("after 0/s a request that came earlier was admitted %d times", got)
	}
}

func TestRevokedLimiterEnds(t *testing.T) {
	c := consumers.Consumer{ID: "a", Limits: list(t, `"10/s"`), Tokens: []consumers.Token{token("t", "s"), token("u", "u")}}
	r := known(t, consumers.RegistryOptions{}, c)
	g, _ := r.Resolve(start, "s")
	c.Tokens = c.Tokens[1:]
	put(t, r, start, c)
	if _, standing := r.Resolve(start, "s"); standing != consumers.Unknown {
		t.Errorf("a revoked token is %v", standing)
	}
	if got := takeFrom(start, g, 1); got != 0 {
		t.Error("a request that resolved before the revocation was admitted after it")
	}
	if got := take(t, r, start, "u", 20); got != 10 {
		t.Errorf("the other token admits %d, want 10", got)
	}
}

func TestPerConsumer(t *testing.T) {
	c := consumers.Consumer{
		ID: "a", Limits: list(t, `[{"rate":"10/s","per":"consumer"},{"rate":"8/s"}]`),
		Tokens: []consumers.Token{token("t", "s"), token("u", "u")},
	}
	r := known(t, consumers.RegistryOptions{}, c)
	if got := take(t, r, start, "s", 20); got != 8 {
		t.Errorf("the first token got %d, want its own 8", got)
	}
	if got := take(t, r, start, "u", 20); got != 2 {
		t.Errorf("the second token got %d, want the 2 that are left of the consumer's 10", got)
	}
	g, _ := r.Consumer(start, "a")
	if got := takeFrom(start, g, 20); got != 0 {
		t.Errorf("by id %d were admitted, want 0", got)
	}
	c.Tokens = append(c.Tokens, token("v", "v"))
	put(t, r, start, c)
	if got := take(t, r, start, "v", 20); got != 0 {
		t.Errorf("a new token got %d of a used-up limit per consumer", got)
	}
}

func TestCallsByIDHaveTheirOwn(t *testing.T) {
	c := consumers.Consumer{ID: "a", Limits: list(t, `"10/s"`), Tokens: []consumers.Token{token("t", "s")}}
	r := known(t, consumers.RegistryOptions{}, c)
	g, _ := r.Consumer(start, "a")
	if got := takeFrom(start, g, 20); got != 10 {
		t.Errorf("by id %d, want 10", got)
	}
	if got := take(t, r, start, "s", 20); got != 10 {
		t.Errorf("by token %d, want 10", got)
	}
	c.Labels = map[string]string{"x": "y"}
	put(t, r, start, c)
	g, _ = r.Consumer(start, "a")
	if got := takeFrom(start, g, 20); got != 0 {
		t.Errorf("by id after a change %d, want 0", got)
	}
}

func TestReplaceNamesEveryProblem(t *testing.T) {
	r := known(t, consumers.RegistryOptions{}, consumers.Consumer{ID: "kept", Tokens: []consumers.Token{token("t", "kept")}})
	bad := consumers.Set{
		Plans: map[string]consumers.Plan{"p p": {}, "twice": {Limits: list(t, `[{"rate":"1/s"},{"rate":"1/s"}]`)}},
		Consumers: []consumers.Consumer{
			{ID: "über"},
			{ID: strings.Repeat("x", 129)},
			{ID: ""},
			{ID: "dup"},
			{ID: "dup"},
			{ID: "a", Plan: "nowhere", Tokens: []consumers.Token{token("t", "s"), token("t", "s2"), {ID: "empty"}}},
			{ID: "b", Tokens: []consumers.Token{token("t", "s")}},
			{ID: "c", Limits: consumers.Limits{{Limit: limits.Limit{Kind: "bogus", N: 1}}}},
		},
	}
	err := r.Replace(start, bad)
	var ps consumers.Problems
	if !errors.As(err, &ps) {
		t.Fatalf("Replace = %v, want Problems", err)
	}
	for _, want := range []string{
		`plan "p p": id "p p": want only letters, digits and . _ @ -`,
		`plan "twice": limits 1 and 2 are both named rate-1-s`,
		`id "über"`,
		`is 129 characters long`,
		`an id is missing`,
		`consumer "dup": the id is given twice`,
		`consumer "a": unknown plan "nowhere"`,
		`consumer "a": token "t": the token id is given twice`,
		`consumer "a": token "empty": has no secret`,
		`consumer "b": has a secret that a has too`,
		`consumer "c": limit 1:`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no complaint %q in:\n%v", want, err)
		}
	}
	if _, standing := r.Resolve(start, "kept"); standing != consumers.Valid {
		t.Errorf("after a bad Replace the old token is %v", standing)
	}
}

func TestPutRefusesSecretOfAnother(t *testing.T) {
	r := known(t, consumers.RegistryOptions{}, consumers.Consumer{ID: "a", Tokens: []consumers.Token{token("t", "s")}})
	err := r.Put(start, consumers.Consumer{ID: "b", Tokens: []consumers.Token{token("t", "s")}})
	if err == nil || !strings.Contains(err.Error(), "has a secret that a has too") {
		t.Errorf("Put = %v, want a complaint about a's secret", err)
	}
	if g, _ := r.Resolve(start, "s"); g.Consumer.ID != "a" {
		t.Errorf("the secret is %s's now", g.Consumer.ID)
	}
}

// TestAnyOrderOfChangesEqualsReplace changes a registry at random and compares
// how it answers with a fresh one that got the result at once.
func TestAnyOrderOfChangesEqualsReplace(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := consumers.NewRegistry(consumers.RegistryOptions{Default: list(t, `"20/s"`)}).SettleLater()
		plans := map[string]consumers.Plan{"free": {Limits: list(t, `"5/s"`)}}
		if err := r.Replace(start, consumers.Set{Plans: plans}); err != nil {
			t.Fatal(err)
		}
		want := map[string]consumers.Consumer{}
		for step := range 60 {
			now := start.Add(time.Duration(step) * time.Millisecond)
			c := randomConsumer(t, rng)
			switch rng.IntN(7) {
			case 5:
				plans = map[string]consumers.Plan{"free": {Limits: list(t, []string{`"5/s"`, `"6/s"`, `[{"rate":"9/s"},{"quota":"7/day","per":"consumer"}]`}[rng.IntN(3)])}}
				if err := r.SetPlans(now, plans); err != nil {
					t.Fatal(err)
				}
			case 6:
				for range rng.IntN(3) {
					r.Settle()
				}
			case 0:
				r.Remove(now, c.ID)
				delete(want, c.ID)
			case 1:
				set := consumers.Set{Plans: plans}
				next := map[string]consumers.Consumer{}
				for range rng.IntN(5) {
					c := randomConsumer(t, rng)
					next[c.ID] = c
				}
				for _, c := range next {
					set.Consumers = append(set.Consumers, c)
				}
				if err := r.Replace(now, set); err != nil {
					t.Fatal(err)
				}
				want = next
			default:
				put(t, r, now, c)
				want[c.ID] = c
			}
			for range 3 { // some are in use, some are not
				r.Resolve(now, fmt.Sprintf("c%d-%d-%d", rng.IntN(5), rng.IntN(3), rng.IntN(2)))
			}
			same(t, fmt.Sprintf("seed %d, step %d", seed, step), r, plans, want, now)
		}
	}
}

// randomConsumer is one of a few, with secrets that no other one has.
func randomConsumer(t *testing.T, rng *rand.Rand) consumers.Consumer {
	id := rng.IntN(5)
	c := consumers.Consumer{ID: fmt.Sprint("c", id), Disabled: rng.IntN(5) == 0}
	if rng.IntN(2) == 0 {
		c.Plan = "free"
	}
	if rng.IntN(2) == 0 {
		c.Limits = list(t, []string{`"1/s"`, `"none"`, `[{"quota":"3/day","per":"consumer"},{"rate":"2/s"}]`}[rng.IntN(3)])
	}
	if rng.IntN(2) == 0 {
		c.Labels = map[string]string{"n": fmt.Sprint(rng.IntN(2))}
	}
	for i := range 3 {
		secret := func(gen int) consumers.Hash { return consumers.HashOf(fmt.Sprintf("c%d-%d-%d", id, i, gen)) }
		gen := rng.IntN(2)
		tok := consumers.Token{ID: fmt.Sprint("t", i), Hash: secret(gen)}
		if rng.IntN(3) == 0 {
			tok.Expires = start.Add(time.Duration(rng.IntN(60)) * time.Millisecond).Std()
		}
		if rng.IntN(3) == 0 {
			tok.Previous, tok.PreviousUntil = secret(1-gen), start.Add(time.Duration(rng.IntN(60))*time.Millisecond).Std()
		}
		if rng.IntN(3) > 0 {
			c.Tokens = append(c.Tokens, tok)
		}
	}
	return c
}

// same fails the test unless r answers as a fresh registry of want does.
func same(t *testing.T, when string, r *consumers.Registry, plans map[string]consumers.Plan, want map[string]consumers.Consumer, now limits.Time) {
	t.Helper()
	fresh := consumers.NewRegistry(consumers.RegistryOptions{Default: list(t, `"20/s"`)})
	set := consumers.Set{Plans: plans}
	for _, c := range want {
		set.Consumers = append(set.Consumers, c)
	}
	if err := fresh.Replace(now, set); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fresh.List("", 100), r.List("", 100)); diff != "" {
		t.Fatalf("%s: List (-fresh +changed):\n%s", when, diff)
	}
	type answer struct {
		Standing        consumers.Standing
		Consumer, Token string
		Labels          map[string]string
		Limits          []limits.Limit
	}
	describe := func(g consumers.Grant, s consumers.Standing) answer {
		a := answer{Standing: s, Consumer: g.Consumer.ID, Token: g.Token, Labels: g.Consumer.Labels}
		for i := range g.Len() {
			a.Limits = append(a.Limits, g.Limiter(i).Spec().Limit())
		}
		return a
	}
	for id := range 5 {
		consumer := fmt.Sprint("c", id)
		if diff := cmp.Diff(describe(fresh.Consumer(now, consumer)), describe(r.Consumer(now, consumer))); diff != "" {
			t.Fatalf("%s: Consumer(%s) (-fresh +changed):\n%s", when, consumer, diff)
		}
		for i := range 6 {
			secret := fmt.Sprintf("c%d-%d-%d", id, i/2, i%2)
			if diff := cmp.Diff(describe(fresh.Resolve(now, secret)), describe(r.Resolve(now, secret))); diff != "" {
				t.Fatalf("%s: Resolve(%s) (-fresh +changed):\n%s", when, secret, diff)
			}
		}
	}
}

// TestConcurrentChangesAndDecisions is for the race detector; what it checks
// itself is that together no more is admitted than the quota, whatever changes.
func TestConcurrentChangesAndDecisions(t *testing.T) {
	base := consumers.Consumer{ID: "a", Limits: list(t, `[{"quota":"1000/day"}]`), Tokens: []consumers.Token{token("t", "s")}}
	r := known(t, consumers.RegistryOptions{}, base, consumers.Consumer{ID: "b", Tokens: []consumers.Token{token("t", "b")}}).SettleLater()
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 4 {
		wg.Go(func() {
			n := 0
			for range 2000 {
				if g, standing := r.Resolve(start, "s"); standing == consumers.Valid {
					n += takeFrom(start, g, 1)
				}
				r.Resolve(start, "b")
				r.Resolve(start, "nobody")
				r.Consumer(start, "a")
			}
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	wg.Go(func() {
		for i := range 300 {
			c := base
			c.Labels = map[string]string{"n": fmt.Sprint(i)}
			put(t, r, start, c)
			if i%10 == 0 {
				r.Remove(start, "a")
				put(t, r, start, base)
			}
			if i%50 == 0 {
				if err := r.Replace(start, consumers.Set{Consumers: []consumers.Consumer{base}}); err != nil {
					t.Error(err)
				}
			}
			if i%30 == 0 {
				r.SetOptions(start, consumers.RegistryOptions{Default: list(t, fmt.Sprintf(`"%d/s"`, i+1))})
			}
			if i%3 == 0 {
				r.Settle()
			}
			r.Unsaved(start)
			r.Usage(start, "a")
		}
	})
	wg.Wait()
	if total > 1000 {
		t.Errorf("%d were admitted, want at most 1000", total)
	}
	if n := take(t, r, start, "s", 2000) + total; n != 1000 {
		t.Errorf("%d were admitted in all, want 1000", n)
	}
}

// TestResolveAfterRecordsMoved: an edit moves the records of other consumers,
// whose secrets were noted to have theirs elsewhere.
func TestResolveAfterRecordsMoved(t *testing.T) {
	r, secrets := many(t, 20_000) // several records stand together
	check := func(when string, gone func(i int) bool) {
		t.Helper()
		for i, s := range secrets {
			g, standing := r.Resolve(start, s)
			switch want := fmt.Sprintf("consumer-%07d", i); {
			case gone(i) && standing != consumers.Unknown:
				t.Fatalf("%s: %s is %v, want Unknown", when, want, standing)
			case !gone(i) && (standing != consumers.Valid || g.Consumer.ID != want || g.Token != "prod"):
				t.Fatalf("%s: the secret of %s is %q's, %v", when, want, g.Consumer.ID, standing)
			}
		}
	}
	removed := func(i int) bool { return i%7 == 0 }
	for i, s := range secrets {
		id := fmt.Sprintf("consumer-%07d", i)
		switch {
		case removed(i):
			r.Remove(start, id)
		case i%5 == 0:
			put(t, r, start, consumers.Consumer{ID: id, Labels: map[string]string{"team": "payments"}, Tokens: []consumers.Token{token("prod", s)}})
		}
	}
	check("after the edits", removed)
	check("once more", removed)
}
