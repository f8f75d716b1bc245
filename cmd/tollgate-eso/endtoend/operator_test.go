package endtoend_test

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/testcluster"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/windows"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/keeper"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
)

// tollgateConfig is what Tollgate is told of a Keeper that counts until it is
// left alone.
const tollgateConfig = `
listen: {grpc: "${SOCKET}", http: "127.0.0.1:0", drain: 0s}
upstreams:
  - {id: keeper, preset: keeper, match: {host: keepersecurity.example}, limits: [{idle_reset: "100/${WINDOW}", margin: 10%, max_wait: MAX_WAIT}],
     pressure: {signals: [{status: 403, body: throttled}], initial: 60s}}
`

// lab is External Secrets, Envoy, Tollgate and a fake of Keeper's API.
type lab struct {
	fake  *keeper.Fake
	stack *keeper.Stack
}

// conditions of a lab. An operator that reconciles many objects at a time reads some
// twice by itself: its writes of one object's status conflict.
type conditions struct {
	window     time.Duration // of Keeper's limit
	concurrent int           // objects of the operator
	wait       time.Duration // at most, for a call that Tollgate holds; 0: 5 min
}

// newLab runs all of it, with a store in a namespace of the cluster.
func newLab(t *testing.T, namespace string, c conditions) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real Envoy: not in -short")
	}
	cl := root(t)
	if why := testcluster.Missing("operator"); why != "" {
		t.Skip(why)
	}
	ca, err := keeper.NewAuthority(t.TempDir())
	must(t, err)
	account, err := keeper.NewAccount()
	must(t, err)
	pair, _, _, err := ca.Issue(keeper.Host)
	must(t, err)
	fake, err := keeper.Start(account, pair, throttle.Options{Model: throttle.IdleReset, N: 100, Window: c.window})
	must(t, err)
	t.Cleanup(func() { _ = fake.Close() })
	file := filepath.Join(ca.Dir, "tollgate.yaml")
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(tollgateConfig, "MAX_WAIT", cmp.Or(c.wait, 5*time.Minute).String())), 0o600))
	stack, err := keeper.StartStack(t.Context(), buildTollgate(t), file, c.window, fake.Addr, ca)
	must(t, err)
	t.Cleanup(func() {
		if err := stack.Stop(); err != nil {
			t.Error(err)
		}
	})
	settings, err := account.Config(keeper.Alias)
	must(t, err)
	data, err := json.Marshal(settings)
	must(t, err)
	create(t, cl, store(namespace), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "keeper"},
		Data: map[string][]byte{"config": []byte(base64.StdEncoding.EncodeToString(data))}})
	cluster.Operator(t, []string{"KEEPER_ADDRESS=" + stack.Addr, "KEEPER_CA=" + ca.File, "KEEPER_KEY=" + account.ServerKey()},
		"--namespace", namespace, "--enable-cluster-store-reconciler=false", "--enable-cluster-external-secret-reconciler=false",
		"--enable-cluster-push-secret-reconciler=false", "--concurrent", fmt.Sprint(c.concurrent))
	return &lab{fake: fake, stack: stack}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func buildTollgate(t *testing.T) string {
	t.Helper()
	binary, err := builtTollgate()
	must(t, err)
	return binary
}

var builtTollgate = sync.OnceValues(func() (string, error) { return build("../../..", "./cmd/tollgate", "tollgate") })

// companionConfig is the companion before the lab's Tollgate.
func (l *lab) companionConfig(t *testing.T, namespace string) *config.Config {
	t.Helper()
	c := configure(t, "keeper", "http://"+l.stack.Admin, "push: {coalesce: 500ms}")
	c.Upstreams[0].Stores.Stores = []eso.Store{{Kind: eso.SecretStoreKind, Namespace: namespace, Name: "keeper"}}
	return c
}

// passwords returns what the Secrets of a namespace hold.
func passwords(t *testing.T, namespace string) map[string]string {
	t.Helper()
	var l corev1.SecretList
	must(t, root(t).List(t.Context(), &l, client.InNamespace(namespace)))
	all := map[string]string{}
	for _, s := range l.Items {
		all[s.Name] = string(s.Data["key0"])
	}
	return all
}

// numbered makes n external secrets, each of a record of its own, and says whether
// all have what the upstream has.
func (l *lab) numbered(t *testing.T, namespace string, n int) (all []client.Object, synced func() bool) {
	name := func(i int) string { return fmt.Sprintf("es-%03d", i) }
	for i := range n {
		all = append(all, externalSecret(namespace, name(i), nil, uid(i)))
	}
	return all, func() bool {
		got := passwords(t, namespace)
		for i := range n {
			if got[name(i)] != l.fake.Password(uid(i)) {
				return false
			}
		}
		return true
	}
}

// TestRecoveryAndWebhooksWithTheOperatorItself: 200 external secrets are created
// at once before an API that takes 100 calls until it is left alone; all are
// synced, and none is refused. Then 20 records change, and each is read once
// more.
func TestRecoveryAndWebhooksWithTheOperatorItself(t *testing.T) {
	const n, changed, ns = 200, 20, "recovery"
	l := newLab(t, ns, conditions{window: 3 * time.Second, concurrent: 1}) // the operator's default
	addr, _ := runCompanion(t, t.TempDir(), l.companionConfig(t, ns))
	all, synced := l.numbered(t, ns, n)
	began := time.Now()
	createAll(t, root(t), all)
	within(t, 3*time.Minute, "all are synced", synced)
	t.Logf("%d external secrets synced in %v with %d calls", n, time.Since(began).Round(time.Second/10), len(l.fake.Calls()))

	for i := range changed {
		l.fake.Change(uid(i))
		event(t, addr, "keeper", uid(i))
	}
	began = time.Now()
	within(t, time.Minute, "what has changed is synced", synced)
	t.Logf("%d changes synced in %v", changed, time.Since(began).Round(time.Second/10))
	reads := l.fake.Reads()
	for i := range n {
		want := 1
		if i < changed {
			want = 2
		}
		if reads[uid(i)] != want {
			t.Errorf("record %d was read %d times, want %d", i, reads[uid(i)], want)
		}
	}
	if l.fake.Throttled() != 0 {
		t.Errorf("%d calls were refused by the upstream, want none", l.fake.Throttled())
	}
}

// TestK15NothingIsCalledInAPause: Keeper refuses once; for the 60 s of the pause
// 200 external secrets and 20 push secrets make no call, the store says why and
// stays Ready, and afterwards all are synced about as fast as the limit allows.
func TestK15NothingIsCalledInAPause(t *testing.T) {
	const n, pushed, ns = 200, 20, "frozen"
	const window, pause = 5 * time.Second, 60 * time.Second
	l := newLab(t, ns, conditions{window: window, concurrent: 100})
	runCompanion(t, t.TempDir(), l.companionConfig(t, ns))
	within(t, time.Minute, "the store is Ready", func() bool { return conditionOf(t, ns, "Ready") == metav1.ConditionTrue })
	for range 100 { // somebody else has used up all that Keeper allows
		l.fake.Take(time.Now())
	}
	create(t, root(t), externalSecret(ns, "first", nil, uid(1000)))
	within(t, time.Minute, "Keeper refuses", func() bool { return l.fake.Throttled() == 1 })
	within(t, 20*time.Second, "the store says so", func() bool { return conditionOf(t, ns, "Throttled") == metav1.ConditionTrue })
	if got := conditionOf(t, ns, "Ready"); got != metav1.ConditionTrue {
		t.Errorf("Ready = %s in the pause, want True", got)
	}
	all, _ := l.numbered(t, ns, n)
	for i := range pushed {
		title := fmt.Sprintf("push-%02d", i)
		l.fake.Hold(title)
		all = append(all, pushSecret(ns, title))
	}
	create(t, root(t), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "pushed"}, Data: map[string][]byte{"password": []byte("p")}})
	createAll(t, root(t), all)
	within(t, 2*time.Minute, "all are synced", func() bool {
		got := passwords(t, ns)
		for i := range n {
			if got[fmt.Sprintf("es-%03d", i)] == "" {
				return false
			}
		}
		return l.fake.Writes() >= pushed
	})
	calls := l.fake.Calls()
	refused := slices.IndexFunc(calls, func(c throttle.Call) bool { return !c.Taken })
	took := time.Since(calls[refused].At)
	// One call asks; then 240 calls by 90 need two silences, and the first seconds are a ramp.
	const ramp = 5 * time.Second
	var silences []time.Duration
	for i := refused + 1; i < len(calls); i++ {
		if silence := calls[i].At.Sub(calls[i-1].At); silence >= window {
			silences = append(silences, silence)
		}
	}
	t.Logf("all synced %v after the refusal, at best %v; %d calls, %d refused, silences of %v", took.Round(time.Second/10), pause+window+ramp+2*window,
		len(calls), l.fake.Throttled(), silences)
	if len(silences) == 0 || silences[0] < pause || len(silences) > 12 { // fewer, where the machine is not busy
		t.Errorf("Keeper was left alone for %v, want a pause of %v, and then three times for as long as it takes", silences, pause)
	}
	if l.fake.Throttled() != 1 {
		t.Errorf("%d calls were refused, want the first only", l.fake.Throttled())
	}
	within(t, 20*time.Second, "the store says that it is over", func() bool { return conditionOf(t, ns, "Throttled") == metav1.ConditionFalse })
	if got := conditionOf(t, ns, "Ready"); got != metav1.ConditionTrue {
		t.Errorf("Ready = %s, want True", got)
	}
}

// TestK15WindowsWithTheOperatorItself: in a pause, an external secret with a window
// makes no attempt; one without makes several, though Keeper sees neither. Afterwards
// both have what has changed.
func TestK15WindowsWithTheOperatorItself(t *testing.T) {
	root(t)
	if has, err := testcluster.HasSyncWindows(); err != nil || !has {
		t.Skipf("SKIPPED: this External Secrets has no syncWindows (%v): set ESO_OPERATOR and ESO_CRDS to those of 2.7 or later", err)
	}
	const ns = "operator-windows"
	l := newLab(t, ns, conditions{window: 5 * time.Second, concurrent: 4, wait: 100 * time.Millisecond})
	c := l.companionConfig(t, ns)
	c.Upstreams[0].Windows = time.Second
	runCompanion(t, t.TempDir(), c)
	often := map[string]any{"refreshInterval": "2s"}
	asks, plain := externalSecret(ns, "asks", often, uid(1)), externalSecret(ns, "plain", often, uid(2))
	asks.SetAnnotations(map[string]string{windows.OptIn: "true"})
	create(t, root(t), asks, plain)
	synced := func() bool {
		got := passwords(t, ns)
		return got["asks"] == l.fake.Password(uid(1)) && got["plain"] == l.fake.Password(uid(2))
	}
	within(t, time.Minute, "both are synced", synced)
	for range 100 { // somebody else has used up all that Keeper allows
		l.fake.Take(time.Now())
	}
	within(t, time.Minute, "a window is set", func() bool { return windowsOf(t, ns)["asks"] != "" })
	l.fake.Change(uid(1))
	l.fake.Change(uid(2))
	asked, other, called := l.failures(t, ns, "asks"), l.failures(t, ns, "plain"), len(l.fake.Calls())
	quiet(t, 20*time.Second, "an attempt was made in the window", func() bool { return l.failures(t, ns, "asks") > asked+1 }) // one may be under way
	if now := l.failures(t, ns, "plain"); now == other || len(l.fake.Calls()) != called {
		t.Errorf("without a window %d attempts in 20 s, and %d calls of Keeper, want some, and none", now-other, len(l.fake.Calls())-called)
	}
	within(t, 2*time.Minute, "the window is taken back", func() bool { return windowsOf(t, ns)["asks"] == "" })
	within(t, 8*time.Minute, "both are synced again", synced)
	t.Logf("attempts in vain: %d with a window, %d without", l.failures(t, ns, "asks"), l.failures(t, ns, "plain"))
}

// failures returns how many attempts of an external secret failed.
func (l *lab) failures(t *testing.T, namespace, name string) int {
	t.Helper()
	var all corev1.EventList
	must(t, root(t).List(t.Context(), &all, client.InNamespace(namespace)))
	n := 0
	for _, e := range all.Items {
		if e.InvolvedObject.Name == name && e.Reason == "UpdateFailed" {
			n += int(max(1, e.Count))
		}
	}
	return n
}

// conditionOf returns the status of a condition of the namespace's store.
func conditionOf(t *testing.T, namespace, kind string) metav1.ConditionStatus {
	t.Helper()
	var s eso.SecretStore
	must(t, root(t).Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "keeper"}, &s))
	if c := eso.FindCondition(s.Status.Conditions, kind); c != nil {
		return c.Status
	}
	return ""
}

// pushSecret writes the Secret pushed to a record.
func pushSecret(namespace, title string) *unstructured.Unstructured {
	p := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"refreshInterval": "24h0m0s",
		"secretStoreRefs": []any{map[string]any{"name": "keeper", "kind": eso.SecretStoreKind}},
		"selector":        map[string]any{"secret": map[string]any{"name": "pushed"}},
		"data":            []any{map[string]any{"match": map[string]any{"secretKey": "password", "remoteRef": map[string]any{"remoteKey": title + "/password"}}}},
	}}}
	p.SetAPIVersion(eso.Group + "/v1alpha1")
	p.SetKind("PushSecret")
	p.SetNamespace(namespace)
	p.SetName(title)
	return p
}
