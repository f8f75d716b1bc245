package upstreams

import (
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// Saved is what an upstream must remember over a restart. It may be written as JSON.
type Saved struct {
	At     limits.Time         `json:"at"`
	Clean  bool                `json:"clean,omitempty"` // nothing happened afterwards
	Gate   pressure.State      `json:"gate"`
	Source string              `json:"source,omitempty"`
	Share  pressure.SavedShare `json:"share"`
	Limits []limits.State      `json:"limits,omitempty"` // of the limits in their order
	Budget []Account           `json:"budget,omitempty"`
}

// FlushEvery is how often [Registry.Flush] wants to be called: what a kill can
// lose at most of what was counted.
const FlushEvery = 500 * time.Millisecond

// keep writes down what the upstream must remember.
func (u *Upstream) keep(now limits.Time, clean bool) {
	if u.options.Keep == nil {
		return
	}
	u.saving.Lock()
	defer u.saving.Unlock()
	u.mu.Lock()
	s := Saved{At: now, Clean: clean, Gate: u.gate.State(), Source: u.source, Share: u.share.State(), Budget: u.ledger.keep()}
	for _, l := range u.limiters {
		s.Limits = append(s.Limits, l.State())
	}
	u.dirty = false
	u.mu.Unlock()
	if err := u.options.Keep(u.id, s); err != nil {
		u.mu.Lock()
		u.dirty = true
		u.mu.Unlock()
		if u.options.Failed != nil {
			u.options.Failed(err)
		}
	}
}

// restore goes on where s was kept. What passed between that and a kill is not
// known: the limits that count in a period start as used up then.
func (u *Upstream) restore(now limits.Time, s *Saved) {
	u.gate.Restore(now, s.Gate)
	u.share.Restore(s.Share)
	u.source = s.Source
	u.ledger.restore(now, s.Budget)
	specs, _ := u.config.Load().specs(u.share.Value()) // the configuration was checked
	states := slices.Clone(s.Limits)
	for i, spec := range specs {
		at := slices.IndexFunc(states, func(st limits.State) bool { return st.Kind == spec.Limit().Kind })
		if at < 0 {
			continue
		}
		st := states[at]
		states = slices.Delete(states, at, at+1)
		if !s.Clean && spec.Limit().Kind != limits.Quota {
			st = limits.State{Kind: "unknown", A: int64(min(s.At.Add(2*FlushEvery), now))}
		}
		u.limiters[i] = limits.Restore(spec, now, st)
	}
}
