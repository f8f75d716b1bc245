package upstreams

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// Upstream is one upstream with its state, which outlives configurations. All
// methods are safe for concurrent use.
type Upstream struct {
	id     string
	config atomic.Pointer[Config]

	mu   sync.Mutex // guards what follows
	gate *pressure.Gate
}

// ID returns the upstream's name.
func (u *Upstream) ID() string { return u.id }

// Config returns what is configured just now.
func (u *Upstream) Config() *Config { return u.config.Load() }

// WantsBody reports whether the body of an answer with that status says
// something about a pause: a signal looks into it, or it may say how long.
func (u *Upstream) WantsBody(status int) bool {
	return slices.ContainsFunc(u.config.Load().Signals, func(s Signal) bool { return s.Status == status })
}

// Observe is told what the upstream answered to a request that was let pass. A
// signal starts a pause, which is in force and on disk when Observe returns, so
// that the caller may be given the answer then. Answers that Tollgate gave itself
// are not counted, and an error of the server's neither ends a probe nor a count
// of violations.
func (u *Upstream) Observe(now limits.Time, a Answer) {
	if a.header("x-tollgate-reason") != "" {
		return
	}
	c := u.config.Load()
	i := slices.IndexFunc(c.Signals, func(s Signal) bool { return s.fits(&a) })
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case i >= 0:
		u.gate.Refused(now, a.asked(now), c.Signals[i].String())
	case a.Status < 500:
		u.gate.Taken(now)
	}
}
