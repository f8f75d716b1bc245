package pressure

import "github.com/tollgate-dev/tollgate/limits"

// State is what a gate must remember over a restart, and what instances tell
// each other. It is a plain value. The zero State is that of a gate that never
// saw a refusal.
type State struct {
	Until      limits.Time `json:"until"`      // end of the last pause
	Since      limits.Time `json:"since"`      // its beginning
	Last       limits.Time `json:"last"`       // the last violation
	Violations int         `json:"violations"` // in a row
	Proved     bool        `json:"proved"`     // a request was taken since
	Reason     string      `json:"reason,omitempty"`
}

// State returns what to keep.
func (g *Gate) State() State {
	if g.last == 0 {
		return State{}
	}
	return State{
		Until: g.until, Since: g.last, Last: g.last, Violations: g.violations, Reason: g.reason,
		Proved: g.phase == Open || g.phase == Returning,
	}
}

// Restore makes g go on where st was taken. A pause that is over ends with a
// probe all the same unless the upstream has taken a request since; a return
// that was under way begins anew.
func (g *Gate) Restore(now limits.Time, st State) {
	g.Reset(now)
	if st.Last == 0 {
		return
	}
	g.until, g.last, g.violations, g.reason = st.Until, st.Last, max(st.Violations, 0), st.Reason
	switch {
	case !st.Proved:
		g.enter(Frozen, st.Since)
	case now.Sub(st.Until) < g.policy.Ramp:
		g.enter(Returning, now)
	}
	g.tick(now)
}

// Merge takes over what another instance has seen, and reports whether that
// changes anything. Pauses only get longer by it.
func (g *Gate) Merge(now limits.Time, st State) bool {
	g.tick(now)
	if g.phase == Frozen && !st.Proved && st.Until > g.until && st.Last <= g.last {
		g.until = st.Until // of the same traffic, but it was asked for more there
		return true
	}
	if st.Last <= g.last || now.Sub(st.Last) >= g.policy.Max && now >= st.Until {
		return false
	}
	g.last, g.reason = st.Last, st.Reason
	g.violations = max(g.violations, st.Violations)
	if st.Proved || st.Until <= now {
		return true
	}
	if g.phase != Frozen {
		g.enter(Frozen, now)
	}
	g.until = max(g.until, st.Until)
	return true
}
