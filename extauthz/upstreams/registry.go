package upstreams

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// Options are what a Registry works with.
type Options struct {
	Clock *limits.Clock // required
}

// Registry holds the configured upstreams. All methods are safe for concurrent use.
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

// Configure puts a configuration in force, whole. An upstream of an id that is
// known goes on with its state.
func (r *Registry) Configure(configs []*Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, next := r.current.Load(), &snapshot{byID: map[string]*Upstream{}}
	now := r.options.Clock.Now()
	for _, c := range configs {
		u := was.byID[c.ID]
		if u == nil {
			u = &Upstream{id: c.ID, gate: pressure.NewGate(c.Pressure, now)}
		}
		u.config.Store(c)
		next.all, next.byID[c.ID] = append(next.all, u), u
	}
	r.current.Store(next)
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

// normalHost returns a host without its port and final dot, in lower case.
func normalHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
