package pressure

import (
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Share is how much of a configured limit is used: the working limit is the
// configured one times it. It goes down when the upstream refuses what it was
// thought to allow, and comes back slowly. The zero value uses all.
type Share struct {
	less    float64     // 1 - share
	changed limits.Time // when it last went down or up
	times   int         // how often it went down without having come back to all
}

// What was accepted in the last period before a refusal, less a margin, becomes
// the working limit; at least a tenth less than it was, at most half.
const (
	keepAccepted = 0.92
	keepUnknown  = 0.75 // of the working limit, where nobody knows what was accepted
	keepMost     = 0.9
	keepLeast    = 0.5
	leastShare   = 0.05 // of the configured limit, however often the upstream refuses

	raiseBy   = 0.01 // of the configured limit
	raiseEach = time.Minute
	holdMost  = 24 * time.Hour
)

// Value returns the share, above 0 and at most 1.
func (s *Share) Value() float64 { return 1 - s.less }

// Lower notes a refusal that came though at most the working limit was used.
// accepted is how many requests the upstream took in the last period, below 0 if
// nobody knows, and limit how many are configured.
func (s *Share) Lower(now limits.Time, accepted, limit int64) {
	was := s.Value()
	is := was * keepUnknown
	if accepted >= 0 && limit > 0 {
		is = keepAccepted * float64(accepted) / float64(limit)
	}
	is = max(min(max(is, was*keepLeast), was*keepMost), leastShare)
	s.less, s.changed = 1-is, now
	s.times++
}

// Raise lets the share come back: after hold without a change, twice as long for
// each time that it went down again, by a hundredth a minute. It reports whether it did.
func (s *Share) Raise(now limits.Time, hold time.Duration) bool {
	if s.less == 0 {
		return false
	}
	for range s.times - 1 {
		if hold = min(2*hold, holdMost); hold == holdMost {
			break
		}
	}
	steps := float64((now.Sub(s.changed) - hold) / raiseEach)
	if steps < 1 {
		return false
	}
	// The hold stays behind now, so that the next step is a minute away.
	s.changed = now.Add(-hold)
	if s.less -= steps * raiseBy; s.less < raiseBy/2 {
		*s = Share{}
	}
	return true
}

// SavedShare is a Share as a plain value.
type SavedShare struct {
	Value   float64     `json:"value"`
	Changed limits.Time `json:"changed"`
	Times   int         `json:"times"`
}

// State returns what to keep.
func (s *Share) State() SavedShare { return SavedShare{s.Value(), s.changed, s.times} }

// Restore makes s what was kept; what cannot be meant uses all.
func (s *Share) Restore(st SavedShare) {
	*s = Share{}
	if st.Value > 0 && st.Value < 1 {
		*s = Share{less: 1 - st.Value, changed: st.Changed, times: max(st.Times, 1)}
	}
}

// Merge makes s what another instance has learned, and reports whether that
// changes the share.
func (s *Share) Merge(now limits.Time, st SavedShare) bool {
	was := s.Value()
	st.Value, st.Changed = max(st.Value, leastShare), min(st.Changed, now)
	s.Restore(st)
	return s.Value() != was
}

// Shift moves everything by a step of the clock.
func (s *Share) Shift(step time.Duration) {
	if s.changed != 0 {
		s.changed = s.changed.Add(step)
	}
}
