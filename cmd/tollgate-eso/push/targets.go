package push

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/guard"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/webhook"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/windows"
)

// target is what is annotated: an external secret, or the ClusterExternalSecret
// that would undo it.
type target struct {
	cluster string // a ClusterExternalSecret's name; empty: the only member
	members []*eso.ExternalSecret
	calls   int  // that the members make
	release bool // takes a window back; the members are not annotated where nothing else wants it
}

func (t *target) key() client.ObjectKey {
	if t.cluster != "" {
		return client.ObjectKey{Name: t.cluster}
	}
	return client.ObjectKeyFromObject(t.members[0])
}

// targets knows which objects were annotated and have not come back. It is for
// one goroutine.
type targets struct {
	o        Options
	forced   map[client.ObjectKey]time.Time // when, exactly; the annotation says only the second
	released map[client.ObjectKey]time.Time // when a window was taken back
	flying   map[client.ObjectKey]flight    // external secrets
}

// flight is an external secret that was annotated and has not refreshed yet.
type flight struct {
	upstream string
	calls    int
	at       time.Time
	synced   string // status.syncedResourceVersion before

	refreshed time.Time // status.refreshTime before, of one whose window was taken back
}

func newTargets(o Options) *targets {
	return &targets{o: o, forced: map[client.ObjectKey]time.Time{}, released: map[client.ObjectKey]time.Time{}, flying: map[client.ObjectKey]flight{}}
}

// plan is what is to be done for some jobs.
type plan struct {
	done    []webhook.Job
	pending []*target
	wait    time.Duration // until one that was annotated just now may be again
}

// plan finds what the jobs mean and what of it is to be annotated yet.
func (t *targets) plan(ctx context.Context, now time.Time, u Upstream, jobs []webhook.Job) (plan, error) {
	p := plan{wait: idle}
	stores, err := u.Stores.Select(ctx, t.o.Client)
	if err != nil {
		return p, err
	}
	seen := map[client.ObjectKey]bool{} // with an empty namespace: a ClusterExternalSecret
	for _, j := range jobs {
		all, err := t.o.Index.Find(ctx, j, stores)
		if err != nil {
			return p, err
		}
		done := true
		for _, e := range all {
			if !t.wants(e, j) {
				continue
			}
			done = false
			next, err := t.target(ctx, e)
			if err != nil {
				return p, err
			}
			if seen[next.key()] {
				continue
			}
			seen[next.key()] = true
			if rest := t.when(e).Add(t.o.Coalesce).Sub(now); rest > 0 {
				p.wait = min(p.wait, rest)
				continue
			}
			p.pending = append(p.pending, next)
		}
		if done {
			p.done = append(p.done, j)
		}
	}
	t.forget(now)
	return p, t.releases(ctx, now, u.ID, stores, seen, &p)
}

// releases adds the external secrets that have a window of a pause which is
// over. Those that would have been refreshed meanwhile are at once, so that they wait
// for their turn too.
func (t *targets) releases(ctx context.Context, now time.Time, upstream string, stores []eso.AnyStore, seen map[client.ObjectKey]bool, p *plan) error {
	if s, ok := t.o.Allowance.State(upstream); !ok || s.Paused() {
		return nil
	}
	all, err := t.o.Index.paused(ctx, stores)
	if err != nil {
		return err
	}
	for _, e := range all {
		key := client.ObjectKeyFromObject(e)
		if seen[key] || now.Sub(t.released[key]) < t.o.Coalesce { // the cache lags
			continue
		}
		next := &target{members: []*eso.ExternalSecret{e}, release: true}
		if windows.Due(e, now) {
			next.calls = e.Calls()
		}
		p.pending = append(p.pending, next)
	}
	return nil
}

// wants reports whether a job is not done for an external secret.
func (t *targets) wants(e *eso.ExternalSecret, j webhook.Job) bool {
	if !e.DeletionTimestamp.IsZero() || e.Unreachable() != "" && !guard.Parked(e) {
		return false
	}
	if j.Kind == webhook.Net && guard.Parked(e) {
		return false // nobody says that its record has changed
	}
	if every := e.RefreshEvery(); j.Kind == webhook.Net && every > 0 && every <= t.o.Net {
		return false // External Secrets does it
	}
	return !t.when(e).After(j.Last)
}

// when returns when an external secret was annotated last; zero: never. Of what
// another process did, only the second is known, and its beginning is taken: one
// annotation too many is better than one too few.
func (t *targets) when(e *eso.ExternalSecret) time.Time {
	at := t.forced[client.ObjectKeyFromObject(e)]
	if owner := e.Owner(); owner != "" {
		at = t.forced[client.ObjectKey{Name: owner}]
	}
	for _, name := range []string{eso.ForceSync, eso.ForceSyncCluster} {
		if sec, err := strconv.ParseInt(e.Annotations[name], 10, 64); err == nil && time.Unix(sec, 0).After(at) {
			at = time.Unix(sec, 0)
		}
	}
	return at
}

func (t *targets) target(ctx context.Context, e *eso.ExternalSecret) (*target, error) {
	owner := e.Owner()
	if owner == "" {
		return &target{members: []*eso.ExternalSecret{e}, calls: e.Calls()}, nil
	}
	members, err := t.o.Index.ownedBy(ctx, owner)
	if err != nil {
		return nil, err
	}
	all := &target{cluster: owner, members: members}
	for _, m := range members {
		all.calls += m.Calls()
	}
	return all, nil
}

// fit returns those of the pending, in order, whose calls the upstream allows
// beside those that are still to be expected. What is larger than all that the
// upstream ever allows goes alone, when nothing else does: Tollgate holds it.
func (t *targets) fit(ctx context.Context, now time.Time, upstream string, s allowance.State, pending []*target) []*target {
	expected := t.expected(ctx, now, upstream)
	room := s.Calls() - expected
	var batch []*target
	for _, next := range pending {
		if next.calls > room {
			if len(batch) == 0 && expected == 0 && room > 0 && int64(next.calls) > s.WorkingLimit && int64(room) >= s.WorkingLimit {
				batch = append(batch, next)
			}
			break
		}
		room -= next.calls
		batch = append(batch, next)
	}
	return batch
}

// expected returns the calls of external secrets of an upstream that were
// annotated and have neither succeeded nor failed since.
func (t *targets) expected(ctx context.Context, now time.Time, upstream string) int {
	n := 0
	for key, f := range t.flying {
		var e eso.ExternalSecret
		err := t.o.Client.Get(ctx, key, &e)
		switch {
		case apierrors.IsNotFound(err), now.Sub(f.at) > t.o.Settle, err == nil && f.landed(&e):
			delete(t.flying, key)
		case f.upstream == upstream:
			n += f.calls
		}
	}
	return n
}

func (f flight) landed(e *eso.ExternalSecret) bool {
	if f.synced != "" && e.Status.SyncedResourceVersion != f.synced || f.synced == "" && e.Status.RefreshTime.After(f.refreshed) {
		return true
	}
	c := eso.FindCondition(e.Status.Conditions, "Ready")
	return c != nil && c.Status == metav1.ConditionFalse && c.LastTransitionTime.After(f.at)
}

// annotate makes External Secrets refresh a target. Who is gone needs none.
func (t *targets) annotate(ctx context.Context, now time.Time, upstream string, next *target) error {
	if next.release {
		return t.release(ctx, now, upstream, next)
	}
	kind, patch, err := next.patch(t.value(now, next))
	if err != nil {
		return err
	}
	var object metav1.PartialObjectMetadata
	object.SetGroupVersionKind(eso.V1(kind))
	object.Namespace, object.Name = next.key().Namespace, next.key().Name
	err = t.o.Client.Patch(ctx, &object, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) {
		return nil // of what depends on how the object was: somebody was faster: it is looked at again
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("annotate %s %s: %w", kind, next.key(), err)
	}
	t.forced[next.key()] = now
	for _, m := range next.members {
		t.flying[client.ObjectKeyFromObject(m)] = flight{upstream: upstream, calls: m.Calls(), at: now, synced: m.Status.SyncedResourceVersion}
	}
	return nil
}

// release takes a window back.
func (t *targets) release(ctx context.Context, now time.Time, upstream string, next *target) error {
	e, err := windows.Write(ctx, t.o.Client, next.members[0], windows.Released(next.members[0]))
	switch {
	case apierrors.IsConflict(err): // somebody was faster: it is looked at again
		return nil
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("take back the sync window of %s: %w", next.key(), err)
	}
	t.released[next.key()] = now
	if err == nil && next.calls > 0 {
		t.flying[next.key()] = flight{upstream: upstream, calls: next.calls, at: now, refreshed: e.Status.RefreshTime.Time}
	}
	return nil
}

// value is the next one of a target's annotation: the same value twice would be
// no change.
func (t *targets) value(now time.Time, next *target) int64 {
	value := now.Unix()
	for _, m := range next.members {
		value = max(value, t.when(m).Unix()+1)
	}
	return value
}

// patch returns what changes in an object of which kind.
func (n *target) patch(value int64) (kind string, patch []byte, err error) {
	name, kind := eso.ForceSync, "ExternalSecret"
	switch {
	case n.cluster != "":
		name, kind = eso.ForceSyncCluster, eso.ClusterExternalSecretKind
	case guard.Parked(n.members[0]): // its record has changed: it may be whole again
		patch, err = guard.Release(n.members[0], map[string]any{name: strconv.FormatInt(value, 10)})
		return kind, patch, err
	}
	patch, err = json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{name: strconv.FormatInt(value, 10)}}})
	return kind, patch, err
}

// forget drops what the annotations say by now.
func (t *targets) forget(now time.Time) {
	old := func(_ client.ObjectKey, at time.Time) bool { return now.Sub(at) > t.o.Settle+t.o.Coalesce }
	maps.DeleteFunc(t.forced, old)
	maps.DeleteFunc(t.released, old)
}
