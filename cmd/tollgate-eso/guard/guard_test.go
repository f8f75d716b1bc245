package guard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/guard"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// operator is the API server and External Secrets with one worker. As External
// Secrets 0.20 does (Reconcile and shouldRefresh of its externalsecret controller,
// BuildRateLimiter of controllers/common):
//
//   - It looks at an object whenever that was written, by whomever, and after a
//     refresh interval.
//   - It refreshes nothing whose interval is 0 and that has synced before. Otherwise
//     it refreshes what has another generation, labels or annotations than what was
//     synced, and what is older than the interval.
//   - A refresh that fails sets Ready to False with a message that does not say why,
//     and keeps the time of the transition where it was False already. The status is
//     written only where that makes it another one. It tries again after 1 s,
//     doubled each time, at most 7 min; a look without failure starts that anew.
//   - A refresh that succeeds sets Ready, refreshTime and syncedResourceVersion.
type operator struct {
	client.Client
	t       *testing.T
	objects map[client.ObjectKey]*eso.ExternalSecret
	missing map[string]bool // records
	work    chan client.ObjectKey
	wake    chan struct{}
	paused  bool // the upstream: Tollgate answers in its place

	mu       sync.Mutex
	version  int
	failures map[client.ObjectKey]int
	queued   map[client.ObjectKey]bool
	later    map[client.ObjectKey]*delayed
	calls    map[client.ObjectKey][]time.Time
}

// delayed is a look that is due later. An object has one, the earliest.
type delayed struct {
	at    time.Time
	timer *time.Timer
}

const callTime = 100 * time.Millisecond

func newOperator(t *testing.T, objects ...*eso.ExternalSecret) *operator {
	o := &operator{t: t, objects: map[client.ObjectKey]*eso.ExternalSecret{}, missing: map[string]bool{}, work: make(chan client.ObjectKey, 10_000),
		wake: make(chan struct{}, 1), failures: map[client.ObjectKey]int{}, queued: map[client.ObjectKey]bool{},
		later: map[client.ObjectKey]*delayed{}, calls: map[client.ObjectKey][]time.Time{}}
	for _, e := range objects {
		o.version++
		e.ResourceVersion, e.Generation = fmt.Sprint(o.version), 1
		o.objects[client.ObjectKeyFromObject(e)] = e
		o.add(client.ObjectKeyFromObject(e))
	}
	return o
}

func (o *operator) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-o.work:
			o.mu.Lock()
			delete(o.queued, key)
			o.mu.Unlock()
			o.reconcile(key)
		}
	}
}

func (o *operator) reconcile(key client.ObjectKey) {
	e := o.get(key)
	hash := fmt.Sprint(e.Generation, e.Annotations, e.Labels)
	interval := e.RefreshEvery()
	refresh := e.Status.SyncedResourceVersion != hash || e.Status.RefreshTime.Add(interval).Before(time.Now())
	if interval == 0 && e.Status.SyncedResourceVersion != "" {
		refresh = false
	}
	if !refresh {
		o.again(key, interval, e.Status.RefreshTime.Time)
		return
	}
	time.Sleep(callTime)
	o.mu.Lock()
	if !o.paused {
		o.calls[key] = append(o.calls[key], time.Now())
	}
	failed := o.paused || o.missing[e.Spec.Data[0].RemoteRef.Key]
	o.mu.Unlock()
	now, ready := metav1.NewTime(time.Now().Truncate(time.Second)), eso.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "SecretSynced", Message: "secret synced"}
	ready.LastTransitionTime = now
	if failed {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, "SecretSyncedError", "could not get secret data from provider"
	} else {
		e.Status.RefreshTime, e.Status.SyncedResourceVersion = now, hash
	}
	old, changed := eso.FindCondition(e.Status.Conditions, "Ready"), true
	if old != nil && old.Status == ready.Status {
		ready.LastTransitionTime = old.LastTransitionTime
		changed = !failed || old.Message != ready.Message
	}
	if changed {
		e.Status.Conditions = []eso.Condition{ready}
		if err := o.write(key, e.ResourceVersion, func(stored *eso.ExternalSecret) { stored.Status = e.Status }); err != nil {
			o.addLater(key, 0) // a conflict
		}
	}
	if !failed {
		o.again(key, interval, e.Status.RefreshTime.Time)
		return
	}
	o.mu.Lock()
	wait := min(time.Second<<min(o.failures[key], 20), 7*time.Minute)
	o.failures[key]++
	o.mu.Unlock()
	o.addLater(key, wait)
}

// add makes the operator look at an object, once. It is called with mu held.
func (o *operator) add(key client.ObjectKey) {
	if !o.queued[key] {
		o.queued[key] = true
		o.work <- key
	}
}

// addLater makes it look later, unless it does so earlier anyway.
func (o *operator) addLater(key client.ObjectKey, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := time.Now().Add(wait)
	if d := o.later[key]; d != nil {
		if !at.Before(d.at) {
			return
		}
		d.timer.Stop()
	}
	o.later[key] = &delayed{at, time.AfterFunc(wait, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.later, key)
		o.add(key)
	})}
}

// again forgets failures and comes back after the interval.
func (o *operator) again(key client.ObjectKey, interval time.Duration, refreshed time.Time) {
	o.mu.Lock()
	delete(o.failures, key)
	o.mu.Unlock()
	if interval > 0 {
		o.addLater(key, max(time.Millisecond, interval-time.Since(refreshed)))
	}
}

func (o *operator) get(key client.ObjectKey) *eso.ExternalSecret {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.objects[key].DeepCopyObject().(*eso.ExternalSecret)
}

// write changes an object, unless its version is another one, and tells everybody.
func (o *operator) write(key client.ObjectKey, version string, change func(*eso.ExternalSecret)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.objects[key]
	if version != "" && version != e.ResourceVersion {
		return apierrors.NewConflict(schema.GroupResource{Resource: "externalsecrets"}, key.Name, nil)
	}
	spec := fmt.Sprintf("%+v %v", e.Spec, e.RefreshEvery())
	change(e)
	o.version++
	e.ResourceVersion = fmt.Sprint(o.version)
	if fmt.Sprintf("%+v %v", e.Spec, e.RefreshEvery()) != spec {
		e.Generation++
	}
	o.add(key)
	if guard.Attempting(e) {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// List implements client.Client.
func (o *operator) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch l := list.(type) {
	case *eso.ExternalSecretList:
		for _, e := range o.objects {
			l.Items = append(l.Items, *e.DeepCopyObject().(*eso.ExternalSecret))
		}
	case *eso.SecretStoreList:
		l.Items = []eso.SecretStore{{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "keeper"},
			Spec: eso.StoreSpec{Provider: map[string]eso.Provider{"keepersecurity": {}}}}}
	}
	return nil
}

// Patch implements client.Client, of metadata and spec.
func (o *operator) Patch(_ context.Context, obj client.Object, patch client.Patch, _ ...client.PatchOption) error {
	return o.merge(obj, patch, func(stored, merged *eso.ExternalSecret) {
		stored.Annotations, stored.Spec = merged.Annotations, merged.Spec
	})
}

// Status implements client.Client.
func (o *operator) Status() client.SubResourceWriter { return status{o: o} }

type status struct {
	client.SubResourceWriter
	o *operator
}

// Patch implements client.SubResourceWriter.
func (s status) Patch(_ context.Context, obj client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.o.merge(obj, patch, func(stored, merged *eso.ExternalSecret) { stored.Status = merged.Status })
}

func (o *operator) merge(obj client.Object, patch client.Patch, take func(stored, merged *eso.ExternalSecret)) error {
	key := client.ObjectKeyFromObject(obj)
	data, err := patch.Data(obj)
	if err != nil {
		return err
	}
	var p metav1.PartialObjectMetadata
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	before, err := json.Marshal(o.get(key))
	if err != nil {
		return err
	}
	after, err := jsonpatch.MergePatch(before, data)
	if err != nil {
		return err
	}
	var merged eso.ExternalSecret
	if err := json.Unmarshal(after, &merged); err != nil {
		return err
	}
	return o.write(key, p.ResourceVersion, func(stored *eso.ExternalSecret) { take(stored, &merged) })
}

// State implements guard.Source.
func (o *operator) State(string) (allowance.State, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := allowance.State{Upstream: admin.Upstream{State: upstreams.Open}}
	if o.paused {
		s.State = upstreams.Frozen
	}
	return s, true
}

// Unreachable implements guard.Source.
func (o *operator) Unreachable() (time.Time, error) { return time.Time{}, nil }

// set changes what the upstream knows, or whether it is paused.
func (o *operator) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// count returns how many calls were made in a time.
func (o *operator) count(from, to time.Time) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, calls := range o.calls {
		for _, at := range calls {
			if !at.Before(from) && at.Before(to) {
				n++
			}
		}
	}
	return n
}

// guarded runs the operator, and a guard until the function it returns is called.
func (o *operator) guarded(p guard.Park) (stop func()) {
	ctx, cancel := context.WithCancel(o.t.Context())
	g := guard.New(guard.Options{Client: o, Source: o, Attempts: o.wake, Log: slog.New(slog.NewTextHandler(o.t.Output(), nil)), Registry: prometheus.NewRegistry(),
		Upstreams: []guard.Upstream{{ID: "keeper", Stores: eso.Selector{Provider: "keepersecurity"}, Park: p}}})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Run(ctx)
	}()
	return func() { cancel(); <-ended }
}

// externalSecret returns one that asks to be parked.
func externalSecret(name, record string, interval time.Duration) *eso.ExternalSecret {
	return &eso.ExternalSecret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, Annotations: map[string]string{guard.OptIn: "true"}},
		Spec: eso.ExternalSecretSpec{SecretStoreRef: eso.StoreRef{Name: "keeper"}, RefreshInterval: &metav1.Duration{Duration: interval},
			Data: []eso.Data{{SecretKey: "k", RemoteRef: eso.RemoteRef{Key: record}}}},
	}
}

func key(name string) client.ObjectKey { return client.ObjectKey{Namespace: "team", Name: name} }

const day = 24 * time.Hour

// TestK25BrokenObjects lets the records of three external secrets be deleted. Left
// alone, they cost 205 calls a day each; parked, one or two.
func TestK25BrokenObjects(t *testing.T) {
	for _, c := range []struct {
		name       string
		park       bool
		from, to   int // calls on the second day
		least, max int // and on the first
	}{
		{"left alone", false, 615, 618, 600, 680},
		{"parked", true, 3, 10, 30, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperator(t, externalSecret("a", "1", day), externalSecret("b", "2", day), externalSecret("c", "3", day))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go o.run(ctx)
				if c.park {
					defer o.guarded(guard.Park{})()
				}
				time.Sleep(time.Hour)
				o.set(func() { o.missing = map[string]bool{"1": true, "2": true, "3": true} })
				time.Sleep(day) // the refresh that finds it out is after a day
				broken := time.Now()
				time.Sleep(2 * day)
				first, second := o.count(broken.Add(-day), broken.Add(day)), o.count(broken.Add(day), broken.Add(2*day))
				t.Logf("calls: %d until the end of the first day, %d on the second", first, second)
				if first < c.least || first > c.max || second < c.from || second > c.to {
					t.Errorf("calls = %d and %d, want %d to %d, then %d to %d", first, second, c.least, c.max, c.from, c.to)
				}
			})
		})
	}
}

// TestK25Released: what is parked gets its interval back for good when its attempt
// succeeds, when its spec is changed, and when it does not want to be parked any
// more; also where the companion that parked it has died.
func TestK25Released(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(o *operator)
		after  time.Duration // until it is released
		want   time.Duration // its interval
	}{
		{"the record is there again", func(o *operator) { o.set(func() { o.missing = nil }) }, day + time.Minute, time.Hour},
		{"the spec is changed", func(o *operator) {
			_ = o.write(key("a"), "", func(e *eso.ExternalSecret) { e.Spec.Data[0].RemoteRef.Key = "2" })
		}, time.Minute, time.Hour},
		{"the interval is set", func(o *operator) {
			_ = o.write(key("a"), "", func(e *eso.ExternalSecret) { e.Spec.RefreshInterval = &metav1.Duration{Duration: 2 * time.Hour} })
		}, time.Minute, 2 * time.Hour},
		{"the annotation is taken away", func(o *operator) {
			_ = o.write(key("a"), "", func(e *eso.ExternalSecret) { delete(e.Annotations, guard.OptIn) })
		}, time.Minute, time.Hour},
	} {
		for _, dies := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, companion dies: %v", c.name, dies), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := newOperator(t, externalSecret("a", "1", time.Hour))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					go o.run(ctx)
					stop := o.guarded(guard.Park{})
					time.Sleep(time.Minute)
					o.set(func() { o.missing["1"] = true })
					time.Sleep(2 * time.Hour)
					if e := o.get(key("a")); !guard.Parked(e) || e.RefreshEvery() != 0 || !strings.HasPrefix(e.Status.Conditions[0].Message, "parked by tollgate-eso: could not get") {
						t.Fatalf("after two hours it is %+v, want it parked", e)
					}
					if dies {
						stop()
					}
					c.change(o)
					if dies {
						time.Sleep(day)
						stop = o.guarded(guard.Park{})
					}
					defer stop()
					time.Sleep(c.after)
					e := o.get(key("a"))
					if guard.Parked(e) || e.RefreshEvery() != c.want {
						t.Errorf("parked = %v, interval %v, want %v", guard.Parked(e), e.RefreshEvery(), c.want)
					}
				})
			})
		}
	}
}

// TestK25NotParked: who has no part in it, whom it would not help, and who fails
// because the upstream is paused.
func TestK25NotParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unasked, never, works := externalSecret("unasked", "1", time.Hour), externalSecret("never", "2", time.Hour), externalSecret("works", "3", time.Minute)
		unasked.Annotations = nil
		change := externalSecret("on-change", "1", time.Hour)
		change.Spec.RefreshPolicy = "OnChange"
		o := newOperator(t, unasked, never, works, change)
		o.missing["2"] = true
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go o.run(ctx)
		defer o.guarded(guard.Park{})()
		time.Sleep(time.Minute)
		o.set(func() { o.missing["1"], o.paused = true, true })
		time.Sleep(time.Hour)
		o.set(func() { o.paused = false })
		time.Sleep(2 * time.Minute)
		if e := o.get(key("works")); guard.Parked(e) || e.Status.Conditions[0].Status != metav1.ConditionFalse {
			t.Errorf("soon after a pause: %+v, want that it fails still and is not parked", e)
		}
		time.Sleep(3 * time.Hour)
		for _, name := range []string{"unasked", "never", "works", "on-change"} {
			if guard.Parked(o.get(key(name))) {
				t.Errorf("%s is parked", name)
			}
		}
		if why := guard.Hopeless(o.get(key("never"))); why != "it has never synced" {
			t.Errorf("Hopeless = %q", why)
		}
	})
}

// TestHopeless: who cannot be parked, and why.
func TestHopeless(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(e *eso.ExternalSecret)
		want   string
	}{
		{"one like any other", func(*eso.ExternalSecret) {}, ""},
		{"a ClusterExternalSecret's", owned("external-secrets.io/v1"), "a ClusterExternalSecret makes it, and would undo that"},
		{"another one's, of the same kind", owned("example.com/v1"), ""},
		{"on change", func(e *eso.ExternalSecret) { e.Spec.RefreshPolicy = "OnChange" }, "refreshPolicy OnChange"},
		{"never synced", func(e *eso.ExternalSecret) { e.Status.SyncedResourceVersion = "" }, "it has never synced"},
		{"no interval", func(e *eso.ExternalSecret) { e.Spec.RefreshInterval.Duration = 0 }, "refreshInterval 0: its Secret is missing or was changed"},
	} {
		e := externalSecret("a", "1", time.Hour)
		e.Status.SyncedResourceVersion = "1-a"
		c.change(e)
		if got := guard.Hopeless(e); got != c.want {
			t.Errorf("%s: Hopeless = %q, want %q", c.name, got, c.want)
		}
	}
}

// owned gives an external secret an owner of the kind ClusterExternalSecret.
func owned(version string) func(*eso.ExternalSecret) {
	return func(e *eso.ExternalSecret) {
		e.OwnerReferences = []metav1.OwnerReference{{APIVersion: version, Kind: eso.ClusterExternalSecretKind, Name: "c"}}
	}
}

// TestFailures holds the estimate to the sum of the waits.
func TestFailures(t *testing.T) {
	at, wait := time.Duration(0), time.Second
	for n := 1; n <= 300; n++ {
		if got := guard.Failures(at); got != n {
			t.Fatalf("Failures(%v) = %d, want %d", at, got, n)
		}
		if got := guard.Failures(at + wait - 1); got != n {
			t.Fatalf("Failures(%v) = %d, want %d", at+wait-1, got, n)
		}
		at, wait = at+wait, min(2*wait, 7*time.Minute)
	}
}
