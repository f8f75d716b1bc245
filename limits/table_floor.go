package limits

import (
	"math"
)

// floor is what was used of limiters that a shard had to forget: the merge of
// their states. It is dropped once every one of them would be full again.
type floor struct {
	state   State
	until   Time
	carried *Spec // the spec that took it over when the limit changed
}

// floorKey tells apart how limits count, not specs: a reload that compiles the
// same limit anew must find the floor again.
type floorKey struct {
	limit Limit
	zone  string
	group string
}

// maxFloors bounds the floors of a shard. Limits and groups come from
// configuration, so it takes a configuration with more than that, all under
// pressure at once, before groups of the same limit share a floor, and one with
// more limits before the floor that would be dropped soonest is dropped too early.
const maxFloors = 256

func (s *Spec) floorKey() floorKey { return floorKey{s.limit.counting(), s.limit.zone(), s.group} }

// plantWarm makes l, in place, a limiter that nobody has used and whose warm-up is
// over: a grace that a table could forget could be had again and again.
func (l *Limiter) plantWarm(s *Spec, now Time) {
	if _, ok := s.engine.(*warming); ok {
		l.Restore(s, now, State{Kind: s.limit.Kind, A: unused})
		return
	}
	l.Init(s, now)
}

// floor returns the state that a new key of s starts from, if not from full.
func (sh *shard) floor(now Time, s *Spec) (State, bool) {
	if len(sh.floors) == 0 {
		return State{}, false
	}
	k := s.floorKey()
	st, ok := sh.floorAt(now, k)
	if k.group == "" {
		return st, ok
	}
	k.group = ""
	switch all, shared := sh.floorAt(now, k); {
	case !shared:
		return st, ok
	case !ok:
		return all, true
	default:
		return s.merge(now, st, all), true
	}
}

func (sh *shard) floorAt(now Time, k floorKey) (State, bool) {
	f := sh.floors[k]
	if f == nil || f.until <= now {
		return State{}, false
	}
	return f.state, true
}

// peekFloor answers what a new key of s would find; without a floor, more than
// any limiter has.
func (sh *shard) peekFloor(now Time, s *Spec) Decision {
	st, ok := sh.floor(now, s)
	if !ok {
		return Decision{Remaining: math.MaxInt64}
	}
	return Restore(s, now, st).Peek(now, 1)
}

// forget removes e and keeps what was used of it in the floor of its spec.
func (sh *shard) forget(now Time, e *entry) {
	// First out of sight, then read: takes before the read are not lost.
	sh.remove(e)
	s := e.limiter.Spec()
	if e.limiter.Lease() != nil {
		return // its store remembers
	}
	if lasts := e.limiter.Peek(now, 1).Reset; lasts > 0 {
		sh.lower(now, s, e.limiter.State(), now.Add(lasts))
	}
}

// lower merges st into the floor of s.
func (sh *shard) lower(now Time, s *Spec, st State, until Time) {
	k := s.floorKey()
	f := sh.floors[k]
	if f == nil && len(sh.floors) >= maxFloors {
		if sh.expireFloors(now); len(sh.floors) >= maxFloors {
			k.group = ""
			f = sh.floors[k]
		}
	}
	if f != nil && f.until > now {
		f.state = s.merge(now, f.state, st)
		f.until = max(f.until, until)
		f.carried = nil
		return
	}
	if sh.floors == nil {
		sh.floors = make(map[floorKey]*floor)
	}
	if f == nil && len(sh.floors) >= maxFloors {
		sh.dropFloor()
	}
	sh.floors[k] = &floor{state: st, until: until}
}

func (sh *shard) dropFloor() {
	var first floorKey
	var until Time
	for k, f := range sh.floors {
		if until == 0 || f.until < until {
			first, until = k, f.until
		}
	}
	delete(sh.floors, first)
}

func (sh *shard) expireFloors(now Time) {
	for k, f := range sh.floors {
		if f.until <= now {
			delete(sh.floors, k)
		}
	}
}

// respec carries the floor of a limit over to the one that replaces it, as
// [Limiter.SetSpec] does with a limiter.
func (sh *shard) respec(now Time, from, to *Spec) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(sh.floors) == 0 {
		return
	}
	f := sh.floors[from.floorKey()]
	if f == nil || f.until <= now || f.carried == to || from.floorKey() == to.floorKey() {
		return
	}
	l := Restore(from, now, f.state)
	l.SetSpec(now, to)
	lasts := max(l.Peek(now, 1).Reset, f.until.Sub(now))
	sh.lower(now, to, l.State(), now.Add(lasts))
	f.carried = to
}
