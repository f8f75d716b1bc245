package descriptors_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/limits"
)

func TestSubjectOf(t *testing.T) {
	for _, c := range []struct {
		entries string
		subject descriptors.Subject
		value   string
	}{
		{"", descriptors.SubjectNone, ""},
		{"user=u", descriptors.SubjectNone, ""},
		{"token=t", descriptors.SubjectToken, "t"},
		{"path=/ consumer=c token=t", descriptors.SubjectConsumer, "c"},
		{"token= consumer=c", descriptors.SubjectConsumer, "c"},
		{"Token=t", descriptors.SubjectNone, ""},
	} {
		if s, v := descriptors.SubjectOf(entries(c.entries)); s != c.subject || v != c.value {
			t.Errorf("SubjectOf(%s) = %v, %q, want %v, %q", c.entries, s, v, c.subject, c.value)
		}
	}
}

const overridden = `
domain: d
descriptors:
  - {key: k, rate_limit: {unit: minute, requests_per_unit: 10, name: mine}, quota_mode: true}
  - {key: smooth, rate_limit: {unit: minute, requests_per_unit: 10, algorithm: rate}}
  - {key: s, value: "s*", share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 10}}
  - {key: free, rate_limit: {unlimited: true}}
`

func TestOverride(t *testing.T) {
	rules := parse(t, overridden)
	d := rules.Domain("d")
	b := descriptors.NewBook(nil)
	o := descriptors.Override{Unit: descriptors.Minute, RequestsPerUnit: 42}
	got, err := b.Override(d, entries("k=v"), o)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := limits.Compile(limits.Limit{Kind: limits.FixedWindow, N: 42, Period: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	want := &descriptors.Rule{Path: "k", Unit: descriptors.Minute, UnitMultiplier: 1, RequestsPerUnit: 42, Spec: spec}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(descriptors.Rule{}), cmp.Comparer(sameSpec)); diff != "" {
		t.Error(diff)
	}
	if again, _ := b.Override(d, entries("k=w"), o); again != got {
		t.Error("the same override is made anew")
	}
	if r, err := b.Override(rules.Domain("unknown"), entries("k=v"), o); r != nil || err != nil {
		t.Errorf("Override in an unknown domain = %v, %v, want none", r, err)
	}
}

// TestOverrideSharesTheCounter: with the entries and the unit of normal traffic,
// but with no other.
func TestOverrideSharesTheCounter(t *testing.T) {
	d := parse(t, overridden).Domain("d")
	b := descriptors.NewBook(nil)
	for _, c := range []struct {
		entries string
		o       descriptors.Override
		path    string
		shares  bool
	}{
		{"k=v", descriptors.Override{Unit: descriptors.Minute, RequestsPerUnit: 1}, "k", true},
		{"k=v", descriptors.Override{Unit: descriptors.Minute, UnitMultiplier: 1, RequestsPerUnit: 2}, "k", true},
		{"k=v", descriptors.Override{Unit: descriptors.Minute, UnitMultiplier: 5, RequestsPerUnit: 1}, "k", false},
		{"k=v", descriptors.Override{Unit: descriptors.Hour, RequestsPerUnit: 1}, "k", false},
		{"smooth=v", descriptors.Override{Unit: descriptors.Minute, RequestsPerUnit: 1}, "smooth", false},
		{"s=s1", descriptors.Override{Unit: descriptors.Minute, RequestsPerUnit: 1}, "s_s*", false},
		{"free=v", descriptors.Override{Unit: descriptors.Minute, RequestsPerUnit: 1}, "free", false},
		{"other=v", descriptors.Override{Unit: descriptors.Minute, RequestsPerUnit: 1}, "override", false},
	} {
		es := entries(c.entries)
		r, err := b.Override(d, es, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Path != c.path {
			t.Errorf("override of %s: path %s, want %s", c.entries, r.Path, c.path)
		}
		match := d.Match(es)
		if shares := match != nil && string(match.AppendKey(nil, es)) == string(r.AppendKey(nil, es)); shares != c.shares {
			t.Errorf("override %+v of %s shares the rule's counter: %v, want %v", c.o, c.entries, shares, c.shares)
		}
		c.o.RequestsPerUnit += 7
		other, err := b.Override(d, es, c.o)
		if err != nil || string(other.AppendKey(nil, es)) != string(r.AppendKey(nil, es)) {
			t.Errorf("override of %s: its counter depends on the number (%v)", c.entries, err)
		}
	}
}

// TestBadOverrideIsAnError names flaw 8: there one such request ends the process.
func TestBadOverrideIsAnError(t *testing.T) {
	d := parse(t, overridden).Domain("d")
	b := descriptors.NewBook(nil)
	for o, want := range map[descriptors.Override]string{
		{RequestsPerUnit: 1}:                              "limit.unit 0: want one of second, minute, hour, day, week, month, year",
		{Unit: 8, RequestsPerUnit: 1}:                     "limit.unit 8: want one of second, minute, hour, day, week, month, year",
		{Unit: -1, RequestsPerUnit: 1}:                    "limit.unit -1: want one of second, minute, hour, day, week, month, year",
		{Unit: descriptors.Week, UnitMultiplier: 1 << 31}: "limit.unit_multiplier 2147483648: the window is longer than 36 years",
	} {
		if r, err := b.Override(d, entries("k=v"), o); r != nil || err == nil || err.Error() != want {
			t.Errorf("Override(%+v) = %v, %v, want %s", o, r, err, want)
		}
	}
	if _, err := b.Override(d, entries("k=v"), descriptors.Override{Unit: descriptors.Month, RequestsPerUnit: 0}); err != nil {
		t.Errorf("an override of 0 per month: %v", err)
	}
}

func TestLabel(t *testing.T) {
	rules := parse(t, `
domain: d
descriptors:
  - {key: plain, `+counts+`}
  - {key: detailed, detailed_metric: true, `+counts+`}
  - key: route
    value_to_metric: true
    descriptors:
      - {key: path, value: /api/*, `+counts+`}
      - {key: path, value: /v/*, value_to_metric: true, `+counts+`}
      - key: method
        descriptors: [{key: host, detailed_metric: true, `+counts+`}]
      - {key: shared, value: "s*", share_threshold: true, value_to_metric: true, `+counts+`}
      - {key: exact, value: e, detailed_metric: true, `+counts+`}
`)
	b := descriptors.NewBook(nil)
	for request, want := range map[string]string{
		"plain=x":                 "plain",
		"detailed=x":              "detailed_x",
		"detailed=":               "detailed",
		"route=r path=/api/1":     "route_r.path_/api/*",
		"route=r path=/v/1":       "route_r.path_/v/1",
		"route=r method=m host=h": "route_r.method_m.host_h",
		"route=r shared=s1":       "route_r.shared_s*",
		"route=r exact=e":         "route_r.exact_e",
		"route=" + strings.Repeat("x", 300) + " exact=e": "route.exact_e",
		"route=\xff exact=e":                             "route.exact_e",
	} {
		es := entries(request)
		if got := b.Label(rules.Domain("d").Match(es), es); got != want {
			t.Errorf("Label(%s) = %s, want %s", request, got, want)
		}
	}
}

// TestLabelsAreBounded names flaw 22: there each new value costs memory for ever.
func TestLabelsAreBounded(t *testing.T) {
	d := parse(t, "domain: d\ndescriptors: [{key: k, detailed_metric: true, "+counts+"}]\n").Domain("d")
	b := descriptors.NewBook(nil)
	seen := map[string]bool{}
	for i := range 5000 {
		es := entries(fmt.Sprintf("k=%d", i))
		seen[b.Label(d.Match(es), es)] = true
	}
	if len(seen) != 1001 || !seen["k"] || !seen["k_0"] {
		t.Errorf("5000 values make %d labels, want 1000 and the rule's path", len(seen))
	}
	es := entries("k=0")
	if got := b.Label(d.Match(es), es); got != "k_0" {
		t.Errorf("Label(k=0) = %s once there is no more room", got)
	}
}

func TestBookAllocatesNothingOnceWarm(t *testing.T) {
	d := parse(t, overridden+"  - {key: detailed, detailed_metric: true, "+counts+"}\n").Domain("d")
	b := descriptors.NewBook(nil)
	es, detailed := entries("k=v"), entries("detailed=v")
	rule := d.Match(detailed)
	for name, f := range map[string]func(){
		"Override": func() { b.Override(d, es, descriptors.Override{Unit: descriptors.Hour, RequestsPerUnit: 5}) },
		"Label":    func() { b.Label(rule, detailed) },
	} {
		f()
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// noon is an instant in the middle of a minute, an hour and a day.
var noon = limits.At(time.Date(2026, 2, 10, 12, 30, 30, 0, time.UTC))

// hits takes one hit after another and says what remains of each, -1 where it
// is refused.
func hits(t *testing.T, b *descriptors.Book, now limits.Time, rule *descriptors.Rule, request string, n int) []int64 {
	t.Helper()
	var remaining []int64
	for range n {
		d := b.Limiter(now, rule, entries(request)).Take(now, 1)
		if !d.Allowed {
			d.Remaining = -1
		}
		remaining = append(remaining, d.Remaining)
	}
	return remaining
}

func newBook(t *testing.T, text string) *descriptors.Book {
	t.Helper()
	b := descriptors.NewBook(limits.NewTable(limits.TableOptions{}))
	b.Swap(parse(t, text))
	return b
}

func match(b *descriptors.Book, request string) *descriptors.Rule {
	return b.Rules().Domain("d").Match(entries(request))
}

func want(t *testing.T, what string, got []int64, want ...int64) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: remaining (-want +got):\n%s", what, diff)
	}
}

func TestLimiterCountsPerValue(t *testing.T) {
	b := newBook(t, `
domain: d
descriptors:
  - {key: path, value: /api/*/x, rate_limit: {unit: hour, requests_per_unit: 3}}
  - {key: path, value: /api/*, rate_limit: {unit: hour, requests_per_unit: 4}}
  - {key: files, value: "f*", share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: none, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: free, rate_limit: {unlimited: true}}
`)
	for _, c := range []struct {
		request string
		want    []int64
	}{
		{"path=/api/1/x", []int64{2, 1, 0, -1}},
		{"path=/api/1/y", []int64{3, 2, 1, 0, -1}},
		{"path=/api/2/x", []int64{2, 1, 0, -1}}, // a counter of its own
		{"files=f1", []int64{1}},
		{"files=f2", []int64{0, -1}}, // one counter for all
		{"none=x", []int64{-1}},
	} {
		want(t, c.request, hits(t, b, noon, match(b, c.request), c.request, len(c.want)), c.want...)
	}
	if l := b.Limiter(noon, match(b, "free=x"), entries("free=x")); l != nil {
		t.Errorf("limiter of an unlimited rule = %v, want none", l)
	}
}

// TestUserCannotDrainAnother names flaw 6 once more, with the hits of its run.
func TestUserCannotDrainAnother(t *testing.T) {
	b := newBook(t, `
domain: d
descriptors:
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 100}
    descriptors: [{key: role, rate_limit: {unit: hour, requests_per_unit: 100}}]
`)
	hits(t, b, noon, match(b, "user=x_role_admin"), "user=x_role_admin", 6)
	want(t, "user=x role=admin", hits(t, b, noon, match(b, "user=x role=admin"), "user=x role=admin", 1), 99)
}

// TestReloadGoesOnCounting names flaw 7: there a raised limit does not help.
func TestReloadGoesOnCounting(t *testing.T) {
	rules := func(n int) string {
		return fmt.Sprintf("domain: d\ndescriptors: [{key: other}, {key: k, rate_limit: {unit: hour, requests_per_unit: %d}}]\n", n)
	}
	b := newBook(t, rules(2))
	want(t, "2 per hour", hits(t, b, noon, match(b, "k=v"), "k=v", 3), 1, 0, -1)
	b.Swap(parse(t, rules(2)))
	want(t, "reloaded", hits(t, b, noon, match(b, "k=v"), "k=v", 1), -1)
	b.Swap(parse(t, rules(100)))
	want(t, "raised to 100", hits(t, b, noon, match(b, "k=v"), "k=v", 2), 97, 96)
	b.Swap(parse(t, rules(3)))
	want(t, "lowered to 3", hits(t, b, noon, match(b, "k=v"), "k=v", 1), -1)
	b.Swap(parse(t, rules(5)))
	want(t, "raised to 5", hits(t, b, noon, match(b, "k=v"), "k=v", 2), 0, -1)
	later := noon.Add(time.Hour)
	want(t, "an hour later", hits(t, b, later, match(b, "k=v"), "k=v", 1), 4)
}

// TestOverrideCountsWithNormalTraffic has the numbers of a run there: limit 42,
// 40 remaining after one earlier hit under the rule's limit.
func TestOverrideCountsWithNormalTraffic(t *testing.T) {
	b := newBook(t, overridden)
	rule := match(b, "k=v")
	over, err := b.Override(b.Rules().Domain("d"), entries("k=v"), descriptors.Override{Unit: descriptors.Minute, RequestsPerUnit: 42})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "rule of 10", hits(t, b, noon, rule, "k=v", 1), 9)
	want(t, "override of 42", hits(t, b, noon, over, "k=v", 1), 40)
	for range 4 { // turn about, nothing is gained or lost
		hits(t, b, noon, rule, "k=v", 1)
		hits(t, b, noon, over, "k=v", 1)
	}
	want(t, "rule of 10, used up", hits(t, b, noon, rule, "k=v", 1), -1)
	want(t, "override of 42", hits(t, b, noon, over, "k=v", 1), 31)
	want(t, "rule of 10, used up", hits(t, b, noon, rule, "k=v", 1), -1)
	want(t, "override of 42", hits(t, b, noon, over, "k=v", 1), 30)
}

// TestMonthsAreCalendarMonths names flaw 5.
func TestMonthsAreCalendarMonths(t *testing.T) {
	b := newBook(t, "domain: d\ndescriptors: [{key: k, rate_limit: {unit: month, requests_per_unit: 1}}]\n")
	rule := match(b, "k=v")
	d := b.Limiter(noon, rule, entries("k=v")).Take(noon, 1)
	if want := limits.At(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)).Sub(noon); !d.Allowed || d.Reset != want {
		t.Errorf("first hit of February: %+v, want a reset in %v", d, want)
	}
	for _, c := range []struct {
		at   time.Time
		want int64
	}{
		{time.Date(2026, 2, 28, 23, 59, 59, 0, time.UTC), -1},
		{time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), 0},
		{time.Date(2026, 3, 31, 23, 59, 59, 0, time.UTC), -1}, // 30 days are not yet a month
		{time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), 0},
	} {
		want(t, c.at.String(), hits(t, b, limits.At(c.at), rule, "k=v", 1), c.want)
	}
}

// TestSeveralLimitsCountEach names flaw 2: 10 a second and 1000 an hour need
// two descriptors there.
func TestSeveralLimitsCountEach(t *testing.T) {
	b := newBook(t, `
domain: d
descriptors:
  - key: k
    rate_limit:
      - {unit: second, requests_per_unit: 2}
      - {unit: hour, requests_per_unit: 3}
`)
	second := match(b, "k=v")
	hour := second.Next
	want(t, "second", hits(t, b, noon, second, "k=v", 3), 1, 0, -1)
	want(t, "hour", hits(t, b, noon, hour, "k=v", 3), 2, 1, 0)
	later := noon.Add(time.Second)
	want(t, "second, later", hits(t, b, later, second, "k=v", 1), 1)
	want(t, "hour, later", hits(t, b, later, hour, "k=v", 1), -1)
}

func TestLimiterAllocatesNothingOnceWarm(t *testing.T) {
	b := newBook(t, overridden)
	for _, request := range []string{"k=v", "s=s1", "k=" + strings.Repeat("x", 300)} {
		es := entries(request)
		f := func() { b.Limiter(noon, b.Rules().Domain("d").Match(es), es) }
		f()
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("finding the limiter of %.20s allocates %v times", request, n)
		}
	}
}

// BenchmarkLimiter is all that descriptors do for a request: match, key, find.
func BenchmarkLimiter(bench *testing.B) {
	for _, rules := range []int{1, 100_000} {
		b := descriptors.NewBook(limits.NewTable(limits.TableOptions{}))
		b.Swap(parse(bench, manyRules(rules)))
		es := manyRequests(rules)[1]
		bench.Run(fmt.Sprintf("rules=%d", rules), func(bench *testing.B) {
			bench.ReportAllocs()
			for bench.Loop() {
				b.Limiter(noon, b.Rules().Domain("d").Match(es), es)
			}
		})
	}
}

func TestBookStartsWithoutRules(t *testing.T) {
	b := descriptors.NewBook(nil)
	if d := b.Rules().Domain("d"); d.Match(entries("k=v")) != nil {
		t.Errorf("a new book has the domain %v", d)
	}
	rules := parse(t, overridden)
	b.Swap(rules)
	if b.Rules() != rules {
		t.Error("Rules() is not what was swapped in")
	}
}
