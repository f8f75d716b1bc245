package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Kubernetes is the cluster itself.
type Kubernetes struct {
	Client client.Client // reads external secrets from a cache
}

// Send implements [Cluster].
func (k Kubernetes) Send(ctx context.Context, t *Target, run string, now time.Time) (bool, error) {
	t.before = map[client.ObjectKey]string{}
	switch {
	case t.Create != nil:
		return k.create(ctx, t, run, now)
	case t.Key.Namespace == "":
		return k.sendCluster(ctx, t, run, now)
	}
	var e eso.ExternalSecret
	if err := k.Client.Get(ctx, t.Key, &e); err != nil {
		return false, gone(err)
	}
	t.before[t.Key] = e.Status.SyncedResourceVersion
	m := mark{Run: run, At: now, Before: e.Status.SyncedResourceVersion}
	return k.patch(ctx, t, &e, eso.ForceSync, m)
}

// sendCluster makes a ClusterExternalSecret pass a refresh on to its external
// secrets.
func (k Kubernetes) sendCluster(ctx context.Context, t *Target, run string, now time.Time) (bool, error) {
	for _, key := range t.Members {
		var e eso.ExternalSecret
		if err := k.Client.Get(ctx, key, &e); client.IgnoreNotFound(err) != nil {
			return false, err
		}
		t.before[key] = e.Status.SyncedResourceVersion
	}
	o, err := k.clusterExternalSecret(ctx, t.Key.Name)
	if err != nil {
		return false, gone(err)
	}
	return k.patch(ctx, t, o, eso.ForceSyncCluster, mark{Run: run, At: now})
}

// patch annotates an object, unless somebody has changed it since it was read: its
// mark says what was synced before.
func (k Kubernetes) patch(ctx context.Context, t *Target, o client.Object, name string, m mark) (bool, error) {
	value := m.At.Unix()
	if last, err := strconv.ParseInt(o.GetAnnotations()[name], 10, 64); err == nil {
		value = max(value, last+1) // the same value twice would be no change
	}
	text, err := json.Marshal(m)
	if err != nil {
		return false, err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": o.GetResourceVersion(),
		"annotations": map[string]string{name: strconv.FormatInt(value, 10), Mark: string(text)}}})
	if err != nil {
		return false, err
	}
	kind := "ExternalSecret"
	if t.Key.Namespace == "" {
		kind = eso.ClusterExternalSecretKind
	}
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(eso.V1(kind))
	u.SetNamespace(t.Key.Namespace)
	u.SetName(t.Key.Name)
	switch err := k.Client.Patch(ctx, u, client.RawPatch(types.MergePatchType, patch)); {
	case apierrors.IsConflict(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("annotate %v: %w", t, gone(err))
	}
	t.Sent = m.At
	return true, nil
}

// create makes an object that is missing, with its mark. When somebody was faster,
// it is annotated the next time.
func (k Kubernetes) create(ctx context.Context, t *Target, run string, now time.Time) (bool, error) {
	text, err := json.Marshal(mark{Run: run, At: now})
	if err != nil {
		return false, err
	}
	o := t.Create.DeepCopy()
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[Mark] = string(text)
	o.SetAnnotations(annotations)
	switch err := k.Client.Create(ctx, o); {
	case apierrors.IsAlreadyExists(err):
		t.Create = nil
		return false, nil
	case err != nil:
		return false, fmt.Errorf("create %v: %w", t, err)
	}
	t.Create, t.Sent, t.before[t.Key] = nil, now, ""
	return true, nil
}

func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return ErrGone
	}
	return err
}

// Outcome implements [Cluster]. A target has failed when one of its members has and
// none is under way.
func (k Kubernetes) Outcome(ctx context.Context, t *Target) (Outcome, string, error) {
	all, why := Synced, ""
	for _, key := range t.Members {
		var e eso.ExternalSecret
		err := k.Client.Get(ctx, key, &e)
		if apierrors.IsNotFound(err) {
			return Flying, "", nil // the cache lags, or it is gone and never comes back
		}
		if err != nil {
			return Flying, "", err
		}
		switch outcome, message := t.settle(&e); outcome {
		case Flying:
			return Flying, "", nil
		case Failed:
			all = Failed
			if len(t.Members) > 1 {
				message = key.String() + ": " + message
			}
			why = strings.TrimPrefix(why+"; "+message, "; ")
		}
	}
	return all, why, nil
}

func (k Kubernetes) clusterExternalSecret(ctx context.Context, name string) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(eso.V1(eso.ClusterExternalSecretKind))
	return o, k.Client.Get(ctx, client.ObjectKey{Name: name}, o)
}
