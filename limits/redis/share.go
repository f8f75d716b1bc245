package redis

import (
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// shareOf returns a limit that many instances may apply each for itself, and
// together stay within s.
func shareOf(s *limits.Spec, instances int) *limits.Spec {
	l := s.Limit()
	if n := int64(instances); n > 1 {
		switch l.Kind {
		case limits.Rate, limits.Pace:
			// An interval that is longer is exact where a smaller number is not.
			l.Period, l.Burst = l.Period*time.Duration(n), max(1, l.Burst/n)
		case limits.Quota:
			l.N /= n
		default:
			if l.N < n {
				l.Period = l.Period * time.Duration((n+l.N-1)/max(l.N, 1))
			}
			l.N = max(l.N/n, min(l.N, 1))
		}
	}
	part, err := limits.Compile(l)
	if err != nil {
		return s // the period would be longer than any may be: the limit is as good as 0 already
	}
	return part
}

// newShare makes the limiter of this instance's share. If Redis was heard
// before, it begins with a share of what was left then; else with what this
// instance remembers.
func newShare(now limits.Time, s, part *limits.Spec, instances int64, heard bool, rest int64, st limits.State) *limits.Limiter {
	if !heard {
		return limits.Restore(part, now, st)
	}
	l := limits.Restore(part, now, limits.State{Kind: s.Limit().Kind, A: unused})
	has := part.Capacity()
	if used := has - min(has, rest/instances); used > 0 {
		l.Take(now, used)
	}
	own := limits.Restore(part, now, l.State())
	return own
}
