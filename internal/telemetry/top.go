package telemetry

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollgate-dev/tollgate/extauthz"
)

const topShards = 64

// outcomes are all that a decision can come to.
var outcomes = [...]extauthz.Outcome{
	extauthz.Admitted, extauthz.Throttled, extauthz.Unauthenticated,
	extauthz.Forbidden, extauthz.Shadowed, extauthz.Failed,
}

// Top counts the decisions of the busiest consumers in bounded memory. It is a
// space-saving sketch in the form of Misra and Gries, which holds the same
// (Agarwal et al., Mergeable Summaries, 2012) and leaves the counts of those it
// tracks exact from the moment it began to: whoever makes more than one in
// capacity of the requests is tracked, and Decay lets those go who were busy
// once. Safe for concurrent use.
type Top struct {
	shown  atomic.Int64 // how many have metrics of their own
	seed   maphash.Seed
	shards [topShards]topShard
	desc   *prometheus.Desc
}

type topShard struct {
	mu     sync.RWMutex
	counts map[string]*counts
	max    int
	floor  uint64 // requests of consumers who were not tracked
	least  uint64 // no weight is below it
}

// counts are one consumer's decisions. Its weight is its requests since it was
// tracked, halved by each Decay, plus the floor at that time.
type counts struct {
	by     [len(outcomes)]atomic.Uint64
	passed uint64 // requests that weigh no more; guarded by the shard's mu
	start  uint64
}

func (c *counts) total() uint64 {
	var n uint64
	for i := range c.by {
		n += c.by[i].Load()
	}
	return n
}

func (c *counts) weight() uint64 { return c.total() - c.passed + c.start }

// Tally is what one consumer's requests came to.
type Tally struct {
	Consumer string `json:"consumer"`
	Admitted uint64 `json:"admitted"`
	Refused  uint64 `json:"refused"`
}

// NewTop returns a Top that shows so many consumers in metrics and tracks some
// times as many.
func NewTop(shown int) *Top {
	t := &Top{seed: maphash.MakeSeed()}
	t.desc = prometheus.NewDesc("consumer_decisions_total",
		"Decisions of the busiest consumers (telemetry.top_consumers), by outcome.", []string{"consumer", "outcome"}, nil)
	t.Show(shown)
	for i := range t.shards {
		t.shards[i] = topShard{counts: map[string]*counts{}, max: max(32, 8*shown/topShards)}
	}
	return t
}

// Show changes how many consumers have metrics of their own.
func (t *Top) Show(n int) { t.shown.Store(int64(n)) }

func (t *Top) count(e *extauthz.Event) {
	if e.Consumer == "" {
		return
	}
	i := slices.Index(outcomes[:], e.Outcome)
	if i < 0 {
		return
	}
	s := &t.shards[maphash.String(t.seed, e.Consumer)%topShards]
	s.mu.RLock()
	c := s.counts[e.Consumer]
	s.mu.RUnlock()
	if c == nil {
		if c = s.track(e.Consumer); c == nil {
			return
		}
	}
	c.by[i].Add(1)
}

// track makes room for a consumer, or lowers the bar for the next one.
func (s *topShard) track(consumer string) *counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.counts[consumer]; c != nil {
		return c
	}
	if len(s.counts) >= s.max {
		if s.floor++; s.floor > s.least {
			s.sweep()
		}
		return nil
	}
	c := &counts{start: s.floor}
	s.counts[consumer] = c
	s.least = min(s.least, c.start)
	return c
}

// sweep drops whoever weighs no more than the floor.
func (s *topShard) sweep() {
	s.least = ^uint64(0)
	for consumer, c := range s.counts {
		if w := c.weight(); w <= s.floor {
			delete(s.counts, consumer)
		} else {
			s.least = min(s.least, w)
		}
	}
}

// Decay halves every weight, so that the busiest are those of late. The counts
// stay. Call it about once a minute.
func (t *Top) Decay() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, c := range s.counts {
			own := c.total() - c.passed
			c.passed += own - own/2
			c.start /= 2
		}
		s.floor /= 2
		s.least = 0
		s.mu.Unlock()
	}
}

// ranked is a tracked consumer.
type ranked struct {
	consumer string
	weight   uint64
	counts   *counts
}

func (t *Top) tracked() []ranked {
	var all []ranked
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for consumer, c := range s.counts {
			all = append(all, ranked{consumer, c.weight(), c})
		}
		s.mu.RUnlock()
	}
	return all
}

// Busiest returns the n consumers who were admitted most, most first.
func (t *Top) Busiest(n int) []Tally {
	return t.tallies(n, func(a Tally) uint64 { return a.Admitted })
}

// MostRefused returns the n consumers who were refused most, most first.
func (t *Top) MostRefused(n int) []Tally {
	return t.tallies(n, func(a Tally) uint64 { return a.Refused })
}

func (t *Top) tallies(n int, by func(Tally) uint64) []Tally {
	tallies := []Tally{}
	for _, r := range t.tracked() {
		a := Tally{Consumer: r.consumer}
		for i, outcome := range outcomes {
			if outcome == extauthz.Admitted || outcome == extauthz.Shadowed {
				a.Admitted += r.counts.by[i].Load()
			} else if outcome != extauthz.Failed {
				a.Refused += r.counts.by[i].Load()
			}
		}
		tallies = append(tallies, a)
	}
	slices.SortFunc(tallies, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(by(b), by(a)), cmp.Compare(a.Consumer, b.Consumer))
	})
	return tallies[:min(n, len(tallies))]
}

// Describe is prometheus.Collector.
func (t *Top) Describe(ch chan<- *prometheus.Desc) { ch <- t.desc }

// Collect is prometheus.Collector.
func (t *Top) Collect(ch chan<- prometheus.Metric) {
	all := t.tracked()
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.consumer, b.consumer))
	})
	for _, r := range all[:min(len(all), int(t.shown.Load()))] {
		for i, outcome := range outcomes {
			if n := r.counts.by[i].Load(); n > 0 {
				ch <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(n), r.consumer, string(outcome))
			}
		}
	}
}
