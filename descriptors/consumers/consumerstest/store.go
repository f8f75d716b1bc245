package consumerstest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// Source is a source under test: one place that can be opened again and again.
type Source interface {
	// Open opens the source and fills the registry. It is open until Close.
	Open(t *testing.T, r *consumers.Registry) consumers.Store

	// Close closes what Open opened last.
	Close(t *testing.T)
}

// RunStore runs the suite. Each test gets a source of its own, made by fresh.
// Its clock must tell the machine's time.
func RunStore(t *testing.T, fresh func(t *testing.T) Source) {
	for name, test := range map[string]func(t *testing.T, s *session){
		"put and get":                   putAndGet,
		"versions":                      versions,
		"delete":                        remove,
		"pages":                         pages,
		"tokens":                        tokens,
		"rotation":                      rotation,
		"a change is in force":          inForce,
		"what cannot be meant":          refused,
		"survives reopening":            reopening,
		"one of many wins a lost race":  race,
		"many at once are all kept":     parallel,
		"a secret belongs to one":       secretOfOne,
		"a missing consumer is told so": missing,
		"what is returned is a copy":    owned,
	} {
		t.Run(name, func(t *testing.T) {
			s := &session{source: fresh(t)}
			s.open(t)
			defer func() { s.source.Close(t) }()
			test(t, s)
		})
	}
}

// session is one open source and its registry.
type session struct {
	source   Source
	registry *consumers.Registry
	store    consumers.Store
}

func (s *session) open(t *testing.T) {
	s.registry = consumers.NewRegistry(consumers.RegistryOptions{})
	s.store = s.source.Open(t, s.registry)
}

func (s *session) put(t *testing.T, c consumers.Consumer, m consumers.Match) consumers.Consumer {
	t.Helper()
	stored, err := s.store.Put(t.Context(), c, m)
	if err != nil {
		t.Fatalf("Put(%s) = %v", c.ID, err)
	}
	return stored
}

func (s *session) issue(t *testing.T, consumer, id, secret string) {
	t.Helper()
	if err := s.store.IssueToken(t.Context(), consumer, consumers.Token{ID: id, Hash: consumers.HashOf(secret)}); err != nil {
		t.Fatalf("IssueToken(%s, %s) = %v", consumer, id, err)
	}
}

func (s *session) standing(secret string) consumers.Standing {
	_, standing := s.registry.Resolve(limits.At(time.Now()), secret)
	return standing
}

// diff describes how two values differ, or is "".
func diff(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return fmt.Sprintf("-%+v\n+%+v", want, got)
}

// want fails the test unless err is the wanted one.
func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s = %v, want %v", what, err, target)
	}
}

func sample(id string) consumers.Consumer {
	return consumers.Consumer{
		ID: id,
		Limits: consumers.Limits{
			{Limit: limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second, Burst: 200}},
			{Limit: limits.Limit{Kind: limits.Rate, N: 5, Period: time.Minute, Name: "slow"}, PerConsumer: true},
		},
		Labels:   map[string]string{"team": "payments", "größe": "µ"},
		Disabled: true,
	}
}

func putAndGet(t *testing.T, s *session) {
	for _, c := range []consumers.Consumer{sample("a"), {ID: "b"}, {ID: "c", Limits: consumers.Limits{}}} {
		stored := s.put(t, c, consumers.Always)
		got, err := s.store.Consumer(t.Context(), c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := diff(stored, got); diff != "" {
			t.Errorf("Consumer(%s) (-put +got):\n%s", c.ID, diff)
		}
		c.Version = got.Version
		if diff := diff(c, got); diff != "" {
			t.Errorf("Consumer(%s) (-want +got):\n%s", c.ID, diff)
		}
	}
}

func versions(t *testing.T, s *session) {
	_, err := s.store.Put(t.Context(), consumers.Consumer{ID: "a"}, 7)
	want(t, "Put of a version of nothing", err, consumers.ErrConflict)
	first := s.put(t, consumers.Consumer{ID: "a"}, consumers.IfAbsent)
	_, err = s.store.Put(t.Context(), consumers.Consumer{ID: "a"}, consumers.IfAbsent)
	want(t, "a second Put if absent", err, consumers.ErrExists)
	second := s.put(t, consumers.Consumer{ID: "a", Disabled: true}, consumers.Match(first.Version))
	if second.Version == first.Version {
		t.Errorf("two versions are both %d", first.Version)
	}
	_, err = s.store.Put(t.Context(), consumers.Consumer{ID: "a"}, consumers.Match(first.Version))
	want(t, "Put of an old version", err, consumers.ErrConflict)
	want(t, "Delete of an old version", s.store.Delete(t.Context(), "a", consumers.Match(first.Version)), consumers.ErrConflict)
	if c, err := s.store.Consumer(t.Context(), "a"); err != nil || !c.Disabled {
		t.Errorf("after refused changes the consumer is %+v, %v", c, err)
	}
	s.issue(t, "a", "t", "s")
	_, err = s.store.Put(t.Context(), consumers.Consumer{ID: "a"}, consumers.Match(second.Version))
	want(t, "Put of the version before a token was issued", err, consumers.ErrConflict)
}

func remove(t *testing.T, s *session) {
	c := s.put(t, consumers.Consumer{ID: "a"}, consumers.Always)
	s.issue(t, "a", "t", "s")
	if err := s.store.Delete(t.Context(), "a", consumers.Always); err != nil {
		t.Fatal(err)
	}
	if got := s.standing("s"); got != consumers.Unknown {
		t.Errorf("a deleted consumer's token is %v", got)
	}
	want(t, "a second Delete", s.store.Delete(t.Context(), "a", consumers.Always), consumers.ErrNotFound)
	again := s.put(t, consumers.Consumer{ID: "a"}, consumers.Always)
	if len(again.Tokens) != 0 || again.Version == c.Version {
		t.Errorf("added again it is %+v: want another version than %d and no tokens", again, c.Version)
	}
}

func pages(t *testing.T, s *session) {
	var ids []string
	for i := range 25 {
		ids = append(ids, fmt.Sprintf("c%02d", i))
		s.put(t, consumers.Consumer{ID: ids[i]}, consumers.Always)
	}
	for _, size := range []int{1, 7, 25, 100} {
		var got []string
		for after, first := "", true; first || after != ""; first = false {
			page, next, err := s.store.List(t.Context(), after, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > size || next != "" && len(page) == 0 {
				t.Fatalf("a page of %d has %d, next is %q", size, len(page), next)
			}
			for _, c := range page {
				got = append(got, c.ID)
			}
			after = next
		}
		if diff := diff(ids, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
	if page, next, err := s.store.List(t.Context(), "c10x", 2); err != nil || len(page) != 2 || page[0].ID != "c11" || next != "c12" {
		t.Errorf("List behind an id that is not there = %v, %q, %v", page, next, err)
	}
}

func tokens(t *testing.T, s *session) {
	s.put(t, consumers.Consumer{ID: "a"}, consumers.Always)
	made := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	tok := consumers.Token{ID: "t", Hash: consumers.HashOf("s"), Expires: made.AddDate(50, 0, 0), Created: made}
	if err := s.store.IssueToken(t.Context(), "a", tok); err != nil {
		t.Fatal(err)
	}
	s.issue(t, "a", "u", "u")
	c, err := s.store.Consumer(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := diff([]consumers.Token{tok, {ID: "u", Hash: consumers.HashOf("u")}}, c.Tokens); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	err = s.store.IssueToken(t.Context(), "a", consumers.Token{ID: "t", Hash: consumers.HashOf("other")})
	want(t, "IssueToken of a token id in use", err, consumers.ErrExists)
	s.put(t, consumers.Consumer{ID: "a", Tokens: []consumers.Token{{ID: "ignored", Hash: consumers.HashOf("i")}}}, consumers.Always)
	if got := s.standing("s"); got != consumers.Valid {
		t.Errorf("after a Put of the consumer its token is %v", got)
	}
	if got := s.standing("i"); got != consumers.Unknown {
		t.Errorf("a token that stood in a Put is %v", got)
	}
	if err := s.store.RevokeToken(t.Context(), "a", "t"); err != nil {
		t.Fatal(err)
	}
	if got := s.standing("s"); got != consumers.Unknown {
		t.Errorf("a revoked token is %v", got)
	}
	if got := s.standing("u"); got != consumers.Valid {
		t.Errorf("beside a revoked token the other is %v", got)
	}
	want(t, "a second RevokeToken", s.store.RevokeToken(t.Context(), "a", "t"), consumers.ErrNotFound)
}

func rotation(t *testing.T, s *session) {
	s.put(t, consumers.Consumer{ID: "a"}, consumers.Always)
	s.issue(t, "a", "t", "one")
	until := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	rotated, err := s.store.RotateToken(t.Context(), "a", "t", consumers.HashOf("two"), until)
	if err != nil {
		t.Fatal(err)
	}
	if rotated.ID != "t" || rotated.Previous != consumers.HashOf("one") || !rotated.PreviousUntil.Equal(until) {
		t.Errorf("RotateToken = %+v", rotated)
	}
	for _, secret := range []string{"one", "two"} {
		if got := s.standing(secret); got != consumers.Valid {
			t.Errorf("in the overlap %q is %v", secret, got)
		}
	}
	if _, err := s.store.RotateToken(t.Context(), "a", "t", consumers.HashOf("three"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]consumers.Standing{"one": consumers.Unknown, "two": consumers.Unknown, "three": consumers.Valid} {
		if got := s.standing(secret); got != want {
			t.Errorf("after a rotation without overlap %q is %v, want %v", secret, got, want)
		}
	}
	_, err = s.store.RotateToken(t.Context(), "a", "nothing", consumers.HashOf("four"), until)
	want(t, "RotateToken of no token", err, consumers.ErrNotFound)
	_, err = s.store.RotateToken(t.Context(), "nobody", "t", consumers.HashOf("four"), until)
	want(t, "RotateToken of no consumer", err, consumers.ErrNotFound)
}

func inForce(t *testing.T, s *session) {
	s.put(t, consumers.Consumer{ID: "a"}, consumers.Always)
	s.issue(t, "a", "t", "s")
	for i := range 50 {
		c := consumers.Consumer{ID: "a", Limits: consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: int64(i + 1), Period: time.Second}}}}
		s.put(t, c, consumers.Always)
		g, standing := s.registry.Resolve(limits.At(time.Now()), "s")
		if standing != consumers.Valid || g.Limiter(0).Spec().Limit().N != int64(i+1) {
			t.Fatalf("after change %d the decision uses another limit", i)
		}
	}
}

func refused(t *testing.T, s *session) {
	long := limits.Limit{Kind: limits.Rate, N: 1 << 60, Period: time.Second}
	for name, c := range map[string]consumers.Consumer{
		"an id with a slash": {ID: "a/b"},
		"no id":              {},
		"a plan of nobody":   {ID: "a", Plan: "nowhere"},
		"a limit too large":  {ID: "a", Limits: consumers.Limits{{Limit: long}}},
	} {
		_, err := s.store.Put(t.Context(), c, consumers.Always)
		var ps consumers.Problems
		if !errors.As(err, &ps) {
			t.Errorf("Put with %s = %v, want Problems", name, err)
		}
	}
	s.put(t, consumers.Consumer{ID: "a"}, consumers.Always)
	for name, tok := range map[string]consumers.Token{
		"no id":     {Hash: consumers.HashOf("s")},
		"no secret": {ID: "t"},
	} {
		var ps consumers.Problems
		if err := s.store.IssueToken(t.Context(), "a", tok); !errors.As(err, &ps) {
			t.Errorf("IssueToken with %s = %v, want Problems", name, err)
		}
	}
	if c, err := s.store.Consumer(t.Context(), "a"); err != nil || len(c.Tokens) != 0 {
		t.Errorf("refused changes left %+v, %v", c, err)
	}
}

func reopening(t *testing.T, s *session) {
	s.put(t, sample("a"), consumers.Always)
	s.put(t, consumers.Consumer{ID: "b", Limits: consumers.Limits{}}, consumers.Always)
	s.issue(t, "b", "t", "s")
	s.issue(t, "b", "u", "old")
	if _, err := s.store.RotateToken(t.Context(), "b", "u", consumers.HashOf("new"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	before, _, err := s.store.List(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	s.source.Close(t)
	s.open(t)
	after, _, err := s.store.List(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := diff(before, after); diff != "" {
		t.Errorf("after reopening (-before +after):\n%s", diff)
	}
	for _, secret := range []string{"s", "old", "new"} {
		if got := s.standing(secret); got != consumers.Valid {
			t.Errorf("after reopening %q is %v", secret, got)
		}
	}
	if c := s.put(t, consumers.Consumer{ID: "c"}, consumers.Always); c.Version == before[0].Version || c.Version == before[1].Version {
		t.Errorf("after reopening the version %d is used again", c.Version)
	}
}

func race(t *testing.T, s *session) {
	c := s.put(t, consumers.Consumer{ID: "a"}, consumers.Always)
	var wg sync.WaitGroup
	results := make([]error, 20)
	for i := range results {
		wg.Go(func() {
			_, results[i] = s.store.Put(context.WithoutCancel(t.Context()), consumers.Consumer{ID: "a", Labels: map[string]string{"by": fmt.Sprint(i)}}, consumers.Match(c.Version))
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range results {
		switch {
		case err == nil && winner < 0:
			winner = i
		case err == nil:
			t.Errorf("%d and %d both won", winner, i)
		default:
			want(t, fmt.Sprintf("Put %d", i), err, consumers.ErrConflict)
		}
	}
	got, err := s.store.Consumer(t.Context(), "a")
	if err != nil || winner < 0 || got.Labels["by"] != fmt.Sprint(winner) {
		t.Errorf("the winner is %d, stored is %v, %v", winner, got.Labels, err)
	}
	if g, _ := s.registry.Consumer(limits.At(time.Now()), "a"); g.Consumer.Labels["by"] != fmt.Sprint(winner) {
		t.Errorf("the winner is %d, in force is %v", winner, g.Consumer.Labels)
	}
}

func parallel(t *testing.T, s *session) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				c := consumers.Consumer{ID: fmt.Sprintf("c-%d-%d", i, j)}
				if _, err := s.store.Put(t.Context(), c, consumers.IfAbsent); err != nil {
					t.Errorf("Put(%s) = %v", c.ID, err)
				}
				secret := "s-" + c.ID
				if err := s.store.IssueToken(t.Context(), c.ID, consumers.Token{ID: "t", Hash: consumers.HashOf(secret)}); err != nil {
					t.Errorf("IssueToken(%s) = %v", c.ID, err)
				}
				if got := s.standing(secret); got != consumers.Valid {
					t.Errorf("the token just issued for %s is %v", c.ID, got)
				}
			}
		})
	}
	wg.Wait()
	page, _, err := s.store.List(t.Context(), "", 1000)
	if err != nil || len(page) != 200 {
		t.Errorf("List has %d, %v, want 200", len(page), err)
	}
}

func secretOfOne(t *testing.T, s *session) {
	for i := range 10 {
		s.put(t, consumers.Consumer{ID: fmt.Sprint("c", i)}, consumers.Always)
	}
	var wg sync.WaitGroup
	results := make([]error, 10)
	for i := range results {
		wg.Go(func() {
			results[i] = s.store.IssueToken(context.WithoutCancel(t.Context()), fmt.Sprint("c", i), consumers.Token{ID: "t", Hash: consumers.HashOf("same")})
		})
	}
	wg.Wait()
	given := 0
	for _, err := range results {
		if err == nil {
			given++
		}
	}
	if given != 1 {
		t.Errorf("one secret was given to %d consumers", given)
	}
}

func missing(t *testing.T, s *session) {
	_, err := s.store.Consumer(t.Context(), "nobody")
	want(t, "Consumer", err, consumers.ErrNotFound)
	_, err = s.store.Consumer(t.Context(), "")
	want(t, "Consumer of no id", err, consumers.ErrNotFound)
	want(t, "Delete", s.store.Delete(t.Context(), "nobody", consumers.Always), consumers.ErrNotFound)
	want(t, "IssueToken", s.store.IssueToken(t.Context(), "nobody", consumers.Token{ID: "t", Hash: consumers.HashOf("s")}), consumers.ErrNotFound)
	want(t, "RevokeToken", s.store.RevokeToken(t.Context(), "nobody", "t"), consumers.ErrNotFound)
	if page, next, err := s.store.List(t.Context(), "", 10); err != nil || len(page) != 0 || next != "" {
		t.Errorf("List of nothing = %v, %q, %v", page, next, err)
	}
	if err := s.store.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh = %v", err)
	}
}

// owned checks that neither what was given nor what was returned is shared.
func owned(t *testing.T, s *session) {
	c := sample("a")
	c.Disabled = false
	s.put(t, c, consumers.Always)
	s.issue(t, "a", "t", "s")
	c.Labels["team"], c.Limits[0].N = "changed", 1
	got, err := s.store.Consumer(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	got.Labels["team"], got.Limits[0].N = "changed", 1
	g, _ := s.registry.Resolve(limits.At(time.Now()), "s")
	if g.Consumer.Labels["team"] != "payments" || g.Limiter(0).Spec().Limit().N != 100 {
		t.Errorf("in force are labels %v and a limit of %d", g.Consumer.Labels, g.Limiter(0).Spec().Limit().N)
	}
}
