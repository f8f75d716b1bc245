package embedded

import (
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// lasting is the period from which on a limit's use is kept over restarts. What
// a shorter one forgets, a restart takes about as long to forget.
const lasting = time.Minute

// maxCounters bounds the counters in the file, which callers can make new keys
// for. Beyond it the use of keys that are not there yet is not kept, until
// others have lapsed.
const maxCounters = 500_000

// countersAtOnce bounds the counters that are written with a flush: each of them
// may cost a page, and callers choose how many they use. Where more are in use
// than that, a kill costs those that were not written yet more than a second.
const countersAtOnce = 5000

// RememberTable is Remember for the limiters of a table whose periods are a
// minute or longer. Keys are in the file as hashes.
func (db *DB) RememberTable(t *limits.Table) error {
	states, err := db.counters.read(db)
	if err != nil {
		return err
	}
	recalled := make(map[limits.KeyHash]limits.Recalled, len(states))
	for _, s := range states {
		recalled[limits.KeyHash(s.Key)] = limits.Recalled{State: s.State, Until: s.Until}
	}
	t.Recall(recalled)
	db.counters.begin(func(now limits.Time, last bool) []consumers.SavedState {
		if last {
			return used(t, now, math.MaxInt)
		}
		return used(t, now, countersAtOnce)
	})
	return nil
}

// used returns what is to be kept of limiters that were used and not told yet.
func used(t *limits.Table, now limits.Time, most int) (states []consumers.SavedState) {
	t.Used(now, most, func(name limits.KeyHash, l *limits.Limiter) {
		if o := l.Spec().Limit(); o.Kind != limits.Quota && o.Period < lasting {
			return
		}
		if lasts := l.Peek(now, 1).Reset; lasts > 0 {
			states = append(states, consumers.SavedState{Key: consumers.StateKey(name), State: l.State(), Until: now.Add(lasts)})
		}
	})
	return states
}
