package descriptors_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/descriptors"
)

// key is the counter's key of a descriptor, which must match a rule.
func key(t testing.TB, rules *descriptors.Rules, domain, request string) string {
	t.Helper()
	es := entries(request)
	r := rules.Domain(domain).Match(es)
	if r == nil {
		t.Fatalf("Match(%s) = nil in %s", request, domain)
	}
	return string(r.AppendKey(nil, es))
}

// TestDistinctDescriptorsHaveDistinctKeys names flaw 6: parts joined by _ let a
// caller who controls a value reach another's bucket.
func TestDistinctDescriptorsHaveDistinctKeys(t *testing.T) {
	domain := func(name string) string {
		return "domain: " + name + `
descriptors:
  - {key: user, ` + counts + `, descriptors: [{key: role, ` + counts + `}]}
  - {key: user_x, ` + counts + `}
  - {key: a, ` + counts + `, descriptors: [{key: b, ` + counts + `, descriptors: [{key: c, ` + counts + `}]}]}
`
	}
	var files []descriptors.File
	for _, name := range []string{"d", "d_user"} {
		files = append(files, descriptors.File{Name: name, Data: []byte(domain(name))})
	}
	rules, err := descriptors.Parse(files, descriptors.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, d := range []string{"d", "d_user"} {
		for _, request := range []string{
			"user=x_role_admin", "user=x role=admin", "user=x", "user_x=role_admin", "user=x.role", "user=",
			"a=1", "a=1 b=2", "a=1 b=2 c=3", "a=1b=2", "a=1\x00b b=2", "a=1 b=\x00b2", "a=\x01", "a=\x00\x01b",
			"user=" + strings.Repeat("long", 100), "user=" + strings.Repeat("long", 99) + " role=long",
		} {
			k := key(t, rules, d, request)
			if other, taken := seen[k]; taken {
				t.Errorf("%s in %s has the key of %s", request, d, other)
			}
			seen[k] = request + " in " + d
		}
	}
}

// TestKeyOutlivesConfiguration changes all that may change about a rule while
// its counter goes on.
func TestKeyOutlivesConfiguration(t *testing.T) {
	before := parse(t, `
domain: d
descriptors:
  - {key: a, rate_limit: {unit: second, requests_per_unit: 10}}
  - {key: b, rate_limit: {unit: hour, requests_per_unit: 10}}
`)
	after := parse(t, `
domain: d
descriptors:
  - key: b
    shadow_mode: true
    rate_limit:
      - {unit: second, requests_per_unit: 7}
      - {unit: day, requests_per_unit: 20, name: daily}
  - {key: a, value: "*", rate_limit: {unit: minute, requests_per_unit: 20, algorithm: rate, burst: 5, name: new, replaces: [{name: old}]}}
  - {key: other, rate_limit: {unit: hour, requests_per_unit: 1}}
`)
	if key(t, before, "d", "a=1") != key(t, after, "d", "a=1") {
		t.Error("a's key depends on the limit, the rule's place or its form")
	}
	es := entries("b=1")
	second := after.Domain("d").Match(es)
	daily := second.Next
	if daily == nil || daily.Name != "daily" || daily.Next != nil {
		t.Fatalf("limits of b = %+v, want one of a second and one of a day", second)
	}
	if got := string(daily.AppendKey(nil, es)); got != key(t, before, "d", "b=1") {
		t.Error("the longest of several limits has not the key of a single one")
	}
	if bytes.Equal(second.AppendKey(nil, es), daily.AppendKey(nil, es)) {
		t.Error("two limits of one descriptor share a key")
	}
}

func TestShareThresholdSharesOneKey(t *testing.T) {
	rules := parse(t, `
domain: d
descriptors:
  - {key: files, value: files/*, share_threshold: true, `+counts+`}
  - {key: paths, value: paths/*, `+counts+`}
  - key: top
    value: top/*
    share_threshold: true
    descriptors:
      - {key: sub, value: sub/*, `+counts+`}
  - {key: "x-*", share_threshold: true, `+counts+`}
  - {key: y, value: "y*", share_threshold: true, `+counts+`}
  - {key: z, value: "y*y", `+counts+`}
`)
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"files=files/a", "files=files/b", true},
		{"files=files/a", "files=files/", true},
		{"paths=paths/a", "paths=paths/b", false},
		{"top=top/a sub=sub/1", "top=top/b sub=sub/1", true},
		{"top=top/a sub=sub/1", "top=top/a sub=sub/2", false},
		{"x-a=1", "x-b=2", true},
		{"y=y", "z=yy", false},
	} {
		a, b := key(t, rules, "d", c.a), key(t, rules, "d", c.b)
		if (a == b) != c.same {
			t.Errorf("%s and %s share a key: %v, want %v", c.a, c.b, a == b, c.same)
		}
	}
}

func TestKeysAreShortAndHoldNoCredential(t *testing.T) {
	rules := parse(t, "domain: d\ndescriptors: [{key: token, "+counts+"}, {key: k, "+counts+"}]\n")
	for _, request := range []string{"token=s3cret", "k=v", "k=" + strings.Repeat("x", 100_000)} {
		k := key(t, rules, "d", request)
		if len(k) > 64 {
			t.Errorf("key of %.20s… is %d bytes long, want 64 at most", request, len(k))
		}
		if strings.Contains(k, "s3cret") {
			t.Errorf("key of %s holds it in clear", request)
		}
	}
	if key(t, rules, "d", "token=a") == key(t, rules, "d", "token=b") {
		t.Error("two tokens share a key")
	}
}

func TestAppendKeyAppends(t *testing.T) {
	rules := parse(t, "domain: d\ndescriptors: [{key: k, "+counts+"}]\n")
	for _, request := range []string{"k=v", "k=" + strings.Repeat("x", 1000)} {
		es := entries(request)
		r := rules.Domain("d").Match(es)
		got := r.AppendKey([]byte("prefix"), es)
		if want := "prefix" + string(r.AppendKey(nil, es)); string(got) != want {
			t.Errorf("AppendKey(prefix, %.10s…) = %q, want %q", request, got, want)
		}
	}
}

func TestAppendKeyAllocatesNothing(t *testing.T) {
	rules := parse(t, "domain: d\ndescriptors: [{key: k, "+counts+"}]\n")
	for _, length := range []int{1, 50, 400} {
		es := entries("k=" + strings.Repeat("x", length))
		r := rules.Domain("d").Match(es)
		if n := testing.AllocsPerRun(100, func() {
			var room [512]byte
			r.AppendKey(room[:0], es)
		}); n != 0 {
			t.Errorf("AppendKey allocates %v times with a value of %d bytes", n, length)
		}
	}
}

// FuzzKey holds two requests against each other: they have one key if and only
// if their domain and entries are the same.
func FuzzKey(f *testing.F) {
	f.Add("d", "user", "x_role_admin", "", "", "d", "user", "x", "role", "admin", false)
	f.Add("d", "k", "a\x00b", "", "", "d", "k", "a", "\x00b", "", false)
	f.Add("d", "k", "v", "l", "w", "d", "k", "v", "l", "w", true)
	f.Add("d", "k", strings.Repeat("v", 100), "", "", "dd", "k", strings.Repeat("v", 99), "", "", false)
	f.Fuzz(func(t *testing.T, d1, k1, v1, k2, v2, d2, l1, w1, l2, w2 string, two bool) {
		request := func(domain, k1, v1, k2, v2 string) (string, bool) {
			es := []descriptors.Entry{{Key: k1, Value: v1}}
			list := []descriptors.Descriptor{{Key: k1}}
			if two {
				es = append(es, descriptors.Entry{Key: k2, Value: v2})
				list[0].Descriptors = []descriptors.Descriptor{{Key: k2}}
				list[0].Descriptors[0].Limits = []descriptors.RateLimit{{Unit: descriptors.Hour}}
			} else {
				list[0].Limits = []descriptors.RateLimit{{Unit: descriptors.Hour}}
			}
			rules, err := descriptors.Build([]descriptors.Config{{Name: "f", Domain: domain, Descriptors: list}}, descriptors.Options{})
			if err != nil {
				return "", false
			}
			r := rules.Domain(domain).Match(es)
			if r == nil {
				t.Fatalf("no match for %q in its own rules", es)
			}
			return string(r.AppendKey(nil, es)), true
		}
		a, ok1 := request(d1, k1, v1, k2, v2)
		b, ok2 := request(d2, l1, w1, l2, w2)
		if !ok1 || !ok2 {
			return
		}
		same := d1 == d2 && k1 == l1 && v1 == w1 && (!two || k2 == l2 && v2 == w2)
		if (a == b) != same {
			t.Errorf("%q and %q: one key is %v, want %v", fmt.Sprint(d1, k1, v1, k2, v2), fmt.Sprint(d2, l1, w1, l2, w2), a == b, same)
		}
	})
}
