package restore

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Skipped is an external secret that no write makes External Secrets refresh.
type Skipped struct {
	Key    client.ObjectKey
	Reason string
}

// Load returns the external secrets of an upstream's stores as targets, in order,
// with what the run has done already; and those that nothing reaches. Of manifests,
// those are added that the cluster does not have.
func (k Kubernetes) Load(ctx context.Context, s eso.Selector, run string, m Manifests) ([]*Target, []Skipped, error) {
	stores, err := s.Select(ctx, k.Client)
	if err != nil {
		return nil, nil, err
	}
	l := loader{k: k, run: run, stores: map[eso.Store]bool{}, providers: map[eso.Store]eso.Provider{}, seen: map[client.ObjectKey]bool{}, clusters: map[string]*Target{}}
	for _, o := range m.specs {
		if p, ok := s.Fits(o.Store, o.spec); ok {
			l.stores[o.Store], l.providers[o.Store] = true, p
		}
	}
	for _, store := range stores { // the cluster's own counts
		l.stores[store.Store], l.providers[store.Store] = true, store.Provider
	}
	var list eso.ExternalSecretList
	if err := k.Client.List(ctx, &list); err != nil {
		return nil, nil, fmt.Errorf("list ExternalSecrets: %w", err)
	}
	for i := range list.Items {
		if err := l.add(ctx, &list.Items[i]); err != nil {
			return nil, nil, err
		}
	}
	for _, o := range m.ExternalSecrets {
		if err := l.addMissing(o); err != nil {
			return nil, nil, err
		}
	}
	Order(l.all)
	return l.all, l.skipped, k.retry(ctx, l.all)
}

// retry makes targets that an earlier process of the run has sent, and that have
// failed, be sent again.
func (k Kubernetes) retry(ctx context.Context, all []*Target) error {
	for _, t := range all {
		if t.Sent.IsZero() {
			continue
		}
		outcome, _, err := k.Outcome(ctx, t)
		if err != nil {
			return err
		}
		if outcome == Failed {
			t.Sent = time.Time{}
		}
	}
	return nil
}

// loader collects targets.
type loader struct {
	k         Kubernetes
	run       string
	stores    map[eso.Store]bool
	providers map[eso.Store]eso.Provider // of the same
	seen      map[client.ObjectKey]bool
	clusters  map[string]*Target
	all       []*Target
	skipped   []Skipped
}

func (l *loader) add(ctx context.Context, e *eso.ExternalSecret) error {
	key := client.ObjectKeyFromObject(e)
	l.seen[key] = true
	calls := e.CallsTo(l.stores)
	if calls == 0 || !e.DeletionTimestamp.IsZero() {
		return nil
	}
	if why := e.Unreachable(); why != "" && e.Status.SyncedResourceVersion != "" {
		l.skipped = append(l.skipped, Skipped{key, why})
		return nil
	}
	owner := e.Owner()
	if owner == "" {
		t := &Target{Key: key, Priority: priorityOf(e)}
		t.resume(l.run, e)
		l.member(t, e, calls)
		l.all = append(l.all, t)
		return nil
	}
	t := l.clusters[owner]
	if t == nil {
		o, err := l.k.clusterExternalSecret(ctx, owner)
		if err != nil {
			return fmt.Errorf("ClusterExternalSecret %s of %s: %w", owner, key, err)
		}
		t = &Target{Key: client.ObjectKey{Name: owner}, Priority: priorityOf(o)}
		t.resume(l.run, o)
		l.clusters[owner] = t
		l.all = append(l.all, t)
	}
	l.member(t, e, calls)
	return nil
}

// member adds an external secret to a target.
func (l *loader) member(t *Target, e *eso.ExternalSecret, calls int) {
	t.Calls += calls
	t.Members = append(t.Members, client.ObjectKeyFromObject(e))
	if made, ok := e.Makes(); ok {
		t.Makes = append(t.Makes, made)
	}
	t.Needs = append(t.Needs, e.Needs(l.providers)...)
}

// addMissing adds an external secret of a manifest that the cluster does not have.
func (l *loader) addMissing(o *unstructured.Unstructured) error {
	var e eso.ExternalSecret
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &e); err != nil {
		return fmt.Errorf("ExternalSecret %s/%s: %w", o.GetNamespace(), o.GetName(), err)
	}
	key := client.ObjectKeyFromObject(&e)
	calls := e.CallsTo(l.stores)
	if calls == 0 || l.seen[key] || e.Owner() != "" { // a ClusterExternalSecret makes its own
		return nil
	}
	l.seen[key] = true
	t := &Target{Key: key, Priority: priorityOf(&e), Create: o}
	l.member(t, &e, calls)
	l.all = append(l.all, t)
	return nil
}

// LastRun returns the name of the run that marked an object of the cluster last;
// "": none has.
func (k Kubernetes) LastRun(ctx context.Context) (string, error) {
	var list eso.ExternalSecretList
	if err := k.Client.List(ctx, &list); err != nil {
		return "", fmt.Errorf("list ExternalSecrets: %w", err)
	}
	var last mark
	for i := range list.Items {
		if m, ok := markOf(&list.Items[i]); ok && m.At.After(last.At) {
			last = m
		}
	}
	return last.Run, nil
}
