package consumers

import (
	"hash/maphash"
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
// anew: it leaves when it was not used for an eighth of the idle period, well
// before it can start a second grace.
type journal struct {
	mu      sync.Mutex
	entered []*grant     // since the last look
	begun   []plainWatch // likewise, of plain tokens
	removed []SavedState // last states of limiters that are gone

	look    sync.Mutex // guards what follows; taken before mu
	watched []*watch
	parked  []parked     // by due
	young   []plainWatch // nothing reported yet
	plain   []plainWatch // parked, by due
	seed    maphash.Seed
}

type watch struct {
	grant  *grant
	last   []limits.State // as reported; before that, as it is of a limiter that nobody used
	told   []bool         // something was reported
	quiet  int            // looks without news
	leaves bool           // the next request enters the grant again; this is its last watch
}

// parked is small, since all that were in use of late are.
type parked struct {
	grant *grant
	seen  uint64      // a digest of the states that were reported
	due   limits.Time // when to look again
}

// quietLooks is after how many looks without news a grant may leave; the
// longest wait of its limits comes on top, at a look a second.
const quietLooks = 5

func (j *journal) add(g *grant) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !g.gone() && g.state.Or(watched)&watched == 0 {
		j.entered = append(j.entered, g)
	}
}

// watch is add for a plain token under some terms, in the seat of a number.
func (j *journal) watch(number uint32, seat *limits.Limiter, t *terms, id, token string) {
	st := stateOf(seat)
	if t.limits[0].Kind == limits.Quota {
		j.add(newGrant(&caller{id: id, terms: t}, token, never, false, []*limits.Limiter{seat}, st))
		return
	}
	w := plainWatch{key: stateKey(scopeToken, id, token, t.slots[0]), seat: number, turn: st.turn()}
	j.mu.Lock()
	defer j.mu.Unlock()
	if st.Or(watched)&watched == 0 {
		j.begun = append(j.begun, w)
	}
}

// remove records the last state of a limiter that is gone; beyond a bound,
// reached only where nobody writes states down, it does not.
func (j *journal) remove(s SavedState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.removed) < maxRemembered {
		j.removed = append(j.removed, s)
	}
}

// follow watches a grant if the one was watched whose place it took.
func (j *journal) follow(g *grant, watched bool) {
	if watched && g.durable() {
		j.add(g)
	}
}

// collect takes what entered since the last look.
func (j *journal) collect(now limits.Time) []SavedState {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, g := range j.entered {
		w := &watch{grant: g, told: make([]bool, len(g.limiters))}
		for _, l := range g.limiters {
			w.last = append(w.last, limits.New(l.Spec(), now).State())
		}
		j.watched = append(j.watched, w)
	}
	for _, w := range j.begun {
		w.due = second(now) + quietLooks
		j.young = append(j.young, w)
	}
	removed := j.removed
	j.entered, j.begun, j.removed = nil, nil, nil
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
	states := j.collect(now)

	kept := j.watched[:0]
	for _, w := range j.watched {
		if w.grant.gone() {
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
			states = w.changes(states, now, idle)
			j.park(w, now, idle)
		default:
			w.leave()
			kept = append(kept, w)
		}
	}
	clear(j.watched[len(kept):])
	j.watched = kept
	states = j.visit(states, now, idle)
	return r.lookAtPlain(states, now, idle)
}

// visit looks at the parked ones that are due. What was used meanwhile is
// reported, so that a restart knows when the token was last in use.
func (j *journal) visit(states []SavedState, now limits.Time, idle time.Duration) []SavedState {
	for len(j.parked) > 0 && j.parked[0].due <= now {
		p := j.parked[0]
		j.parked = j.parked[1:]
		if p.grant.gone() {
			continue
		}
		w := &watch{grant: p.grant}
		for _, l := range p.grant.limiters {
			w.last, w.told = append(w.last, l.State()), append(w.told, true)
		}
		if j.digest(w) == p.seen {
			w.leave()
			j.watched = append(j.watched, w)
			continue
		}
		for i, l := range p.grant.limiters {
			if durable(l.Spec()) {
				states = append(states, saved(now, l, p.grant.stateKey(i), idle))
			}
		}
		j.park(w, now, idle)
	}
	return states
}

// park puts a grant aside for an eighth of the idle period.
func (j *journal) park(w *watch, now limits.Time, idle time.Duration) {
	j.parked = append(j.parked, parked{grant: w.grant, seen: j.digest(w), due: now.Add(idle / 8)})
}

// digest sums up the states that were last reported.
func (j *journal) digest(w *watch) (sum uint64) {
	for i, l := range w.grant.limiters {
		if durable(l.Spec()) {
			sum = sum*31 + maphash.Comparable(j.seed, w.last[i])
		}
	}
	return sum
}

// leave lets the next request enter the grant again. A request that saw the
// flag just before is caught by the looks that remain.
func (w *watch) leave() {
	w.leaves, w.quiet = true, 0
	w.grant.state.And(^uint32(watched))
}

// patience is the number of looks without news after which a grant may leave.
func (w *watch) patience() int {
	var held time.Duration
	for _, l := range w.grant.limiters {
		held = max(held, l.Spec().Limit().MaxWait)
	}
	return quietLooks + int(held/time.Second)
}

// parks reports whether all that the grant's limiters have to tell are graces,
// and these have been reported.
func (w *watch) parks() bool {
	for i, l := range w.grant.limiters {
		if durable(l.Spec()) && (l.Spec().Limit().Kind == limits.Quota || !w.told[i]) {
			return false
		}
	}
	return true
}

// news appends what must be on disk within a second and was not reported: each
// change of a quota, and of a rate the first use, which starts its grace.
func (w *watch) news(states []SavedState, now limits.Time, idle time.Duration) []SavedState {
	for i, l := range w.grant.limiters {
		if durable(l.Spec()) && (l.Spec().Limit().Kind == limits.Quota || !w.told[i]) {
			states = w.change(states, i, l, now, idle)
		}
	}
	return states
}

// changes appends every change of a limiter that must survive a restart.
func (w *watch) changes(states []SavedState, now limits.Time, idle time.Duration) []SavedState {
	for i, l := range w.grant.limiters {
		if durable(l.Spec()) {
			states = w.change(states, i, l, now, idle)
		}
	}
	return states
}

func (w *watch) change(states []SavedState, i int, l *limits.Limiter, now limits.Time, idle time.Duration) []SavedState {
	st := l.State()
	if st == w.last[i] {
		return states
	}
	w.last[i], w.told[i] = st, true
	return append(states, saved(now, l, w.grant.stateKey(i), idle))
}

// Final is [Registry.Unsaved] for a server that stops in order: the state of
// every limiter that is watched, of any kind.
func (r *Registry) Final(now limits.Time) []SavedState {
	j := &r.journal
	j.look.Lock()
	defer j.look.Unlock()
	idle := r.idle()
	states := j.collect(now)
	final := func(g *grant) {
		if g.gone() {
			return
		}
		for i, l := range g.limiters {
			states = append(states, saved(now, l, g.stateKey(i), idle))
		}
	}
	for _, w := range j.watched {
		final(w.grant)
	}
	for _, p := range j.parked {
		final(p.grant)
	}
	for _, all := range [][]plainWatch{j.young, j.plain} {
		for _, w := range all {
			if seat := r.seats.at(w.seat); stateOf(seat).turn() == w.turn {
				states = append(states, saved(now, seat, w.key, idle))
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
