package plan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/manifests"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/plan"
	"github.com/tollgate-dev/tollgate/limits"
)

// call is how long a call takes in these tests.
const call = 50 * time.Millisecond

// model is an upstream that counts in its own way. It reports whether it takes a
// call; calls come in the order of time.
type model func(at time.Duration) bool

// models are upstreams that allow n calls in a period.
func models(n int, period, phase time.Duration) map[string]model {
	var inFixed, sinceIdle int
	var fixed, last time.Duration = -1, -1 << 50
	var recent []time.Duration
	tokens, filled := float64(n), time.Duration(0)
	return map[string]model{
		"fixed window": func(at time.Duration) bool {
			if w := (at + phase) / period; w != fixed {
				fixed, inFixed = w, 0
			}
			inFixed++
			return inFixed <= n
		},
		"sliding window": func(at time.Duration) bool {
			recent = slices.DeleteFunc(recent, func(t time.Duration) bool { return at-t >= period })
			recent = append(recent, at)
			return len(recent) <= n
		},
		"idle reset": func(at time.Duration) bool {
			if at-last >= period {
				sinceIdle = 0
			}
			last = at
			sinceIdle++
			return sinceIdle <= n
		},
		"token bucket": func(at time.Duration) bool {
			tokens = min(float64(n), tokens+float64(n)*float64(at-filled)/float64(period))
			filled = at
			tokens--
			return tokens >= 0
		},
	}
}

// calls returns when a plan calls the upstream, one call after the other, in so
// many rounds of its longest interval.
func calls(r *plan.Report, lasts time.Duration) []time.Duration {
	type refresh struct {
		at    time.Duration
		calls int
	}
	var all []refresh
	for _, w := range r.Waves {
		for _, o := range w.Objects {
			for at := w.Offset; at < lasts; at += o.Every {
				all = append(all, refresh{at, o.Calls})
			}
		}
	}
	slices.SortFunc(all, func(a, b refresh) int { return int(a.at - b.at) })
	var times []time.Duration
	var now time.Duration
	for _, one := range all {
		now = max(now, one.at)
		for range one.calls {
			times = append(times, now)
			now += call
		}
	}
	return times
}

// TestK26PlanNeverThrottles follows plans of random objects on every model of an
// upstream: if a plan says that it fits, nothing is refused.
func TestK26PlanNeverThrottles(t *testing.T) {
	kinds := map[string]limits.Kind{"fixed window": limits.FixedWindow, "sliding window": limits.Window, "idle reset": limits.IdleReset, "token bucket": limits.Rate}
	random := rand.New(rand.NewPCG(7, 11))
	fitted := map[string]int{}
	for round := range 100 {
		n, period := 20+random.IntN(100), time.Duration(2+random.IntN(20))*time.Second
		var objects []plan.Object
		base := time.Duration(5+random.IntN(20)) * time.Minute
		for i := range 1 + random.IntN(400) {
			every := base
			if random.IntN(3) == 0 {
				every = time.Duration(float64(base) * (1 + 7*random.Float64()))
			}
			objects = append(objects, plan.Object{Kind: "ExternalSecret", Name: fmt.Sprint(i), Calls: 1 + random.IntN(4), Every: every})
		}
		for name, upstream := range models(n, period, time.Duration(random.Int64N(int64(period)))) {
			l := limits.Limit{Kind: kinds[name], N: int64(n), Period: period}
			if l.Kind == limits.Rate {
				l.Burst = int64(n)
			}
			r := plan.Make(objects, plan.Allowance{Limits: []limits.Limit{l}, Call: call})
			if !r.Fits() {
				continue
			}
			fitted[name]++
			for i, at := range calls(r, 4*time.Hour) {
				if !upstream(at) {
					t.Fatalf("round %d, %s of %d per %v: call %d, at %v, is refused", round, name, n, period, i, at)
				}
			}
			for _, w := range r.Waves {
				for _, o := range w.Objects {
					if o.Every > o.Object.Every {
						t.Fatalf("%s: every %v, asked for %v", o, o.Every, o.Object.Every)
					}
				}
			}
		}
	}
	for name := range kinds {
		if fitted[name] < 25 {
			t.Errorf("%s: only %d plans of 100 fit: the test shows little", name, fitted[name])
		}
	}
}

// The smallest interval fits, and nothing well below it does.
func TestK26SmallestIntervalIsSafeAndSmall(t *testing.T) {
	a := plan.Allowance{Limits: []limits.Limit{{Kind: limits.IdleReset, N: 92, Period: 10150 * time.Millisecond}}, Call: call}
	same := func(every time.Duration) *plan.Report {
		var objects []plan.Object
		for i := range 500 {
			objects = append(objects, plan.Object{Kind: "ExternalSecret", Name: fmt.Sprint(i), Calls: 1 + i%3, Every: every})
		}
		return plan.Make(objects, a)
	}
	least := same(time.Hour).Smallest
	if r := same(least); !r.Fits() {
		t.Errorf("every %v: %v", least, r.Problems)
	}
	if r := same(least * 9 / 10); r.Fits() {
		t.Errorf("every %v fits, and %v is said to be the least", least*9/10, least)
	}
}

func read(t *testing.T, text string) *plan.Set {
	t.Helper()
	s := plan.NewSet()
	if err := add(s, "test.yaml", text); err != nil {
		t.Fatal(err)
	}
	return s
}

func add(s *plan.Set, file, text string) error {
	objects, err := manifests.Stream(file, strings.NewReader(text))
	return errors.Join(err, s.Add(objects))
}

const everyKind = `
apiVersion: external-secrets.io/v1
kind: ClusterSecretStore
metadata: {name: keeper}
spec: {provider: {keepersecurity: {getByTitleFallback: true}}}
---
apiVersion: external-secrets.io/v1
kind: ClusterSecretStore
metadata: {name: vault}
spec: {provider: {vault: {}}}
---
apiVersion: v1
kind: List
items:
- apiVersion: external-secrets.io/v1
  kind: ExternalSecret
  metadata: {name: plain, namespace: a}
  spec:
    refreshInterval: 30m
    secretStoreRef: {kind: ClusterSecretStore, name: keeper}
    data:
    - {secretKey: x, remoteRef: {key: AAAAAAAAAAAAAAAAAAAAAA}}
    - {secretKey: z, remoteRef: {key: a title}}          # a second call
    dataFrom:
    - find: {name: {regexp: ".*"}}
    - extract: {key: BBBBBBBBBBBBBBBBBBBBBB}
    - sourceRef: {generatorRef: {kind: Password, name: p}} # no call
- apiVersion: external-secrets.io/v1
  kind: ExternalSecret
  metadata: {name: elsewhere, namespace: a}
  spec: {secretStoreRef: {kind: ClusterSecretStore, name: vault}, data: [{secretKey: x, remoteRef: {key: k}}]}
---
apiVersion: external-secrets.io/v1beta1
kind: ExternalSecret
metadata: {name: once}
spec: {refreshPolicy: CreatedOnce, secretStoreRef: {name: local}, data: [{secretKey: x, remoteRef: {key: k}}]}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: never}
spec: {refreshInterval: "0", secretStoreRef: {name: local}, data: [{secretKey: x, remoteRef: {key: k}}]}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: nightly}
spec:
  refreshInterval: 10m
  syncWindows: {kind: allow, windows: [{schedule: "0 2 * * *", duration: 1h}]}
  secretStoreRef: {name: local}
  data: [{secretKey: x, remoteRef: {key: k}}]
status: {conditions: [{type: Ready, status: "False", reason: SecretSyncedError, message: could not get secret}]}
---
apiVersion: external-secrets.io/v1
kind: ClusterExternalSecret
metadata: {name: everywhere}
spec:
  namespaceSelectors: [{matchLabels: {team: red}}]
  namespaces: [b]
  externalSecretSpec: {secretStoreRef: {kind: ClusterSecretStore, name: keeper}, data: [{secretKey: x, remoteRef: {key: AAAAAAAAAAAAAAAAAAAAAA}}]}
---
{apiVersion: v1, kind: Namespace, metadata: {name: red-1, labels: {team: red}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: blue, labels: {team: blue}}}
---
apiVersion: external-secrets.io/v1alpha1
kind: PushSecret
metadata: {name: push, namespace: a}
spec:
  refreshInterval: 2h
  secretStoreRefs: [{kind: ClusterSecretStore, name: keeper}, {kind: ClusterSecretStore, name: vault}]
  data: [{match: {secretKey: x, remoteRef: {remoteKey: r}}}]
`

// TestK26Demand counts what each kind of object costs.
func TestK26Demand(t *testing.T) {
	s := read(t, everyKind)
	if err := s.Expand(0); err != nil {
		t.Fatal(err)
	}
	type row struct {
		Object string
		Calls  int
		Every  time.Duration
		Fails  bool
	}
	var got []row
	objects := s.Demand(eso.Selector{Provider: "keepersecurity"})
	for _, o := range objects {
		got = append(got, row{o.String(), o.Calls, o.Every, o.Failing != ""})
	}
	want := []row{
		{"ExternalSecret a/plain", 5, 30 * time.Minute, false},
		{"ExternalSecret b/everywhere", 1, time.Hour, false},
		{"ExternalSecret default/never", 1, 0, false},
		{"ExternalSecret default/nightly", 1, 10 * time.Minute, true},
		{"ExternalSecret default/once", 1, 0, false},
		{"ExternalSecret red-1/everywhere", 1, time.Hour, false},
		{"PushSecret a/push", 2, 2 * time.Hour, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	r := plan.Make(objects, plan.Allowance{Price: 0.5})
	// 5·48 + 2·24 + 6 in the hour that is open + 2·12
	if want := 240.0 + 48 + 6 + 24; r.CallsPerDay != want || r.CallsPerMonth != want*31 || r.Cost != want*31/2 {
		t.Errorf("%v a day, %v a month, %v: want %v, %v, %v", r.CallsPerDay, r.CallsPerMonth, r.Cost, want, want*31, want*31/2)
	}
	if only := s.Demand(eso.Selector{Provider: "keepersecurity", Stores: []eso.Store{{Kind: "SecretStore", Namespace: "default", Name: "local"}}}); len(only) != 3 {
		t.Errorf("only the store local: %v", only)
	}
}

// TestK25FailingObjectsCost says what objects cost that fail for ever: three with
// a call each are tried 617 times a day, whatever their interval.
func TestK25FailingObjectsCost(t *testing.T) {
	var objects []plan.Object
	for i := range 3 {
		objects = append(objects, plan.Object{Kind: "ExternalSecret", Name: fmt.Sprint(i), Calls: 1, Every: 24 * time.Hour, Failing: "not found"})
	}
	r := plan.Make(objects, plan.Allowance{})
	if got := int(r.FailingPerDay); got != 617 && got != 618 {
		t.Errorf("%v calls a day, want 617: one every 420 s", r.FailingPerDay)
	}
	if len(r.Failing) != 3 {
		t.Errorf("failing: %v", r.Failing)
	}
}

// TestK26Problems names each reason why something does not fit.
func TestK26Problems(t *testing.T) {
	window := plan.Allowance{Limits: []limits.Limit{{Kind: limits.Window, N: 10, Period: 10 * time.Second}}}
	many := func(n, calls int, every time.Duration, w *eso.SyncWindows) (all []plan.Object) {
		for i := range n {
			all = append(all, plan.Object{Kind: "ExternalSecret", Name: fmt.Sprint(i), Calls: calls, Every: every, Windows: w})
		}
		return all
	}
	night := &eso.SyncWindows{Kind: "deny", Windows: []eso.SyncWindow{{Schedule: "0 2 * * *"}}}
	night.Windows[0].Duration.Duration = time.Hour
	for _, c := range []struct {
		name    string
		objects []plan.Object
		allowed plan.Allowance
		want    string
	}{
		{"fits", many(60, 1, time.Minute, nil), window, ""},
		{"one too many", many(61, 1, time.Minute, nil), window, "1 of 61 objects find no place"},
		{"too large", many(1, 11, time.Hour, nil), window, "makes 11 calls in a refresh, and no more than 10"},
		{"interval below a batch", many(1, 1, time.Second, nil), window, "find no place"},
		{"together after a window", many(11, 1, time.Hour, night), window, "make 11 calls when the windows open"},
		{"budget of a day", many(1, 1, time.Hour, nil), plan.Allowance{Budgets: []plan.Budget{{Calls: 23, Calendar: limits.Day}}}, "24 calls per day are more than the budget of 23"},
		{"budget of a month", many(1, 1, time.Hour, nil), plan.Allowance{Budgets: []plan.Budget{{Calls: 744, Calendar: limits.Month}}}, ""},
		{"nothing allowed", many(1, 1, time.Hour, nil), plan.Allowance{Limits: []limits.Limit{{Kind: limits.Window, N: 0, Period: time.Second}}}, "no more than 0"},
		{"nothing asked for", nil, window, ""},
	} {
		r := plan.Make(c.objects, c.allowed)
		if got := strings.Join(r.Problems, "\n"); (c.want == "") != r.Fits() || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// What cannot be read is told with its place, all of it at once.
func TestReadProblems(t *testing.T) {
	s := plan.NewSet()
	err := add(s, "bad.yaml", `
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: a}
spec: {refreshInterval: soon}
---
{apiVersion: external-secrets.io/v1, kind: ExternalSecret, spec: {}}
---
a: [
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: w}
spec: {syncWindows: {kind: allow, windows: [{schedule: "61 * * * *", duration: 1h}]}}
`)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"bad.yaml: document 1: ExternalSecret default/a", "document 2: ExternalSecret: no metadata.name", "document 3", `document 4: ExternalSecret default/w: spec.syncWindows: schedule "61 * * * *"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %q", err, want)
		}
	}
	s = read(t, `{apiVersion: external-secrets.io/v1, kind: ClusterExternalSecret, metadata: {name: c}, spec: {namespaceSelectors: [{matchLabels: {a: b}}]}}`)
	if err := s.Expand(0); err == nil || !strings.Contains(err.Error(), "--namespaces") {
		t.Errorf("no namespaces: %v", err)
	}
}

// The plan as commands patches every object, in order, and nothing twice.
func TestK26Shell(t *testing.T) {
	var objects []plan.Object
	for i := range 25 {
		objects = append(objects, plan.Object{Kind: "ExternalSecret", Namespace: "a", Name: fmt.Sprintf("s%02d", i), Calls: 1, Every: time.Hour})
	}
	r := plan.Make(objects, plan.Allowance{Limits: []limits.Limit{{Kind: limits.Window, N: 10, Period: 10 * time.Second}}})
	var shell, doc bytes.Buffer
	if err := r.Shell(&shell); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(shell.String(), "kubectl patch externalsecret -n 'a' 's"); got != 25 {
		t.Errorf("%d patches:\n%s", got, &shell)
	}
	if got := strings.Count(shell.String(), "\nsleep 10"); got != 2 {
		t.Errorf("%d pauses:\n%s", got, &shell)
	}
	if err := r.JSON(&doc); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Fits            bool
		PlannedPeak     int    `json:"planned_peak"`
		RefreshInterval string `json:"smallest_refresh_interval"`
		Waves           []struct{ Calls int }
	}
	if err := json.Unmarshal(doc.Bytes(), &d); err != nil || !d.Fits || d.PlannedPeak != 10 || len(d.Waves) != 3 || d.RefreshInterval == "" {
		t.Errorf("%v: %+v", err, d)
	}
}
