package push

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/webhook"
)

// Upstream is an upstream and the stores that draw on it.
type Upstream struct {
	ID     string // as Tollgate knows it
	Stores eso.Selector
}

// Allowance is what Tollgate says; [allowance.Watcher] is one.
type Allowance interface {
	Refresh(ctx context.Context) error
	State(upstream string) (allowance.State, bool)
	Changed() <-chan struct{}
}

// Options of a pusher.
type Options struct {
	Upstreams []Upstream
	Queue     *webhook.Queue
	Index     *Index
	Client    client.Client // reads from a cache
	Allowance Allowance
	Coalesce  time.Duration // at most one force-sync per object in that time; 0: 2 s
	Net       time.Duration // the longest time without a refresh; 0: a day
	Settle    time.Duration // how long an external secret that was annotated may take until nobody waits for it; 0: 1 min
	Retry     time.Duration // when to look again while the upstream allows too little; 0: 500 ms
	Log       *slog.Logger
	Registry  prometheus.Registerer
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		value *time.Duration
		is    time.Duration
	}{{&o.Coalesce, 2 * time.Second}, {&o.Net, 24 * time.Hour}, {&o.Settle, time.Minute}, {&o.Retry, 500 * time.Millisecond}} {
		if *d.value <= 0 {
			*d.value = d.is
		}
	}
	return o
}

// Pusher annotates external secrets. [Pusher.Run] may be called once.
type Pusher struct {
	o       Options
	targets *targets
	metrics metrics
}

type metrics struct {
	syncs   *prometheus.CounterVec
	calls   *prometheus.CounterVec
	pending *prometheus.GaugeVec
}

// New returns a pusher.
func New(o Options) *Pusher {
	o = o.withDefaults()
	p := &Pusher{o: o, targets: newTargets(o), metrics: metrics{
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_eso_force_syncs_total", Help: "External secrets that were annotated with force-sync."}, []string{"upstream"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_eso_force_sync_calls_total", Help: "Calls that those external secrets make to the upstream."}, []string{"upstream"}),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tollgate_eso_pending_force_syncs", Help: "External secrets that wait for the upstream's allowance."}, []string{"upstream"}),
	}}
	o.Registry.MustRegister(p.metrics.syncs, p.metrics.calls, p.metrics.pending)
	for _, u := range o.Upstreams {
		p.metrics.syncs.WithLabelValues(u.ID)
		p.metrics.calls.WithLabelValues(u.ID)
		p.metrics.pending.WithLabelValues(u.ID)
	}
	return p
}

// Run pushes until ctx ends.
func (p *Pusher) Run(ctx context.Context) error {
	for {
		changed := p.o.Allowance.Changed()
		wait, err := p.step(ctx, time.Now())
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.o.Log.Warn("push", "err", err)
			wait = max(wait, 2*time.Second)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-p.o.Queue.Wake():
		case <-t.C:
		}
		t.Stop()
	}
}

// idle is how long a pusher sleeps that has nothing to do.
const idle = time.Minute

// step does what can be done now, and returns when to look again.
func (p *Pusher) step(ctx context.Context, now time.Time) (time.Duration, error) {
	wait, err := p.castNet(now)
	if err != nil {
		return idle, err
	}
	if err := p.o.Queue.Forget(now); err != nil {
		return idle, err
	}
	jobs, err := p.o.Queue.Jobs()
	if err != nil {
		return idle, err
	}
	for _, u := range p.o.Upstreams {
		var due []webhook.Job
		for _, j := range jobs {
			if j.Upstream != u.ID {
				continue
			}
			if rest := j.First.Add(p.o.Coalesce).Sub(now); rest > 0 {
				wait = min(wait, rest)
				continue
			}
			due = append(due, j)
		}
		next, err := p.push(ctx, now, u, due)
		if err != nil {
			return wait, fmt.Errorf("upstream %s: %w", u.ID, err)
		}
		wait = min(wait, next)
	}
	return wait, nil
}

// castNet adds the job for what no webhook told of, when its time has come, and
// returns how long that is from now. A tenth of the period is left to chance, so
// that many clusters do not all come at once.
func (p *Pusher) castNet(now time.Time) (time.Duration, error) {
	wait := idle
	for _, u := range p.o.Upstreams {
		name := "net " + u.ID
		next, err := p.o.Queue.Time(name)
		if err != nil {
			return 0, err
		}
		if !next.IsZero() && now.Before(next) {
			wait = min(wait, next.Sub(now))
			continue
		}
		if !next.IsZero() {
			if err := p.o.Queue.Add(now, webhook.Job{Upstream: u.ID, Kind: webhook.Net}); err != nil {
				return 0, err
			}
		}
		early := time.Duration(rand.Int64N(int64(p.o.Net)/10 + 1))
		if err := p.o.Queue.SetTime(name, now.Add(p.o.Net-early)); err != nil {
			return 0, err
		}
	}
	return wait, nil
}

// push works on the jobs of an upstream that are due.
func (p *Pusher) push(ctx context.Context, now time.Time, u Upstream, due []webhook.Job) (time.Duration, error) {
	pending := p.metrics.pending.WithLabelValues(u.ID)
	plan, err := p.targets.plan(ctx, now, u, due)
	if err != nil {
		return idle, err
	}
	if err := p.o.Queue.Done(plan.done...); err != nil {
		return idle, err
	}
	pending.Set(float64(len(plan.pending)))
	if len(plan.pending) == 0 {
		return plan.wait, nil
	}
	if err := p.o.Allowance.Refresh(ctx); err != nil {
		return p.o.Retry, err // what is not known is not allowed
	}
	state, ok := p.o.Allowance.State(u.ID)
	if !ok {
		return idle, fmt.Errorf("tollgate has no upstream of this id: see `upstreams` in its configuration")
	}
	batch := p.targets.fit(ctx, now, u.ID, state, plan.pending)
	for _, t := range batch {
		if err := p.targets.annotate(ctx, now, u.ID, t); err != nil {
			return p.o.Retry, err
		}
		if !t.release {
			p.metrics.syncs.WithLabelValues(u.ID).Add(float64(len(t.members)))
		}
		p.metrics.calls.WithLabelValues(u.ID).Add(float64(t.calls))
	}
	if len(batch) > 0 {
		p.o.Log.Info("force-sync", "upstream", u.ID, "objects", len(batch), "pending", len(plan.pending)-len(batch))
		pending.Set(float64(len(plan.pending) - len(batch)))
	}
	return min(p.o.Retry, plan.wait), nil
}
