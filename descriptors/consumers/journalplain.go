package consumers

import (
	"hash/maphash"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// plainWatch is a plain token that is watched for its grace, whose start is
// reported at the next look; then it is parked. It is small and has no pointers,
// since all tokens that were in use of late have one.
type plainWatch struct {
	key  StateKey
	seat uint32
	turn uint32 // the seat's: another one, another token
	seen uint32 // digest of the state that was reported, or one of the following
	due  uint32 // the second in which to look again, or while nothing was reported, to give up
}

// What plainWatch.seen is while nothing was reported.
const (
	unseen  = iota
	leaving // the next request enters the token again
	seen    // the least digest
)

// second is an instant as plainWatch has it. Differences are right over 68 years.
func second(t limits.Time) uint32 { return uint32(int64(t) / int64(time.Second)) }

func isDue(due uint32, now limits.Time) bool { return int32(second(now)-due) >= 0 }

// lookAtPlain appends what plain tokens have to tell: those that nothing was
// reported of yet, and the parked ones that are due.
func (r *Registry) lookAtPlain(states []SavedState, now limits.Time, idle time.Duration) []SavedState {
	j := &r.journal
	later := second(now) + 1 + uint32(idle/8/time.Second)
	young := j.young
	j.young = nil
	var like *limits.Spec
	var unused limits.State // of a limiter that is like that
	for _, w := range young {
		seat := r.seats.at(w.seat)
		st, spec := stateOf(seat), seat.Spec()
		if st.turn() != w.turn {
			continue
		}
		if !durable(spec) {
			st.And(^uint32(watched))
			continue
		}
		if spec != like {
			like, unused = spec, limits.New(spec, now).State()
		}
		if seat.State() != unused {
			if w.seen == leaving && st.Or(watched)&watched != 0 {
				continue // entered again
			}
			states = append(states, j.parkPlain(w, seat, now, later, idle))
			continue
		}
		// A request that saw the flag just before it goes is caught by the looks that remain.
		if isDue(w.due+uint32(spec.Limit().MaxWait/time.Second), now) {
			if w.seen == leaving {
				continue
			}
			st.And(^uint32(watched))
			w.seen, w.due = leaving, second(now)+quietLooks
		}
		j.young = append(j.young, w)
	}
	for len(j.plain) > 0 && isDue(j.plain[0].due, now) {
		w := j.plain[0]
		j.plain = j.plain[1:]
		seat := r.seats.at(w.seat)
		switch st := stateOf(seat); {
		case st.turn() != w.turn:
		case j.digestOf(seat) == w.seen || !durable(seat.Spec()):
			st.And(^uint32(watched))
		default:
			states = append(states, j.parkPlain(w, seat, now, later, idle))
		}
	}
	return states
}

// parkPlain puts a token aside until later, and returns its state to be reported.
func (j *journal) parkPlain(w plainWatch, seat *limits.Limiter, now limits.Time, later uint32, idle time.Duration) SavedState {
	w.seen, w.due = j.digestOf(seat), later
	j.plain = append(j.plain, w)
	return saved(now, seat, w.key, idle)
}

func (j *journal) digestOf(seat *limits.Limiter) uint32 {
	return max(uint32(maphash.Comparable(j.seed, seat.State())), seen)
}
