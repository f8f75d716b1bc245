// Package savings measures what webhooks save: how often external secrets were
// refreshed, against how often polling alone would have.
//
// A refresh is seen by the object's status.refreshTime, and costs the calls that
// [eso.ExternalSecret.Reads] says. What polling would have cost is summed up over
// the time in which the object was there: its calls in each interval of the
// annotation [Poll], or of the configuration, or else of its own. So both sides
// come from the same objects in the same time, and nothing is extrapolated.
//
// Attempts that fail leave refreshTime as it is, and are not seen.
package savings

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Poll is the annotation of an external secret that says which refreshInterval it
// had before there were webhooks, as 5m.
const Poll = "tollgate.dev/poll-interval"

// Upstream is an upstream, the stores that draw on it, and how often they were
// polled; 0: as often as each object says.
type Upstream struct {
	ID     string
	Stores eso.Selector
	Poll   time.Duration
}

// Options of a meter.
type Options struct {
	Upstreams []Upstream
	Client    client.Reader // a cache
	File      string        // keeps the sums; "": nothing does
	Every     time.Duration // how often sums are kept; 0: a minute
	Log       *slog.Logger
	Registry  prometheus.Registerer
}

// Sums are the calls of a period.
type Sums struct {
	Since     time.Time `json:"since"`
	Refreshes int64     `json:"refreshes"` // that were seen
	Calls     int64     `json:"calls"`     // that they made
	Polling   float64   `json:"polling"`   // calls that polling would have made in that time
}

// Saved returns the part of the calls that polling would have made which was
// saved; below 0: polling would have made fewer.
func (s Sums) Saved() float64 {
	if s.Polling < 1 {
		return 0
	}
	return 1 - float64(s.Calls)/s.Polling
}

// Meter sums up. Its methods are safe for concurrent use.
type Meter struct {
	o Options

	mu     sync.Mutex
	sums   map[string]*Sums
	stores map[string]map[eso.Store]bool // by upstream
	known  map[types.UID]seen
	rates  map[string]float64 // calls a second of polling, by upstream: the sum of known
	last   time.Time          // up to which polling is summed up
}

// seen is what is known of an object.
type seen struct {
	refreshed time.Time
	calls     map[string]int     // by upstream
	rate      map[string]float64 // calls a second of polling
}

// New returns a meter that goes on from its file. A file that cannot be read is
// put aside, and told of.
func New(o Options, now time.Time) *Meter {
	if o.Every <= 0 {
		o.Every = time.Minute
	}
	m := &Meter{o: o, sums: map[string]*Sums{}, stores: map[string]map[eso.Store]bool{}, known: map[types.UID]seen{}, rates: map[string]float64{}, last: now}
	if err := m.load(); err != nil {
		o.Log.Warn("savings: begin anew, the old sums are beside it as .bad", "file", o.File, "err", err, "kept", os.Rename(o.File, o.File+".bad") == nil)
	}
	for _, u := range o.Upstreams {
		if m.sums[u.ID] == nil {
			m.sums[u.ID] = &Sums{Since: now}
		}
		labels := prometheus.Labels{"upstream": u.ID}
		o.Registry.MustRegister(
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tollgate_eso_refresh_calls_total", ConstLabels: labels,
				Help: "Calls of the refreshes that were seen."}, func() float64 { return float64(m.Sums(u.ID).Calls) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tollgate_eso_polling_calls_total", ConstLabels: labels,
				Help: "Calls that polling would have made in the same time."}, func() float64 { return m.Sums(u.ID).Polling }))
	}
	return m
}

func (m *Meter) load() error {
	if m.o.File == "" {
		return nil
	}
	data, err := os.ReadFile(m.o.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var sums map[string]*Sums
	if err := json.Unmarshal(data, &sums); err != nil {
		return err
	}
	for id, s := range sums {
		if s == nil || s.Refreshes < 0 || s.Calls < 0 || !(s.Polling >= 0) {
			return fmt.Errorf("upstream %s: no sums", id)
		}
	}
	if sums != nil {
		m.sums = sums
	}
	return nil
}

// save replaces the file as a whole.
func (m *Meter) save() error {
	if m.o.File == "" {
		return nil
	}
	m.mu.Lock()
	data, err := json.Marshal(m.sums)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.o.File+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(m.o.File+".new", m.o.File)
}

// Sums returns the sums of an upstream.
func (m *Meter) Sums(upstream string) Sums {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sums[upstream]; s != nil {
		return *s
	}
	return Sums{}
}

// Run keeps the sums until ctx ends.
func (m *Meter) Run(ctx context.Context) error {
	t := time.NewTicker(m.o.Every)
	defer t.Stop()
	for {
		if err := m.Tick(ctx, time.Now()); err != nil && ctx.Err() == nil {
			m.o.Log.Warn("savings", "err", err)
		}
		select {
		case <-ctx.Done():
			return m.save()
		case <-t.C:
		}
	}
}

// Tick sums up the time since the last one, learns which stores draw on which
// upstream, and keeps the sums.
func (m *Meter) Tick(ctx context.Context, now time.Time) error {
	stores := map[string]map[eso.Store]bool{}
	for _, u := range m.o.Upstreams {
		all, err := u.Stores.Select(ctx, m.o.Client)
		if err != nil {
			return err
		}
		stores[u.ID] = map[eso.Store]bool{}
		for _, s := range all {
			stores[u.ID][s.Store] = true
		}
	}
	var list eso.ExternalSecretList
	if err := m.o.Client.List(ctx, &list); err != nil {
		return fmt.Errorf("list ExternalSecrets: %w", err)
	}
	m.mu.Lock()
	m.pass(now)
	m.stores = stores
	here := make(map[types.UID]bool, len(list.Items))
	for i := range list.Items {
		here[list.Items[i].UID] = true
		m.take(&list.Items[i])
	}
	clear(m.rates) // anew, so that no rounding adds up
	for uid, s := range m.known {
		if !here[uid] {
			delete(m.known, uid)
			continue
		}
		m.add(s, 1)
	}
	m.mu.Unlock()
	return m.save()
}

// Observe is told of an object that is new or has changed.
func (m *Meter) Observe(e *eso.ExternalSecret, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pass(now)
	m.take(e)
}

// Forget is told of an object that is gone.
func (m *Meter) Forget(e *eso.ExternalSecret, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pass(now)
	m.add(m.known[e.UID], -1)
	delete(m.known, e.UID)
}

// add puts an object's rates into the sum, or takes them out of it.
func (m *Meter) add(s seen, sign float64) {
	for id, rate := range s.rate {
		m.rates[id] += sign * rate
	}
}

// pass sums up what polling would have cost until now. An object's first refresh
// is none of polling's, so nothing is added for it but what time brings.
func (m *Meter) pass(now time.Time) {
	passed := now.Sub(m.last).Seconds()
	if passed <= 0 {
		return
	}
	m.last = now
	for id, rate := range m.rates {
		m.sums[id].Polling += max(0, rate) * passed
	}
}

// take counts a refresh that was not seen yet, and learns what the object costs.
// The first sight of an object is no refresh: it may be from long ago.
func (m *Meter) take(e *eso.ExternalSecret) {
	before, known := m.known[e.UID]
	refreshed := e.Status.RefreshTime.Time
	s := seen{refreshed: refreshed, calls: map[string]int{}, rate: map[string]float64{}}
	if before.refreshed.After(refreshed) {
		s.refreshed = before.refreshed // an older state of the object
	}
	for _, u := range m.o.Upstreams {
		n := e.CallsTo(m.stores[u.ID])
		if n == 0 {
			continue
		}
		s.calls[u.ID] = n
		if every := pollEvery(e, u.Poll); every > 0 {
			s.rate[u.ID] = float64(n) / every.Seconds()
		}
	}
	if known && refreshed.After(before.refreshed) {
		for id, n := range s.calls {
			m.sums[id].Refreshes++
			m.sums[id].Calls += int64(n)
		}
	}
	m.add(before, -1)
	m.add(s, 1)
	m.known[e.UID] = s
}

// pollEvery returns how often an object would be polled without webhooks.
func pollEvery(e *eso.ExternalSecret, standard time.Duration) time.Duration {
	if e.Unreachable() != "" || e.RefreshEvery() == 0 {
		return 0
	}
	if d, err := time.ParseDuration(e.Annotations[Poll]); err == nil && d > 0 {
		return d
	}
	if standard > 0 {
		return standard
	}
	return e.RefreshEvery()
}
