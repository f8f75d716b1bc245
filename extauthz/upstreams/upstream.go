package upstreams

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// Upstream is one upstream with its state, which outlives configurations. All
// methods are safe for concurrent use.
type Upstream struct {
	id      string
	options *Options
	config  atomic.Pointer[Config]

	saving sync.Mutex // so that what is kept later is newer; taken before mu

	mu       sync.Mutex // guards what follows, also the limiters
	gate     *pressure.Gate
	share    pressure.Share
	limiters []*limits.Limiter // of config.Limits
	claims   []limits.Claim    // of the request that is decided just now
	gauge    gauge
	accepted pressure.Meter // what the upstream took, over the gauge's period
	heard    bool           // it is told what the upstream takes, not only what it refuses
	incident incident
	ledger   ledger
	peers    peers
	line     line
	expires  limits.Time // nobody's patience ends earlier
	told     limits.Time // when the last who was refused is to come back
	spread   float64     // of the jitter, from 0 to 1
	timer    *time.Timer
	closed   bool
	counts   Counts
	shown    State       // the last that was told
	since    limits.Time // since when
	source   string      // who saw the last violation
	dirty    bool        // something is to be kept
	events   []Event

	asks sync.WaitGroup // of the other instances' store
}

// incident is what a violation is learned from while its answers still come in.
type incident struct {
	was    pressure.Share
	at     limits.Time // 0: nothing can be learned from it
	seen   pressure.Seen
	others pressure.Seen // what was taken of other instances' requests
}

func newUpstream(c *Config, o *Options, now limits.Time) *Upstream {
	u := &Upstream{id: c.ID, options: o, gate: pressure.NewGate(c.Pressure, now), shown: Open, since: now, expires: math.MaxInt64}
	u.timer = time.AfterFunc(time.Hour, u.turn)
	u.timer.Stop()
	return u
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

// configure puts a configuration in force; the state stays, or is what was kept
// of an upstream that is new.
func (u *Upstream) configure(c *Config, now limits.Time, kept *Saved) {
	u.mu.Lock()
	defer u.unlock(now)
	old, had := u.config.Load(), u.limiters
	u.config.Store(c)
	u.gate.SetPolicy(c.Pressure)
	specs, _ := c.specs(u.share.Value()) // the configuration was checked
	u.limiters = make([]*limits.Limiter, len(specs))
	for i, s := range specs {
		if u.limiters[i] = take(old, had, &c.Limits[i]); u.limiters[i] == nil {
			u.limiters[i] = limits.New(s, now)
		}
		u.limiters[i].SetSpec(now, s)
	}
	if u.gauge = c.gauge(); u.gauge.period != u.accepted.Period() {
		u.accepted = pressure.NewMeter(u.gauge.period)
	}
	u.ledger.configure(c.Budget, now)
	if kept != nil {
		u.restore(now, kept)
	}
	u.lend(now)
	u.claims = make([]limits.Claim, len(u.limiters)+len(u.ledger.accounts))
	u.expires = now // to be found anew
	u.retime(now)
}

// take returns the limiter that a limit goes on with: the first of its kind that
// none has taken, or nil.
func take(old *Config, had []*limits.Limiter, l *Limit) *limits.Limiter {
	for i := range had {
		if had[i] != nil && old.Limits[i].Kind == l.Kind && old.Limits[i].Calendar == l.Calendar {
			limiter := had[i]
			had[i] = nil
			return limiter
		}
	}
	return nil
}

// close refuses all who wait; later requests are not held.
func (u *Upstream) close(now limits.Time) {
	u.mu.Lock()
	defer u.unlock(now)
	u.closed = true
	u.timer.Stop()
	for w := range u.line.all() {
		u.refuse(now, w, Full, -1, 0)
	}
}

// adjust makes the limiters follow the share.
func (u *Upstream) adjust(now limits.Time) {
	specs, _ := u.config.Load().specs(u.share.Value()) // only smaller than what was checked
	for i, s := range specs {
		u.limiters[i].SetSpec(now, s)
	}
	u.dirty = true
}

// learned makes the limiters follow a share that was changed here, and the others.
func (u *Upstream) learned(now limits.Time) {
	u.adjust(now)
	u.peers.shareNew = true
	u.tell()
}

// Observe is told what the upstream answered to a request that was let pass. A
// signal starts a pause, which is in force and kept when Observe returns, so
// that the caller may be given the answer then. Answers that Tollgate gave itself
// do not count, and an error of the server's neither ends a probe nor lets
// anything be learned.
func (u *Upstream) Observe(now limits.Time, a Answer) {
	if a.header("x-tollgate-reason") != "" {
		return
	}
	c := u.config.Load()
	i := slices.IndexFunc(c.Signals, func(s Signal) bool { return s.fits(&a) })
	fresh := false
	u.mu.Lock()
	until := u.gate.Until()
	u.heardFrom(now)
	switch {
	case i >= 0:
		u.counts.Refused++
		fresh = u.refused(now, &a, c.Signals[i].String())
	case a.Status < 500:
		u.counts.Taken++
		u.taken(now)
	default:
		u.counts.Failed++
	}
	if fresh || i >= 0 && u.gate.Until() > until {
		u.tell()
	}
	u.unlock(now)
	if fresh {
		u.keep(now, false)
	}
}

// heardFrom has the silences of idle_reset begin anew. When a request that was
// let pass reached the upstream is not known, only that it has by the time of
// its answer, and a silence that is too short clears nothing there.
func (u *Upstream) heardFrom(now limits.Time) {
	c := u.config.Load() // under the lock, so that it is that of the limiters
	for i, l := range u.limiters {
		switch lease := l.Lease(); {
		case c.Limits[i].Kind != limits.IdleReset:
		case lease != nil:
			lease.Lender().Touch(now)
		default:
			l.Refund(now, 1) // the count stays, and taking it again breaks the silence
			l.Take(now, 1)
		}
	}
}

// refused starts or prolongs a pause. It reports whether it is a new one.
func (u *Upstream) refused(now limits.Time, a *Answer, reason string) bool {
	probed := u.gate.Phase(now) == pressure.Probing
	fresh := u.gate.Refused(now, a.asked(now), reason)
	u.dirty = true
	if fresh {
		if u.source = a.Source; u.source == "" {
			u.source = "response"
		}
		u.counts.Violations++
		u.incident = incident{seen: u.gauge.look(&u.accepted, now), others: u.peers.seen}
		if !probed { // of a single request that is refused the limit is not the cause
			u.incident.was, u.incident.at = u.share, now
			u.learn(now)
		}
	}
	u.retime(now)
	return fresh
}

// learn lowers the working limit to what the incident shows.
func (u *Upstream) learn(now limits.Time) {
	if u.gauge.count == 0 || u.incident.at == 0 {
		return
	}
	u.share = u.incident.was
	if u.heard {
		u.gauge.lower(&u.share, u.incident.at, u.incident.seen.Plus(u.incident.others))
	} else {
		u.share.Lower(u.incident.at, -1, u.gauge.count)
	}
	u.learned(now)
}

// taken notes that the upstream took a request.
func (u *Upstream) taken(now limits.Time) {
	u.heard = true
	u.accepted.Count(now, 1)
	switch u.gate.Phase(now) {
	case pressure.Frozen:
		// It was on its way when the refusal came: the upstream allows more than it seemed.
		u.incident.seen.Long++
		u.incident.seen.Short++
		u.learn(now)
	case pressure.Probing:
		if u.gate.Taken(now) {
			u.dirty = true
			u.tell()
			u.serve(now)
		}
	}
}

// Reset ends a pause and forgets violations and what was learned: the upstream
// is asked again at once, by all instances.
func (u *Upstream) Reset(now limits.Time) {
	u.mu.Lock()
	u.gate.Reset(now)
	u.forget(now)
	u.peers.ended, u.peers.shareNew = now, false
	u.tell()
	u.serve(now)
	u.unlock(now)
	u.keep(now, false)
}

// forget makes void what was learned.
func (u *Upstream) forget(now limits.Time) {
	u.share, u.incident, u.peers.shareStamp = pressure.Share{}, incident{}, 0
	u.adjust(now)
}

// shift moves everything by a step of the clock.
func (u *Upstream) shift(step time.Duration, now limits.Time) {
	u.mu.Lock()
	defer u.unlock(now)
	u.gate.Shift(step)
	u.share.Shift(step)
	u.told = u.told.Add(step)
	u.peers.shift(step)
	u.expires = now // to be found anew
	for w := range u.line.all() {
		w.arrived, w.deadline = w.arrived.Add(step), w.deadline.Add(step)
	}
	u.dirty = true
}

// unlock sets the timer, and tells after the lock is free what has changed.
func (u *Upstream) unlock(now limits.Time) {
	u.askIfNeeded(now)
	u.arm(now)
	if st := u.state(now); st != u.shown {
		was := u.shown
		u.shown, u.since = st, now
		u.events = append(u.events, Event{At: now, Kind: StateChanged, Was: was, Status: u.status(now)})
	}
	events := u.events
	u.events = nil
	u.mu.Unlock()
	if u.options.Changed == nil {
		return
	}
	for _, e := range events {
		u.options.Changed(e)
	}
}
