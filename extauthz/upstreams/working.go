package upstreams

import (
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// How a margin is divided: most of it makes the count smaller, for requests that
// the upstream counts and we do not know of; the rest makes the period longer,
// for those that are longer on their way than the ones after them. Together they
// leave a little more than 1 - margin in use.
const (
	marginCount  = 0.80
	marginPeriod = 0.15
)

// measured is the least period that accepted requests are counted over.
const measured = 10 * time.Second

// working returns the limit that is kept: the configured one less its margin,
// and of that the share that the upstream proved to allow.
func (l *Limit) working(share float64) limits.Limit {
	w := l.Limit
	switch w.Kind {
	case limits.Quota:
		w.N = int64(math.Floor(float64(w.N)*(1-l.Margin) + rounding))
	case limits.Rate, limits.Pace, limits.SmoothBursty, limits.SmoothWarmingUp:
		part := (1 - l.Margin) * share
		if w.Kind == limits.Rate {
			burst := float64(w.Burst)
			if w.Burst == 0 { // a second's worth, as limits has it
				burst = float64(w.N) / w.Period.Seconds()
			}
			w.Burst = max(1, int64(burst*part+rounding))
		}
		w.Period = stretch(w.Period, 1/part)
	default:
		w.N, w.Period = l.counted(share)
	}
	return w
}

// Kept returns the limit that is kept while nothing else was learned: the
// configured one less its margin.
func (l *Limit) Kept() limits.Limit { return l.working(1) }

// rounding lets what is whole but for the last bit be whole.
const rounding = 1e-6

// counted returns count and period of a kind that counts in a period. What a
// small count cannot give up is made up for by a longer period.
func (l *Limit) counted(share float64) (int64, time.Duration) {
	exact := float64(l.N) * (1 - marginCount*l.Margin) * share
	n := min(l.N, max(1, int64(exact+rounding)))
	longer := 1 + marginPeriod*l.Margin
	if exact > 0 && float64(n) > exact {
		longer *= float64(n) / exact
	}
	return n, stretch(l.Period, longer)
}

func stretch(d time.Duration, by float64) time.Duration {
	return time.Duration(math.Ceil(min(float64(d)*by, 1<<59)))
}

// learns reports whether the limit is of a kind that refusals say something about.
func (l *Limit) learns() bool { return l.Kind != limits.Quota && l.N > 0 }

// gauge says how what the upstream took is compared with a limit: over which
// period, and how many the limit allows then. A limit that lets some come at
// once allows so many within a shorter one.
type gauge struct {
	period time.Duration
	count  int64 // 0: no limit can learn

	short time.Duration // 0: none
	burst int64
}

// gauge returns that of the first limit that can learn.
func (c *Config) gauge() gauge {
	for i := range c.Limits {
		l := &c.Limits[i]
		if !l.learns() {
			continue
		}
		w := l.working(1)
		if w.Kind != limits.Rate && w.Kind != limits.Pace {
			return gauge{period: w.Period, count: w.N}
		}
		g := gauge{period: max(w.Period, measured)}
		in := func(d time.Duration) int64 {
			return max(1, int64(float64(w.N)*float64(d)/float64(w.Period)+rounding))
		}
		g.count = in(g.period)
		if g.burst = w.Burst; g.burst == 0 {
			g.burst = in(time.Second)
		}
		g.short = time.Duration(float64(w.Period) * float64(g.burst) / float64(w.N))
		return g
	}
	return gauge{period: measured}
}

// look returns what the upstream took lately.
func (g *gauge) look(m *pressure.Meter, now limits.Time) pressure.Seen {
	s := pressure.Seen{Long: m.Sum(now), Short: m.Last(now, g.short)}
	s.Whole = g.short == 0 || s.Long > m.Last(now, g.period/2)
	return s
}

// lower lowers a share to what was seen.
func (g *gauge) lower(share *pressure.Share, now limits.Time, s pressure.Seen) {
	accepted, count := s.Long, g.count
	if !s.Whole || g.short > 0 && s.Short*g.count < s.Long*g.burst {
		accepted, count = s.Short, g.burst
	}
	share.Lower(now, accepted, count)
}

// specs compiles what is kept of each limit.
func (c *Config) specs(share float64) ([]*limits.Spec, error) {
	specs := make([]*limits.Spec, len(c.Limits))
	for i := range c.Limits {
		w := c.Limits[i].working(share)
		if w.Name == "" {
			// The name is that of the configured limit, not of what is left of it.
			named, err := limits.Compile(c.Limits[i].Limit)
			if err != nil {
				return nil, err
			}
			w.Name = named.Limit().Name
		}
		var err error
		if specs[i], err = limits.Compile(w); err != nil {
			return nil, err
		}
	}
	return specs, nil
}

// Check reports what is wrong with the limits.
func (c *Config) Check() error {
	_, err := c.specs(1)
	return err
}

// interval returns how far apart requests are in the long run, 0 if nothing says so.
func (c *Config) interval(share *pressure.Share) time.Duration {
	var longest time.Duration
	for i := range c.Limits {
		if l := &c.Limits[i]; l.learns() {
			w := l.working(share.Value())
			longest = max(longest, w.Period/time.Duration(max(w.N, 1)))
		}
	}
	return longest
}
