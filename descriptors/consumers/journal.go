package consumers

import (
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// journal knows which limiters may have something new to write down, so that
// looking for it costs what is in use and not what is known.
//
// A grant enters with a request. While its quotas change it is looked at every
// time. Once it has been quiet for longer than a request can be held, it leaves,
// and the next request enters it again. One whose only news is the start of a
// grace is parked instead, or each of its requests would report the same start
// anew: it leaves when it was not used for a quarter of the idle period, well
// before it can start a second grace.
type journal struct {
	mu      sync.Mutex
	entered []*Grant     // since the last look
	removed []SavedState // last states of limiters that are gone

	look    sync.Mutex // guards what follows; taken before mu
	watched []*watched
	parked  []*watched // by due
}

type watched struct {
	grant  *Grant
	last   []limits.State // as reported, or when parked as seen
	grace  []limits.Time  // as reported
	quiet  int            // looks without news
	leaves bool           // the next request enters the grant again; this is its last watch
	due    limits.Time    // of a parked one: when to look again
}

// quietLooks is after how many looks without news a grant may leave; the
// longest wait of its limits comes on top, at a look a second.
const quietLooks = 5

func (j *journal) add(g *Grant) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if g.active.CompareAndSwap(false, true) {
		j.entered = append(j.entered, g)
	}
}

// remove records the last state of a limiter that is gone.
func (j *journal) remove(s SavedState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.removed = append(j.removed, s)
}

// replace watches a grant in place of others with the same limiters; g is nil
// where they are gone.
func (j *journal) replace(g *Grant, old ...*Grant) {
	for _, o := range old {
		o.gone.Store(true)
		if g != nil && g.durable && o.active.Load() {
			j.add(g)
		}
	}
}

// collect takes what entered since the last look.
func (j *journal) collect() []SavedState {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, g := range j.entered {
		n := len(g.Limiters)
		j.watched = append(j.watched, &watched{grant: g, last: make([]limits.State, n), grace: make([]limits.Time, n)})
	}
	removed := j.removed
	j.entered, j.removed = nil, nil
	return removed
}

// Unsaved returns what limiters must remember over a restart and have not
// reported yet: quotas and starts of a grace. It is meant to be called once a
// second, by whoever writes it down; what could not be written is for the
// caller to keep.
func (r *Registry) Unsaved(now limits.Time) []SavedState {
	j := &r.journal
	j.look.Lock()
	defer j.look.Unlock()
	idle := r.idle()
	states := j.collect()

	kept := j.watched[:0]
	for _, w := range j.watched {
		if w.grant.gone.Load() {
			continue
		}
		n := len(states)
		states = w.news(states, now, idle)
		if w.quiet++; len(states) > n {
			w.quiet = 0
		}
		switch {
		case w.quiet < w.patience():
			kept = append(kept, w)
		case w.leaves:
		case w.parks():
			j.park(w, now, idle)
		default:
			w.leave()
			kept = append(kept, w)
		}
	}
	clear(j.watched[len(kept):])
	j.watched = kept
	return j.visit(states, now, idle)
}

// visit looks at the parked ones that are due.
func (j *journal) visit(states []SavedState, now limits.Time, idle time.Duration) []SavedState {
	for len(j.parked) > 0 && j.parked[0].due <= now {
		w := j.parked[0]
		j.parked = j.parked[1:]
		if w.grant.gone.Load() {
			continue
		}
		states = w.news(states, now, idle)
		used := false
		for i, l := range w.grant.Limiters {
			used = used || l.State() != w.last[i]
		}
		if used {
			j.park(w, now, idle)
			continue
		}
		w.leave()
		j.watched = append(j.watched, w)
	}
	return states
}

func (j *journal) park(w *watched, now limits.Time, idle time.Duration) {
	for i, l := range w.grant.Limiters {
		w.last[i] = l.State()
	}
	w.due = now.Add(idle / 4)
	j.parked = append(j.parked, w)
}

// leave lets the next request enter the grant again. A request that saw the
// flag just before is caught by the looks that remain.
func (w *watched) leave() {
	w.leaves, w.quiet = true, 0
	w.grant.active.Store(false)
}

// patience is the number of looks without news after which a grant may leave.
func (w *watched) patience() int {
	var held time.Duration
	for _, l := range w.grant.Limiters {
		held = max(held, l.Spec().Limit().MaxWait)
	}
	return quietLooks + int(held/time.Second)
}

// parks reports whether all that the grant's limiters have to tell is a grace
// that has been reported.
func (w *watched) parks() bool {
	for i, l := range w.grant.Limiters {
		switch spec := l.Spec().Limit(); {
		case spec.Kind == limits.Quota:
			return false
		case spec.WarmUp.Grace > 0 && w.grace[i] == 0:
			return false
		}
	}
	return true
}

// news appends what the grant's limiters have not told yet.
func (w *watched) news(states []SavedState, now limits.Time, idle time.Duration) []SavedState {
	for i, l := range w.grant.Limiters {
		switch spec := l.Spec().Limit(); {
		case spec.Kind == limits.Quota:
			st := l.State()
			if st == w.last[i] {
				continue
			}
			w.last[i] = st
		case spec.WarmUp.Grace > 0:
			start := l.GraceStart()
			if start == w.grace[i] {
				continue
			}
			w.grace[i] = start
		default:
			continue
		}
		states = append(states, saved(now, l, w.grant.stateKey(i), idle))
	}
	return states
}

// Final is [Registry.Unsaved] for a server that stops in order: the state of
// every limiter that is watched, of any kind.
func (r *Registry) Final(now limits.Time) []SavedState {
	j := &r.journal
	j.look.Lock()
	defer j.look.Unlock()
	idle := r.idle()
	states := j.collect()
	for _, list := range [][]*watched{j.watched, j.parked} {
		for _, w := range list {
			if w.grant.gone.Load() {
				continue
			}
			for i, l := range w.grant.Limiters {
				states = append(states, saved(now, l, w.grant.stateKey(i), idle))
			}
		}
	}
	return states
}

// Recall tells a registry what limiters remembered before the restart. Call it
// before the first request.
func (r *Registry) Recall(states []SavedState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range states {
		r.memory.states[s.Key] = s
	}
	r.memory.max = max(r.memory.max, len(r.memory.states)+maxRemembered)
}

func (r *Registry) idle() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.options.Idle
}

// saved is a limiter's state with the time at which it is as good as new, its
// grace included.
func saved(now limits.Time, l *limits.Limiter, k StateKey, idle time.Duration) SavedState {
	return SavedState{Key: k, State: l.State(), Until: now.Add(max(idle, l.Peek(now, 1).Reset))}
}
