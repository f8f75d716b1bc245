package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Upstream is an upstream, the stores that draw on it, and what is done about those
// of their external secrets that fail.
type Upstream struct {
	ID     string
	Stores eso.Selector
	Park   Park
}

// Park is who is parked, and when.
type Park struct {
	All   bool          // without being asked by the annotation
	After int           // failures; 0: 10
	Every time.Duration // an attempt; 0: a day
}

func (p Park) withDefaults() Park {
	if p.After <= 0 {
		p.After = 10
	}
	if p.Every <= 0 {
		p.Every = 24 * time.Hour
	}
	return p
}

// Source is what Tollgate says; [allowance.Watcher] is one.
type Source interface {
	State(upstream string) (allowance.State, bool)
	Unreachable() (since time.Time, err error)
}

// Options of a guard.
type Options struct {
	Upstreams []Upstream
	Client    client.Client // reads from a cache
	Source    Source
	Attempts  <-chan struct{} // holds a value when an external secret that makes an attempt has changed
	Look      time.Duration   // how often all are looked at; 0: 30 s
	Log       *slog.Logger
	Registry  prometheus.Registerer
}

// Guard parks what only fails. [Guard.Run] may be called once.
type Guard struct {
	o        Options
	quiet    map[string]time.Time           // by upstream: until when failing meant nothing
	released map[client.ObjectKey]time.Time // since when failures count
	broken   *prometheus.GaugeVec
	attempts *prometheus.CounterVec
}

// New returns a guard.
func New(o Options) *Guard {
	if o.Look <= 0 {
		o.Look = 30 * time.Second
	}
	g := &Guard{o: o, quiet: map[string]time.Time{}, released: map[client.ObjectKey]time.Time{},
		broken: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tollgate_eso_broken_external_secrets",
			Help: "External secrets that fail again and again: parked, or retried by External Secrets."}, []string{"upstream", "state"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tollgate_eso_parked_attempts_total",
			Help: "Attempts of external secrets that are parked."}, []string{"upstream"}),
	}
	o.Registry.MustRegister(g.broken, g.attempts)
	for i := range g.o.Upstreams {
		u := &g.o.Upstreams[i]
		u.Park = u.Park.withDefaults()
		g.attempts.WithLabelValues(u.ID)
	}
	return g
}

// Run guards until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	began := time.Now()
	for _, u := range g.o.Upstreams {
		g.quiet[u.ID] = began // a pause may have ended just now
	}
	for ctx.Err() == nil {
		wait := g.o.Look
		if err := g.step(ctx, time.Now()); err != nil && ctx.Err() == nil {
			g.o.Log.Warn("guard", "err", err)
			wait = min(wait, time.Second)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-g.o.Attempts:
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// step looks at every external secret.
func (g *Guard) step(ctx context.Context, now time.Time) error {
	var list eso.ExternalSecretList
	if err := g.o.Client.List(ctx, &list); err != nil {
		return fmt.Errorf("list ExternalSecrets: %w", err)
	}
	upstreams := map[eso.Store]*Upstream{}
	counts := map[[2]string]int{}
	for i := range g.o.Upstreams {
		u := &g.o.Upstreams[i]
		stores, err := u.Stores.Select(ctx, g.o.Client)
		if err != nil {
			return err
		}
		for _, s := range stores {
			upstreams[s.Store] = u
		}
		counts[[2]string{u.ID, "parked"}], counts[[2]string{u.ID, "retried"}] = 0, 0
		if !g.open(u.ID) {
			g.quiet[u.ID] = now
		}
	}
	var errs []error
	for i := range list.Items {
		e := &list.Items[i]
		u := upstreamOf(e, upstreams)
		if u == nil && !Parked(e) {
			continue
		}
		state, err := g.look(ctx, now, u, e)
		errs = append(errs, err)
		if u != nil && state != "" {
			counts[[2]string{u.ID, state}]++
		}
	}
	for labels, n := range counts {
		g.broken.WithLabelValues(labels[0], labels[1]).Set(float64(n))
	}
	for key, at := range g.released {
		if now.Sub(at) > 24*time.Hour {
			delete(g.released, key)
		}
	}
	return errors.Join(errs...)
}

// open reports whether a failure means something about an external secret: nothing
// else stands between it and the upstream.
func (g *Guard) open(upstream string) bool {
	s, ok := g.o.Source.State(upstream)
	_, err := g.o.Source.Unreachable()
	return ok && err == nil && !s.Paused()
}

func upstreamOf(e *eso.ExternalSecret, upstreams map[eso.Store]*Upstream) *Upstream {
	for _, s := range e.Stores() {
		if u := upstreams[s]; u != nil {
			return u
		}
	}
	return nil
}

// look does for one external secret what is to be done, and returns how it stands:
// "parked", "retried" by External Secrets, or "".
func (g *Guard) look(ctx context.Context, now time.Time, u *Upstream, e *eso.ExternalSecret) (string, error) {
	if !e.DeletionTimestamp.IsZero() {
		return "", nil
	}
	since, failing := Failing(e)
	m, marked := markOf(e)
	switch {
	case Parked(e) && (!marked || u == nil || !wanted(u, e) || !failing || e.Generation != m.Generation):
		return "", g.release(ctx, now, e)
	case Parked(e):
		return "parked", g.tend(ctx, now, u, e, m)
	case !failing || Failures(now.Sub(latest(since, g.quiet[u.ID], g.released[client.ObjectKeyFromObject(e)], forced(e)))) < u.Park.After:
		return "", nil
	case Hopeless(e) != "" || !wanted(u, e):
		return "retried", nil
	}
	patch, err := park(e, now.Add(u.Park.Every))
	if err == nil {
		err = g.patch(ctx, e, patch)
	}
	if err == nil {
		g.o.Log.Info("parked", "external_secret", client.ObjectKeyFromObject(e).String(), "upstream", u.ID, "failing_since", since)
	}
	return "parked", err
}

func wanted(u *Upstream, e *eso.ExternalSecret) bool {
	asked := e.Annotations[OptIn]
	return asked == "true" || u.Park.All && asked != "false"
}

// forced returns when a force-sync was asked for, which lets External Secrets begin
// with short waits again.
func forced(e *eso.ExternalSecret) time.Time {
	sec, err := strconv.ParseInt(e.Annotations["force-sync"], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(sec, 0)
}

func latest(all ...time.Time) time.Time {
	var last time.Time
	for _, t := range all {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// tend looks after one that is parked.
func (g *Guard) tend(ctx context.Context, now time.Time, u *Upstream, e *eso.ExternalSecret, m mark) error {
	var patch []byte
	var err error
	switch {
	case m.Attempting && told(e):
		return nil // External Secrets has not come to it yet
	case m.Attempting: // it has failed
		patch, err = park(e, now.Add(u.Park.Every))
	case !told(e):
		if patch, err = tell(e); err != nil {
			return err
		}
		return g.quietly(g.o.Client.Status().Patch(ctx, e.DeepCopyObject().(*eso.ExternalSecret), client.RawPatch(types.MergePatchType, patch)), e)
	case now.Before(m.Next) || !g.open(u.ID):
		return nil
	default:
		g.attempts.WithLabelValues(u.ID).Inc()
		patch, err = attempt(e, m)
	}
	if err != nil {
		return err
	}
	return g.patch(ctx, e, patch)
}

// release takes back what was changed, for good.
func (g *Guard) release(ctx context.Context, now time.Time, e *eso.ExternalSecret) error {
	patch, err := Release(e, nil)
	if err != nil {
		return err
	}
	g.released[client.ObjectKeyFromObject(e)] = now
	g.o.Log.Info("released", "external_secret", client.ObjectKeyFromObject(e).String())
	return g.patch(ctx, e, patch)
}

func (g *Guard) patch(ctx context.Context, e *eso.ExternalSecret, patch []byte) error {
	return g.quietly(g.o.Client.Patch(ctx, e.DeepCopyObject().(*eso.ExternalSecret), client.RawPatch(types.MergePatchType, patch)), e)
}

// quietly leaves out that an object was changed or deleted meanwhile: its next state
// is on its way to the cache, and is looked at then.
func (g *Guard) quietly(err error, e *eso.ExternalSecret) error {
	if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("external secret %s: %w", client.ObjectKeyFromObject(e), err)
}
