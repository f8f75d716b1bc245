package pressure

import (
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Policy says how long a gate pauses. The zero value of a field is its default.
type Policy struct {
	Initial time.Duration // the first pause where the upstream asks for none; 10s
	Factor  float64       // by which each violation in a row lengthens it, at least 1; 2
	Max     time.Duration // the longest pause without being asked, and after how long without a violation their count begins anew; 15m
	Cap     time.Duration // the longest pause that an upstream may ask for; 24h
	Ramp    time.Duration // how long traffic takes to come back; 5s
	Probe   time.Duration // how long a probe's answer is waited for; 10s
}

// WithDefaults returns p with nothing left open.
func (p Policy) WithDefaults() Policy {
	for _, d := range []struct {
		field    *time.Duration
		standard time.Duration
	}{
		{&p.Initial, 10 * time.Second}, {&p.Max, 15 * time.Minute}, {&p.Cap, 24 * time.Hour},
		{&p.Ramp, 5 * time.Second}, {&p.Probe, 10 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.standard
		}
	}
	if p.Factor < 1 {
		p.Factor = 2
	}
	p.Max, p.Cap = max(p.Max, p.Initial), max(p.Cap, p.Initial)
	return p
}

// pause returns how long to pause for the n-th violation in a row, counted from 0.
func (p Policy) pause(n int, asked time.Duration) time.Duration {
	learned := float64(p.Initial) * math.Pow(p.Factor, float64(n))
	return max(time.Duration(min(learned, float64(p.Max))), min(asked, p.Cap))
}

// Phase is where a gate stands.
type Phase string

// The phases.
const (
	Open      Phase = "open"
	Frozen    Phase = "frozen"
	Probing   Phase = "probing"
	Returning Phase = "returning"
)

// doublings is how often what may pass doubles while traffic comes back.
const doublings = 8

// Gate says whether requests may pass to one upstream. Make one with [NewGate].
type Gate struct {
	policy Policy
	phase  Phase
	since  limits.Time // when the phase began
	until  limits.Time // Frozen: when the pause ends; later the last one that did

	violations int         // in a row
	last       limits.Time // when the last of them was seen
	reason     string      // what was seen then
	stamp      int64       // by which instances know it; 0: the others have not heard of it

	probe limits.Time // Probing: when the probe was sent
	out   bool        // Probing: it is on its way
	peer  limits.Time // Probing: until when another instance's probe is; 0: none is
	lost  int         // Probing: how many were never answered
	sent  int64       // Returning: how many have passed, on all instances
	peers int64       // instances that ask the upstream, this one included; 0 means 1
}

// NewGate returns an open gate.
func NewGate(p Policy, now limits.Time) *Gate {
	return &Gate{policy: p.WithDefaults(), phase: Open, since: now}
}

// ProbeLasts returns how long a probe's answer is waited for.
func (g *Gate) ProbeLasts() time.Duration { return g.policy.Probe }

// SetPolicy changes how long later pauses are; one that has begun stays.
func (g *Gate) SetPolicy(p Policy) { g.policy = p.WithDefaults() }

// Phase returns where the gate stands at now.
func (g *Gate) Phase(now limits.Time) Phase {
	g.tick(now)
	return g.phase
}

// tick lets happen what time alone brings about.
func (g *Gate) tick(now limits.Time) {
	if g.phase == Frozen && now >= g.until {
		g.enter(Probing, g.until)
		g.out, g.peer, g.lost = false, 0, 0
	}
	if end := g.probed(); g.phase == Probing && end != 0 && now >= end {
		g.out, g.peer = false, 0
		if g.lost++; g.lost > 1 {
			g.enter(Returning, now)
			g.sent = 0
		}
	}
	if g.phase == Returning && now.Sub(g.since) >= g.policy.Ramp {
		g.enter(Open, now)
	}
	if g.violations > 0 && g.phase == Open && now.Sub(g.last) >= g.policy.Max {
		g.violations = 0
	}
}

// probed returns until when an answer to the probe is waited for; 0: none is out.
func (g *Gate) probed() limits.Time {
	if g.out {
		return g.probe.Add(g.policy.Probe)
	}
	return g.peer
}

func (g *Gate) enter(p Phase, now limits.Time) { g.phase, g.since = p, now }

// Wait returns how long nobody may pass, 0 if one may now. While a probe is on
// its way that is the longest that it can take; its answer may end it earlier.
func (g *Gate) Wait(now limits.Time) time.Duration {
	g.tick(now)
	switch g.phase {
	case Frozen:
		return g.until.Sub(now)
	case Probing:
		if end := g.probed(); end != 0 {
			return end.Sub(now)
		}
	case Returning:
		return max(0, g.opens(g.sent).Sub(now))
	}
	return 0
}

// WaitBehind is Wait for one before whom ahead others pass: an estimate, which
// takes probes to be answered at once and favourably.
func (g *Gate) WaitBehind(now limits.Time, ahead int64) time.Duration {
	g.tick(now)
	switch g.phase {
	case Frozen:
		if ahead == 0 {
			return g.until.Sub(now)
		}
		return g.until.Add(g.ramp((ahead - 1) * g.share())).Sub(now)
	case Probing:
		if g.probed() != 0 {
			return max(g.ramp(ahead*g.share()), time.Millisecond)
		}
		return g.ramp(ahead * g.share())
	case Returning:
		return max(0, g.opens(g.sent+ahead*g.share()).Sub(now))
	}
	return 0
}

// Next returns how long the gate's phase lasts if nothing happens, negative if
// for ever.
func (g *Gate) Next(now limits.Time) time.Duration {
	g.tick(now)
	switch {
	case g.phase == Frozen:
		return g.until.Sub(now)
	case g.phase == Probing && g.probed() != 0:
		return g.probed().Sub(now)
	case g.phase == Returning:
		return g.since.Add(g.policy.Ramp).Sub(now)
	}
	return -1
}

// opens returns when traffic has come back so far that one may pass after n have.
func (g *Gate) opens(n int64) limits.Time { return g.since.Add(g.ramp(n)) }

// ramp returns how long after its beginning a return lets one pass after n have.
func (g *Gate) ramp(n int64) time.Duration {
	if n <= 0 {
		return 0
	}
	part := math.Log2(float64(n+1)) / doublings
	if part >= 1 {
		return g.policy.Ramp
	}
	return time.Duration(math.Ceil(part * float64(g.policy.Ramp)))
}

// Pass notes that a request passes now. The owner has seen that Wait is 0.
func (g *Gate) Pass(now limits.Time) {
	g.tick(now)
	switch g.phase {
	case Probing:
		g.probe, g.out = now, true
	case Returning:
		g.sent += g.share()
	}
}

// share is as how many requests one counts while traffic comes back: the other
// instances let as many pass.
func (g *Gate) share() int64 { return max(g.peers, 1) }

// Back undoes a Pass at that instant: the request never went out after all.
func (g *Gate) Back(at limits.Time) {
	switch {
	case g.phase == Probing && g.out && g.probe == at:
		g.out = false
	case g.phase == Returning && g.sent > 0 && at >= g.since:
		g.sent = max(0, g.sent-g.share())
	}
}

// Taken notes that the upstream answered a request and did not refuse it. It
// reports whether that was news: the probe's answer.
func (g *Gate) Taken(now limits.Time) bool {
	g.tick(now)
	if g.phase != Probing || !g.out && g.lost == 0 {
		return false // so is it in a peer's probe: what was answered here was sent before the pause
	}
	g.enter(Returning, now)
	g.sent = 0
	return true
}

// Refused notes that the upstream refused a request and asked for a pause, 0 if
// it named none; reason says what was seen. It reports whether this is a
// violation of its own, and not another answer to the traffic before the pause.
func (g *Gate) Refused(now limits.Time, asked time.Duration, reason string) bool {
	g.tick(now)
	if g.phase == Frozen {
		g.until = max(g.until, now.Add(g.policy.pause(g.violations-1, asked)))
		return false
	}
	g.until = max(g.until, now.Add(g.policy.pause(g.violations, asked)))
	g.violations++
	g.last, g.reason, g.stamp = now, reason, 0
	g.enter(Frozen, now)
	return true
}

// Reset opens the gate and forgets the violations.
func (g *Gate) Reset(now limits.Time) {
	*g = Gate{policy: g.policy, peers: g.peers, phase: Open, since: now, until: now}
}

// Shift moves everything by a step of the clock, so that pauses are as long as
// they were meant to be.
func (g *Gate) Shift(step time.Duration) {
	for _, t := range []*limits.Time{&g.since, &g.until, &g.last, &g.probe, &g.peer} {
		if *t != 0 {
			*t = t.Add(step)
		}
	}
}

// Violations returns how many there were in a row, until now.
func (g *Gate) Violations(now limits.Time) int {
	g.tick(now)
	return g.violations
}

// Until returns when the pause ends, or when the last one did; 0: there was none.
func (g *Gate) Until() limits.Time { return g.until }

// Last returns when the last violation was seen and what it was; 0: there was none.
func (g *Gate) Last() (limits.Time, string) { return g.last, g.reason }
