package upstreams

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Options are what a Registry works with. Only Clock is required. The functions
// may be called from many goroutines, and with no lock held.
type Options struct {
	Clock  *limits.Clock
	Shared Shared // by which other instances are told; nil: there are none

	Saved   map[string]Saved               // what was kept, by id
	Keep    func(id string, s Saved) error // keeps it, durably; nil: nothing is kept
	Failed  func(error)                    // is told when Keep fails; it is tried again
	Changed func(Event)                    // is told what happens; must not wait
}

// Registry holds the configured upstreams. All methods are safe for concurrent
// use. Close it in the end.
type Registry struct {
	options Options

	mu      sync.Mutex // serializes changes of what is known
	current atomic.Pointer[snapshot]
}

// snapshot is the upstreams of one configuration. It is immutable.
type snapshot struct {
	all  []*Upstream
	byID map[string]*Upstream
}

// New returns a registry without upstreams.
func New(o Options) *Registry {
	r := &Registry{options: o}
	r.current.Store(&snapshot{})
	return r
}

// Configure puts a configuration in force, whole; each was checked by
// [Config.Check]. An upstream of an id that is known goes on with its state, and
// those who wait for it wait on. One that is gone refuses who waits for it.
func (r *Registry) Configure(configs []*Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, next := r.current.Load(), &snapshot{byID: map[string]*Upstream{}}
	now := r.options.Clock.Now()
	for _, c := range configs {
		u := was.byID[c.ID]
		if u == nil {
			u = newUpstream(c, &r.options, now)
			if s, ok := r.options.Saved[c.ID]; ok {
				u.configure(c, now, &s)
			} else {
				u.configure(c, now, nil)
			}
			u.keep(now, false) // before the first request, so that a kill is known to be one
		} else if u.Config() != c {
			u.configure(c, now, nil)
		}
		next.all, next.byID[c.ID] = append(next.all, u), u
	}
	r.current.Store(next)
	for _, u := range was.all {
		if next.byID[u.id] != u {
			u.close(now)
			u.asks.Wait()
		}
	}
}

// Find returns the upstream that a request goes to, or nil, which passes. The
// context extension `upstream` names it by its id; where it is empty or *, the
// host decides, in any spelling: exact names go before wildcards, longer ones
// before shorter.
func (r *Registry) Find(host, contextExtension string) *Upstream {
	s := r.current.Load()
	if contextExtension != "" && contextExtension != "*" {
		return s.byID[contextExtension]
	}
	if len(s.all) == 0 {
		return nil
	}
	host = normalHost(host)
	var found *Upstream
	best := 0
	for _, u := range s.all {
		if m := u.config.Load().match(host); m > best {
			found, best = u, m
		}
	}
	return found
}

// ByID returns the upstream of that id, or nil.
func (r *Registry) ByID(id string) *Upstream { return r.current.Load().byID[id] }

// All returns the upstreams in the order of the configuration.
func (r *Registry) All() []*Upstream { return r.current.Load().all }

// Flush keeps what has changed. Call it every [FlushEvery].
func (r *Registry) Flush() {
	now := r.options.Clock.Now()
	for _, u := range r.All() {
		u.mu.Lock()
		dirty := u.dirty
		u.mu.Unlock()
		if dirty {
			u.keep(now, false)
		}
	}
}

// Shift tells that the clock was stepped.
func (r *Registry) Shift(step time.Duration) {
	now := r.options.Clock.Now()
	for _, u := range r.All() {
		u.shift(step, now)
	}
}

// Close refuses all who wait and keeps everything for the last time. What was
// asked of the other instances' store has been answered when it returns.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.options.Clock.Now()
	for _, u := range r.All() {
		u.close(now)
		u.asks.Wait()
		u.keep(now, true)
	}
	r.current.Store(&snapshot{})
	return nil
}

// normalHost returns a host without its port and final dot, in lower case.
func normalHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
