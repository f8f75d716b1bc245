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

	// Stamp tells the violation from others where instances share them: the
	// store's time of it, in milliseconds. 0: the store has not heard of it.
	Stamp int64 `json:"stamp,omitempty"`
}

// State returns what to keep.
func (g *Gate) State() State {
	if g.last == 0 {
		return State{}
	}
	return State{
		Until: g.until, Since: g.last, Last: g.last, Violations: g.violations, Reason: g.reason, Stamp: g.stamp,
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
	g.until, g.last, g.violations, g.reason, g.stamp = st.Until, st.Last, max(st.Violations, 0), st.Reason, st.Stamp
	switch {
	case !st.Proved:
		g.enter(Frozen, st.Since)
	case now.Sub(st.Until) < g.policy.Ramp:
		g.enter(Returning, now)
	}
	g.tick(now)
}

// Merge takes over what another instance has seen, and reports whether that
// changes anything. Pauses only get longer by it, up to the longest that an
// upstream may ask for.
func (g *Gate) Merge(now limits.Time, st State) bool {
	g.tick(now)
	st.Until, st.Last = min(st.Until, now.Add(g.policy.Cap)), min(st.Last, now)
	if st.Stamp != 0 && st.Stamp == g.stamp {
		return g.mergeSame(now, st)
	}
	if g.phase == Frozen && !st.Proved && st.Until > g.until && st.Last <= g.last {
		g.until = st.Until // of the same traffic, but it was asked for more there
		return true
	}
	if st.Last <= g.last || now.Sub(st.Last) >= g.policy.Max && now >= st.Until {
		return false
	}
	g.last, g.reason, g.stamp = st.Last, st.Reason, st.Stamp
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

// mergeSame takes over what has become of the violation that g stands at.
func (g *Gate) mergeSame(now limits.Time, st State) bool {
	switch {
	case g.phase == Frozen && !st.Proved && st.Until > g.until:
		g.until = st.Until
		return true
	case g.phase == Probing && st.Proved:
		// The peer whose probe it was is the first of the return.
		g.enter(Returning, now)
		g.sent, g.out, g.peer = g.share(), false, 0
		return true
	}
	return false
}

// Stamped notes by what stamp the others know the violation that was last seen
// at that instant, if it still is the last; with stamp 0 it is void, since the
// pressure was ended by hand later.
func (g *Gate) Stamped(now, last limits.Time, stamp int64) {
	switch {
	case last == 0 || g.last != last || g.stamp != 0:
	case stamp == 0:
		g.Reset(now)
	default:
		g.stamp = stamp
	}
}

// Elsewhere notes until when another instance's probe is waited for, 0 if none
// is out, and how many instances ask the upstream.
func (g *Gate) Elsewhere(now, until limits.Time, peers int64) {
	g.tick(now)
	g.peers = peers
	if g.phase != Probing || g.out {
		return
	}
	if until = min(until, now.Add(g.policy.Probe)); until <= now {
		until = 0
	}
	g.peer = until
}
