package upstreams

import (
	"iter"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// line is who waits for an upstream. Each caller's requests keep their order,
// and callers take turns, so that one with many requests delays another by one.
type line struct {
	callers map[string]*caller
	turns   []*caller // whose turn comes first; each has someone waiting
	len     int
}

type caller struct {
	name    string
	waiting []*waiter
	cost    int64 // of all of them
}

// waiter is a request that is held.
type waiter struct {
	Request
	caller   *caller
	arrived  limits.Time
	deadline limits.Time // of the one who asks
	done     chan struct{}
	verdict  Verdict     // once done is closed
	passed   limits.Time // when it was let pass
}

// add lets w wait.
func (l *line) add(w *waiter) {
	c := l.callers[w.Caller]
	if c == nil {
		c = &caller{name: w.Caller}
		if l.callers == nil {
			l.callers = map[string]*caller{}
		}
		l.callers[c.name] = c
		l.turns = append(l.turns, c)
	}
	w.caller = c
	c.waiting = append(c.waiting, w)
	c.cost += w.Cost
	l.len++
}

// first returns whose turn it is, nil if nobody waits.
func (l *line) first() *waiter {
	if len(l.turns) == 0 {
		return nil
	}
	return l.turns[0].waiting[0]
}

// served takes the first out, and the next caller has its turn.
func (l *line) served() {
	c := l.turns[0]
	l.remove(c.waiting[0])
	if len(c.waiting) > 0 {
		l.turns = append(slices.Delete(l.turns, 0, 1), c)
	}
}

// remove takes w out.
func (l *line) remove(w *waiter) {
	c := w.caller
	w.caller = nil
	i := slices.Index(c.waiting, w)
	c.waiting = slices.Delete(c.waiting, i, i+1)
	c.cost -= w.Cost
	l.len--
	if len(c.waiting) == 0 {
		delete(l.callers, c.name)
		l.turns = slices.DeleteFunc(l.turns, func(o *caller) bool { return o == c })
	}
}

// before returns what those want together who would go before a newcomer.
func (l *line) before(name string) int64 {
	own := 0
	if c := l.callers[name]; c != nil {
		own = len(c.waiting)
	}
	var cost int64
	for _, c := range l.turns {
		n := own + 1
		if c.name == name {
			n = own
		}
		if n >= len(c.waiting) {
			cost += c.cost
			continue
		}
		for _, w := range c.waiting[:n] {
			cost += w.Cost
		}
	}
	return cost
}

// crowder returns the last request of the caller with the most, if it has so
// many that a newcomer of that name should have its place; else nil.
func (l *line) crowder(name string) *waiter {
	most, own := &caller{}, 0
	for _, c := range l.turns {
		if c.name == name {
			own = len(c.waiting)
		}
		if len(c.waiting) > len(most.waiting) {
			most = c
		}
	}
	if len(most.waiting) <= own+1 {
		return nil
	}
	return most.waiting[len(most.waiting)-1]
}

// all returns who waits, in the order of their turns. It stands the removal of
// those that it has returned.
func (l *line) all() iter.Seq[*waiter] {
	rows := make([][]*waiter, len(l.turns))
	for i, c := range l.turns {
		rows[i] = slices.Clone(c.waiting)
	}
	return func(yield func(*waiter) bool) {
		for round := 0; ; round++ {
			any := false
			for _, row := range rows {
				if round < len(row) {
					any = true
					if !yield(row[round]) {
						return
					}
				}
			}
			if !any {
				return
			}
		}
	}
}

// patience returns how long w may go on waiting for a limit that lets it wait
// as long as most.
func (w *waiter) patience(now limits.Time, most time.Duration) time.Duration {
	return min(w.arrived.Add(most).Sub(now), w.deadline.Sub(now)-1)
}
