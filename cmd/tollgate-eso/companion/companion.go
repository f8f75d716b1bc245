// Package companion wires the parts of `tollgate-eso run` together: the cluster's
// cache, Tollgate's allowance, the webhooks, the pusher and the writer of
// conditions. It is stopped by its context, and what it holds on disk stays.
package companion

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/guard"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/pressure"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/push"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/savings"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/webhook"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// Options of a companion.
type Options struct {
	Config  *config.Config
	DataDir string
	Log     *slog.Logger
}

// Companion is everything, not running yet.
type Companion struct {
	o        Options
	cluster  cluster.Cluster
	parts    []func(context.Context) error // that work on the cluster's objects
	queue    *webhook.Queue
	listener *listener // of webhooks
	inside   *listener // of metrics and the status
	watcher  *allowance.Watcher
	registry *prometheus.Registry
	meter    *savings.Meter
}

// New sets everything up. What it opens is closed by [Companion.Run].
func New(ctx context.Context, at *rest.Config, o Options) (_ *Companion, err error) {
	c := &Companion{o: o, registry: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if c.queue, err = webhook.OpenQueue(filepath.Join(o.DataDir, "events.db")); err != nil {
		return nil, err
	}
	receiver := webhook.New(webhook.Options{Hooks: o.Config.Hooks, Queue: c.queue, Now: time.Now, Log: o.Log, Registry: c.registry})
	if c.listener, err = listen(o.Config.Listen, o.Config.TLS, receiver); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{metrics.Registry, c.registry}, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /status", c.status)
	mux.HandleFunc("GET /readyz", c.ready)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	if c.inside, err = listen(o.Config.Status, config.TLS{}, mux); err != nil {
		return nil, err
	}
	if c.cluster, err = newCluster(at); err != nil {
		return nil, err
	}
	token := admin.Client{Server: o.Config.Server, Token: o.Config.Token}
	c.watcher = allowance.New(allowance.Options{Client: &token, Log: o.Log})
	return c, c.addParts(ctx)
}

// newCluster makes what watches the cluster. The cache has no managed fields,
// which are larger than the rest.
func newCluster(at *rest.Config) (cluster.Cluster, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(eso.AddToScheme(scheme), clientgoscheme.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	at = rest.CopyConfig(at)
	at.QPS, at.Burst = 50, 200
	c, err := cluster.New(at, func(o *cluster.Options) {
		o.Scheme = scheme
		o.Cache = cache.Options{DefaultTransform: cache.TransformStripManagedFields()}
	})
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return c, nil
}

// addParts adds what runs.
func (c *Companion) addParts(ctx context.Context) error {
	index, err := push.NewIndex(ctx, c.cluster.GetFieldIndexer(), c.cluster.GetClient())
	if err != nil {
		return err
	}
	stores, err := c.storeChanges(ctx)
	if err != nil {
		return err
	}
	meter := savings.Options{Client: c.cluster.GetClient(), File: filepath.Join(c.o.DataDir, "savings.json"), Log: c.o.Log, Registry: c.registry}
	pusher := push.Options{Queue: c.queue, Index: index, Client: c.cluster.GetClient(), Allowance: c.watcher,
		Coalesce: c.o.Config.Coalesce, Net: c.o.Config.Net, Log: c.o.Log, Registry: c.registry}
	writer := pressure.Options{Client: c.cluster.GetClient(), Source: c.watcher, Recorder: c.cluster.GetEventRecorder("tollgate-eso"),
		Stores: stores, Log: c.o.Log, Registry: c.registry}
	attempts, err := c.attempts(ctx)
	if err != nil {
		return err
	}
	parks := guard.Options{Client: c.cluster.GetClient(), Source: c.watcher, Attempts: attempts, Log: c.o.Log, Registry: c.registry}
	for _, u := range c.o.Config.Upstreams {
		meter.Upstreams = append(meter.Upstreams, savings.Upstream{ID: u.ID, Stores: u.Stores, Poll: c.o.Config.Polled})
		parks.Upstreams = append(parks.Upstreams, guard.Upstream{ID: u.ID, Stores: u.Stores, Park: u.Park})
		pusher.Upstreams = append(pusher.Upstreams, push.Upstream{ID: u.ID, Stores: u.Stores})
		writer.Upstreams = append(writer.Upstreams, pressure.Upstream{ID: u.ID, Stores: u.Stores, Windows: u.Windows})
	}
	c.meter = savings.New(meter, time.Now())
	if err := c.measure(ctx); err != nil {
		return err
	}
	c.parts = append(c.parts, c.watcher.Run, c.meter.Run, push.New(pusher).Run, pressure.New(writer).Run, guard.New(parks).Run)
	return nil
}

// storeChanges returns a channel that holds a value when a store has changed.
func (c *Companion) storeChanges(ctx context.Context) (<-chan struct{}, error) {
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for _, o := range []client.Object{&eso.SecretStore{}, &eso.ClusterSecretStore{}} {
		informer, err := c.cluster.GetCache().GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("stores: are External Secrets' CRDs installed? %w", err)
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { tell() },
			UpdateFunc: func(any, any) { tell() },
		})
		if err != nil {
			return nil, err
		}
	}
	return changed, nil
}

// attempts returns a channel that holds a value when an external secret that was
// parked and tries again has changed.
func (c *Companion) attempts(ctx context.Context) (<-chan struct{}, error) {
	informer, err := c.cluster.GetCache().GetInformer(ctx, &eso.ExternalSecret{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	changed := make(chan struct{}, 1)
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{UpdateFunc: func(_, after any) {
		if e, ok := after.(*eso.ExternalSecret); ok && guard.Attempting(e) {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}})
	return changed, err
}

// measure has the savings told of every change of an external secret.
func (c *Companion) measure(ctx context.Context) error {
	informer, err := c.cluster.GetCache().GetInformer(ctx, &eso.ExternalSecret{}, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	changed := func(o any) {
		if e, ok := o.(*eso.ExternalSecret); ok {
			c.meter.Observe(e, time.Now())
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    changed,
		UpdateFunc: func(_, after any) { changed(after) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if e, ok := o.(*eso.ExternalSecret); ok {
				c.meter.Forget(e, time.Now())
			}
		},
	})
	return err
}

// Addr returns where webhooks are received.
func (c *Companion) Addr() string { return c.listener.addr() }

// StatusAddr returns where metrics and the status are served.
func (c *Companion) StatusAddr() string { return c.inside.addr() }

// Run works until ctx ends. It may be called once. Webhooks are taken before the
// cluster's objects are known: they need only a disk.
func (c *Companion) Run(ctx context.Context) error {
	c.o.Log.Info("running", "webhooks", c.Addr(), "status", c.StatusAddr(), "hooks", len(c.o.Config.Hooks), "tollgate", c.o.Config.Server)
	err := together(ctx, c.cluster.Start, c.listener.run, c.inside.run, func(ctx context.Context) error {
		if !c.cluster.GetCache().WaitForCacheSync(ctx) {
			return nil // ctx has ended
		}
		return together(ctx, c.parts...)
	})
	return errors.Join(err, c.close())
}

// together runs all until ctx or one of them ends, and returns when all have.
func together(ctx context.Context, all ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(all))
	for _, run := range all {
		go func() { ended <- run(ctx) }()
	}
	var errs []error
	for range all {
		errs = append(errs, <-ended)
		cancel()
	}
	return errors.Join(errs...)
}

func (c *Companion) close() error {
	var errs []error
	for _, l := range []*listener{c.listener, c.inside} {
		if l != nil {
			errs = append(errs, l.close())
		}
	}
	if c.queue != nil {
		errs = append(errs, c.queue.Close())
	}
	return errors.Join(errs...)
}
