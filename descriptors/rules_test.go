package descriptors_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/limits"
)

func everything(t testing.TB) *descriptors.Domain {
	t.Helper()
	data, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(data)).Domain("everything")
}

func TestRules(t *testing.T) {
	data, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules := parse(t, "domain: z\ndescriptors: []\n")
	if got := rules.String(); got != "" || rules.Len() != 0 {
		t.Errorf("rules of an empty domain = %q, %d", got, rules.Len())
	}
	rules, err = descriptors.Parse([]descriptors.File{
		{Name: "everything", Data: data},
		{Name: "another", Data: []byte("domain: another\ndescriptors: [{key: k, value: v, " + counts + "}]\n")},
		{Name: "empty", Data: []byte("domain: empty\ndescriptors:\n")},
	}, descriptors.Options{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/everything.rlconfig", rules.String())
	if got, want := rules.Len(), strings.Count(rules.String(), "\n"); got != want {
		t.Errorf("Len() = %d, want %d", got, want)
	}
	if d := rules.Domain("empty"); d == nil || d.Name() != "empty" || d.Match(entries("k=v")) != nil {
		t.Errorf("Domain(empty) = %v, want one without rules", d)
	}
}

func TestRule(t *testing.T) {
	d := everything(t)
	spec := func(l limits.Limit) *limits.Spec {
		t.Helper()
		s, err := limits.Compile(l)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	beyond := &descriptors.Rule{
		Path: "beyond", Unit: descriptors.Second, UnitMultiplier: 30, RequestsPerUnit: 10, OnError: "deny",
		Spec: spec(limits.Limit{Kind: limits.Rate, N: 10, Period: 30 * time.Second, Burst: 20, MaxWait: 250 * time.Millisecond, OnError: "deny"}),
		Next: &descriptors.Rule{
			Path: "beyond", Unit: descriptors.Month, UnitMultiplier: 1, RequestsPerUnit: 1000,
			Spec: spec(limits.Limit{Kind: limits.Window, N: 1000, Period: 30 * 24 * time.Hour}),
			Next: &descriptors.Rule{
				Path: "beyond", Unit: descriptors.Hour, UnitMultiplier: 1, RequestsPerUnit: 100, OnError: "allow",
				Spec: spec(limits.Limit{Kind: limits.Pace, N: 100, Period: time.Hour, OnError: "allow"}),
				Next: &descriptors.Rule{
					Path: "beyond", Unit: descriptors.Minute, UnitMultiplier: 5, RequestsPerUnit: 3, OnError: "local",
					Spec: spec(limits.Limit{Kind: limits.FixedWindow, N: 3, Period: 5 * time.Minute, OnError: "local"}),
				},
			},
		},
	}
	for request, want := range map[string]*descriptors.Rule{
		"allowed=true": nil,
		"key1=value1 subkey1=subvalue1": {
			Path: "key1_value1.subkey1_subvalue1", Unit: descriptors.Minute, UnitMultiplier: 1, RequestsPerUnit: 10, Shadow: true,
			Spec: spec(limits.Limit{Kind: limits.FixedWindow, N: 10, Period: time.Minute, Shadow: true}),
		},
		"key2=x": {
			Name: "key2_limit", Path: "key2", Unit: descriptors.Hour, UnitMultiplier: 1, Quota: true,
			Spec: spec(limits.Limit{Name: "key2_limit", Kind: limits.FixedWindow, N: 0, Period: time.Hour}),
		},
		"key2=3": {
			Name: "key2_override", Path: "key2_3", Unit: descriptors.Day, UnitMultiplier: 1, RequestsPerUnit: 4294967295,
			Replaces: []string{"key2_limit", "other"},
			Spec:     spec(limits.Limit{Name: "key2_override", Kind: limits.FixedWindow, N: 4294967295, Period: 24 * time.Hour}),
		},
		"free=x":    {Name: "free", Path: "free", UnitMultiplier: 1, Unlimited: true},
		"free=also": {Path: "free_also", UnitMultiplier: 1, RequestsPerUnit: 7, Unlimited: true},
		"week=x": {
			Path: "week", Unit: descriptors.Week, UnitMultiplier: 1, RequestsPerUnit: 1,
			Spec: spec(limits.Limit{Kind: limits.FixedWindow, N: 1, Period: 7 * 24 * time.Hour}),
		},
		// Flaw 5: a month is not a block of 30 days.
		"month=x": {
			Path: "month", Unit: descriptors.Month, UnitMultiplier: 1, RequestsPerUnit: 1,
			Spec: spec(limits.Limit{Kind: limits.Quota, N: 1, Calendar: limits.Month}),
		},
		"year=x": {
			Path: "year", Unit: descriptors.Year, UnitMultiplier: 1, RequestsPerUnit: 1,
			Spec: spec(limits.Limit{Kind: limits.Quota, N: 1, Calendar: limits.Year}),
		},
		// Flaw 18: metadata is not lost with value_to_metric.
		"route=r method=m": {
			Path: "route.method", Unit: descriptors.Minute, UnitMultiplier: 1, RequestsPerUnit: 60,
			Spec: spec(limits.Limit{Kind: limits.FixedWindow, N: 60, Period: time.Minute}),
			Metadata: map[string]any{
				"name": "service_1", "owner": map[string]any{"team": "a", "pager": []any{int64(1), 2.5, true, nil}},
			},
		},
		// Flaw 2: a burst, an interval of its own and several limits of one descriptor.
		"beyond=x": beyond,
	} {
		got := d.Match(entries(request))
		opts := cmp.Options{cmpopts.IgnoreUnexported(descriptors.Rule{}), cmp.Comparer(sameSpec)}
		if diff := cmp.Diff(want, got, opts); diff != "" {
			t.Errorf("Match(%s):\n%s", request, diff)
		}
	}
}

// TestSeveralMonths: one is a calendar month, several are blocks of 30 days, in
// rules and in what a request brings along.
func TestSeveralMonths(t *testing.T) {
	d := parse(t, `
domain: d
descriptors:
  - {key: quarter, rate_limit: {unit: month, unit_multiplier: 3, requests_per_unit: 5}}
  - {key: years, rate_limit: {unit: year, unit_multiplier: 2, requests_per_unit: 5}}
`).Domain("d")
	const day = 24 * time.Hour
	for request, want := range map[string]limits.Limit{
		"quarter=x": {Kind: limits.FixedWindow, N: 5, Period: 90 * day},
		"years=x":   {Kind: limits.FixedWindow, N: 5, Period: 730 * day},
	} {
		r := d.Match(entries(request))
		if l := r.Spec.Limit(); l.Kind != want.Kind || l.N != want.N || l.Period != want.Period {
			t.Errorf("Match(%s) = %+v, want %+v", request, l, want)
		}
		o, err := descriptors.NewBook(nil).Override(d, entries(request), descriptors.Override{Unit: r.Unit, UnitMultiplier: r.UnitMultiplier, RequestsPerUnit: 7})
		if err != nil || o.Spec.Limit().Period != want.Period || string(o.AppendKey(nil, entries(request))) != string(r.AppendKey(nil, entries(request))) {
			t.Errorf("an override of %s = %+v, %v, want the same window and counter", request, o, err)
		}
	}
}

func sameSpec(a, b *limits.Spec) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Limit() == b.Limit()
}

func TestReplacedBy(t *testing.T) {
	d := everything(t)
	general, override, free := d.Match(entries("key2=x")), d.Match(entries("key2=3")), d.Match(entries("free=also"))
	for _, c := range []struct {
		rule, by *descriptors.Rule
		want     bool
	}{{general, override, true}, {override, general, false}, {free, override, false}, {general, general, false}} {
		if got := c.rule.ReplacedBy(c.by); got != c.want {
			t.Errorf("%s replaced by %s: %v, want %v", c.rule.Path, c.by.Path, got, c.want)
		}
	}
}

func TestMergeMetadata(t *testing.T) {
	first := map[string]any{"a": "1", "deep": map[string]any{"x": "1"}, "mixed": "text"}
	second := map[string]any{"a": "2", "b": "2", "deep": map[string]any{"x": "2", "y": "2"}, "mixed": map[string]any{"z": "2"}, "new": map[string]any{"n": "2"}}
	third := map[string]any{"new": map[string]any{"m": "3"}, "deep": "text"}
	got := map[string]any{}
	for _, m := range []map[string]any{first, second, third} {
		descriptors.MergeMetadata(got, m)
	}
	want := map[string]any{
		"a": "1", "b": "2", "deep": map[string]any{"x": "1", "y": "2"}, "mixed": "text", "new": map[string]any{"n": "2", "m": "3"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"x": "1"}, first["deep"]); diff != "" {
		t.Errorf("MergeMetadata changed its source:\n%s", diff)
	}
}

func TestDomainsInSeveralFiles(t *testing.T) {
	file := func(name, text string) descriptors.File {
		return descriptors.File{Name: name, Data: []byte("domain: d\n" + text)}
	}
	a := file("a.yaml", "descriptors:\n  - {key: k, value: 'x*', "+counts+"}\n  - {key: k, value: y, "+counts+"}\n")
	b := file("b.yaml", "descriptors:\n  - {key: k, value: 'xy*', "+counts+"}\n  - {key: l, "+counts+"}\n")
	again := file("again.yaml", "descriptors:\n  - key: l\n  - key: k\n    value: y\n")
	for _, c := range []struct {
		name  string
		files []descriptors.File
		merge bool
		want  string
	}{
		{"merged", []descriptors.File{a, b}, true, ""},
		{"not merged", []descriptors.File{a, b}, false,
			`b.yaml:1:9: domain "d": already given in a.yaml:1: put its rules together, or allow domains to be merged (MERGE_DOMAIN_CONFIG=true)`},
		{"the same descriptor twice", []descriptors.File{a, b, again}, true,
			"again.yaml:3:10: key \"l\" without a value: already given in b.yaml:4\n" +
				"again.yaml:4:10: key \"k\" with value \"y\": already given in a.yaml:4"},
		// Flaw 14: what is wrong in one file says so for that file, and for all at once.
		{"bad files among good ones", []descriptors.File{{Name: "z.yaml", Data: []byte("x: 1")}, a, {Name: "README.txt", Data: []byte("Hello: there: you")}}, false,
			"README.txt:1:13: not valid YAML: mapping values are not allowed in this context\n" +
				"z.yaml:1:1: unknown key \"x\": want one of descriptors, domain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := descriptors.Parse(c.files, descriptors.Options{MergeDomains: c.merge})
			if c.want != "" {
				if _, ok := errors.AsType[yamlfile.Problems](err); !ok || err.Error() != c.want {
					t.Fatalf("Parse = %v, want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for request, want := range map[string]string{"k=xyz": "k_x*", "k=y": "k_y", "l=1": "l"} {
				if got := path(rules.Domain("d").Match(entries(request))); got != want {
					t.Errorf("Match(%s) = %s, want %s", request, got, want)
				}
			}
		})
	}
}

func TestBuildNamesConfigAndDescriptor(t *testing.T) {
	_, err := descriptors.Build([]descriptors.Config{
		{Name: "one", Descriptors: []descriptors.Descriptor{
			{Key: "a", Value: "b", Descriptors: []descriptors.Descriptor{
				{Key: "c", Limits: []descriptors.RateLimit{{Unit: 99, Replaces: []string{""}}}},
				{Key: "c", ShareThreshold: true},
				{},
			}},
		}},
		{Name: "two", Domain: "d"},
		{Name: "three", Domain: "d"},
	}, descriptors.Options{})
	want := []string{
		`one: domain is missing: want the name that Envoy's rate limit filter sends`,
		`one: a_b.c: replaces: name is missing: want the name of another limit`,
		`one: a_b.c: unit is missing: want one of second, minute, hour, day, week, month, year`,
		`one: a_b.c: key "c" without a value: already given in one`,
		`one: a_b.c: share_threshold: want a value with a wildcard (*), of which all matches then share one counter`,
		`one: a_b.: key is missing: want the key of a descriptor's entry`,
		`three: domain "d": already given in two: put its rules together, or allow domains to be merged (MERGE_DOMAIN_CONFIG=true)`,
	}
	if err == nil || cmp.Diff(want, strings.Split(err.Error(), "\n")) != "" {
		t.Errorf("Build = %v\nwant %s", err, strings.Join(want, "\n"))
	}
}

func TestParseUnit(t *testing.T) {
	for u := descriptors.Second; u <= descriptors.Week; u++ {
		for _, s := range []string{u.String(), strings.ToUpper(u.String())} {
			if got, ok := descriptors.ParseUnit(s); !ok || got != u {
				t.Errorf("ParseUnit(%s) = %v, %v, want %v", s, got, ok, u)
			}
		}
	}
	for _, s := range []string{"", "unknown", "seconds", "fortnight"} {
		if got, ok := descriptors.ParseUnit(s); ok {
			t.Errorf("ParseUnit(%q) = %v, want none", s, got)
		}
	}
}

// FuzzParse reads any text as a rule file: what can be read can be matched and
// listed, and what cannot names a place.
func FuzzParse(f *testing.F) {
	data, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, "key1", "value1")
	f.Add([]byte(manyRules(1)), "prefix", "/v0/x")
	f.Add([]byte("domain: d\ndescriptors: &a [{key: k, value: '*', descriptors: *a}]\n"), "k", "")
	f.Add([]byte("domain: d\ndescriptors: [{key: '*', value: '**', rate_limit: [{unit: day, requests_per_unit: 1}, {}]}]\n"), "k", "v")
	f.Fuzz(func(t *testing.T, data []byte, k, v string) {
		rules, err := descriptors.Parse([]descriptors.File{{Name: "f", Data: data}}, descriptors.Options{})
		if err != nil {
			ps, ok := errors.AsType[yamlfile.Problems](err)
			if !ok || len(ps) == 0 || ps[0].Line == 0 || ps[0].Column == 0 {
				t.Errorf("Parse = %v, want problems with places", err)
			}
			return
		}
		es := []descriptors.Entry{{Key: k, Value: v}, {Key: k, Value: v}}
		for _, line := range strings.Split(rules.String(), "\n") {
			name, _, _ := strings.Cut(line, ".")
			for n := range es {
				for r := rules.Domain(name).Match(es[:n+1]); r != nil; r = r.Next {
					r.AppendKey(nil, es[:n+1])
				}
			}
		}
	})
}
