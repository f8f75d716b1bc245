package pressure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/windows"
)

// Upstream is an upstream, the stores that draw on it, and the shortest rest of
// a pause that windows are set for; 0: they never are.
type Upstream struct {
	ID      string
	Stores  eso.Selector
	Windows time.Duration
}

// Source is what Tollgate says; [allowance.Watcher] is one.
type Source interface {
	State(upstream string) (allowance.State, bool)
	Unreachable() (since time.Time, err error)
	Changed() <-chan struct{}
}

// Options of a writer.
type Options struct {
	Upstreams []Upstream
	Client    client.Client // reads from a cache
	Source    Source
	Recorder  events.EventRecorder
	Stores    <-chan struct{} // holds a value when a store may have changed
	Log       *slog.Logger
	Registry  prometheus.Registerer
}

// Writer writes conditions, events and windows.
type Writer struct {
	o      Options
	writes *prometheus.CounterVec
	denied prometheus.Counter
}

// New returns a writer.
func New(o Options) *Writer {
	w := &Writer{o: o, writes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tollgate_eso_condition_writes_total", Help: "Conditions Throttled that were written into stores."}, []string{"upstream"}),
		denied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tollgate_eso_sync_windows_total", Help: "External secrets that were given a window without refreshes."}),
	}
	o.Registry.MustRegister(w.writes, w.denied)
	for _, u := range o.Upstreams {
		w.writes.WithLabelValues(u.ID)
	}
	return w
}

// look is how often everything is looked at when nothing tells of a change.
const look = 30 * time.Second

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := w.o.Source.Changed()
		wait := look
		if err := w.step(ctx, time.Now()); err != nil && ctx.Err() == nil {
			w.o.Log.Warn("pressure", "err", err)
			wait = time.Second
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-w.o.Stores:
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// step brings every store up to date.
func (w *Writer) step(ctx context.Context, now time.Time) error {
	var errs []error
	for _, u := range w.o.Upstreams {
		s := sight{}
		s.state, s.known = w.o.Source.State(u.ID)
		if since, err := w.o.Source.Unreachable(); err != nil {
			s.lost = now.Sub(since)
		}
		stores, err := u.Stores.Select(ctx, w.o.Client)
		if err != nil {
			return err
		}
		for _, store := range stores {
			if c := s.want(eso.FindCondition(store.Conditions, Throttled), u.ID, now); c != nil {
				errs = append(errs, w.write(ctx, u.ID, store, *c))
			}
		}
		if s.known && s.state.Paused() && s.state.Until != nil && u.Windows > 0 && s.state.Until.Sub(now) >= u.Windows {
			errs = append(errs, w.deny(ctx, now, *s.state.Until, stores))
		}
	}
	return errors.Join(errs...)
}

// write patches one store's status, and tells of it. The version in the patch
// makes it a conflict when the copy is old: then the store's next change, which
// is on its way to the cache, makes it be looked at again.
func (w *Writer) write(ctx context.Context, upstream string, store eso.AnyStore, c eso.Condition) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": store.Object.GetResourceVersion()},
		"status":   map[string]any{"conditions": with(store.Conditions, c)},
	})
	if err != nil {
		return err
	}
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(eso.V1(store.Kind))
	object.Namespace, object.Name = store.Namespace, store.Name
	err = w.o.Client.Status().Patch(ctx, object, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("status of %s: %w", store.Store, err)
	}
	w.writes.WithLabelValues(upstream).Inc()
	w.o.Log.Info("condition", "store", store.String(), "throttled", string(c.Status), "message", c.Message)
	kind, reason := corev1.EventTypeNormal, c.Reason
	if c.Status != metav1.ConditionFalse {
		kind = corev1.EventTypeWarning
	}
	w.o.Recorder.Eventf(store.Object, nil, kind, reason, "Throttle", "%s", c.Message)
	return nil
}

// deny sets windows in the external secrets of the stores that ask for them.
func (w *Writer) deny(ctx context.Context, now, until time.Time, stores []eso.AnyStore) error {
	var l eso.ExternalSecretList
	if err := w.o.Client.List(ctx, &l); err != nil {
		return fmt.Errorf("list ExternalSecrets: %w", err)
	}
	for i := range l.Items {
		e := &l.Items[i]
		if !windows.Opted(e) || !readsAny(e, stores) || !windows.Until(e, now).Before(until.Truncate(time.Second)) {
			continue
		}
		_, err := windows.Write(ctx, w.o.Client, e, windows.Denied(e, now, until))
		switch {
		case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		case errors.Is(err, windows.ErrUnknown):
			w.o.Log.Warn("sync window", "external_secret", client.ObjectKeyFromObject(e).String(), "err", err)
			return nil
		case err != nil:
			return fmt.Errorf("sync window of %s: %w", client.ObjectKeyFromObject(e), err)
		default:
			w.denied.Inc()
			w.o.Recorder.Eventf(e, nil, corev1.EventTypeNormal, "RefreshPaused", "Throttle", "no periodic refresh until %s", until.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

func readsAny(e *eso.ExternalSecret, stores []eso.AnyStore) bool {
	for _, read := range e.Stores() {
		for _, s := range stores {
			if s.Store == read {
				return true
			}
		}
	}
	return false
}
