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

const topShards = 16

// Top counts the decisions of the busiest consumers in bounded memory, by a
// space-saving sketch (Metwally, Agrawal, El Abbadi: Efficient Computation of
// Frequent and Top-k Elements in Data Streams, 2005) with a filter before it
// (Homem, Carvalho: Finding top-k elements in data streams, 2010) in each shard
// of the consumers. Who is not tracked is counted in a cell of the filter, with
// others, until that has come to the least weight that is tracked; then it takes
// the place of who has that weight, and inherits it as the error that its own may
// have. So, of n requests in a shard that tracks m consumers, n and all weights
// halved by each Decay,
//
//   - a weight is never less than the requests of its consumer, and too much
//     by its error at most, which is at most n/m;
//   - whoever made more than n/m of the requests is tracked;
//   - of many consumers who call about as often, few take another's place: nearly
//     all of their requests are one addition in the filter.
//
// It is our own because Go's libraries for it (go-topk, topk, datasketches-go)
// are not made for many goroutines, count one number a consumer where outcomes
// must be told apart, and give estimates where a Prometheus counter must never
// go down: what is told here is exact from the moment that a consumer is
// tracked. Safe for concurrent use.
type Top struct {
	shown  atomic.Int64 // how many have metrics of their own
	seed   maphash.Seed
	shards [topShards]topShard
	desc   *prometheus.Desc
}

type topShard struct {
	mu     sync.Mutex
	counts map[uint64]*counts // by hash; of two consumers with one, the first is counted
	heap   []*counts          // the one whose order is least comes first
	max    int
	filter []uint64 // what each cell's untracked consumers made at most; never above the least weight
	_      [64]byte // the next one's cache line is another
}

// counts are a tracked consumer's decisions.
type counts struct {
	consumer string
	hash     uint64
	by       [len(outcomes)]uint64 // since it is tracked
	weight   uint64                // the sketch's count
	excess   uint64                // how much too high that may be
	order    uint64                // weight when it was last put in its place; since then it may have grown

	last lastBurst // not guarded; of whoever was tracked here before it may be too
}

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
		s := &t.shards[i]
		s.counts, s.max = map[uint64]*counts{}, max(128, 8*shown/topShards)
		s.filter = make([]uint64, filtered*s.max)
	}
	return t
}

// filtered is the number of the filter's cells for each consumer that can be
// tracked. Where all call alike, one request in so many changes who is.
const filtered = 8

// Show changes how many consumers have metrics of their own.
func (t *Top) Show(n int) { t.shown.Store(int64(n)) }

// count takes a decision in, and returns where the last burst of refusals of
// its consumer is remembered, nil if it has none or is not tracked.
func (t *Top) count(e *extauthz.Event) *lastBurst {
	i := slices.Index(outcomes[:], e.Outcome)
	if i < 0 || e.Consumer == "" {
		return nil
	}
	h := maphash.String(t.seed, e.Consumer)
	s := &t.shards[h%topShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts[h]
	if c == nil {
		c = s.track(e.Consumer, h)
	}
	if c == nil || c.consumer != e.Consumer {
		return nil
	}
	c.by[i]++
	c.weight++
	return &c.last
}

// track begins to count a consumer, in the place of another where all are taken
// and its cell of the filter is full; else it counts it there and returns nil.
func (s *topShard) track(consumer string, h uint64) *counts {
	var c *counts
	if len(s.heap) < s.max {
		c = &counts{}
		s.heap = append(s.heap, c) // order is 0 in all of them until they are full
	} else {
		c = s.least()
		if cell := s.cell(h); *cell < c.weight {
			*cell++
			return nil
		}
		delete(s.counts, c.hash)
		*s.cell(c.hash) = c.weight
		c.by, c.excess = [len(outcomes)]uint64{}, c.weight
	}
	c.consumer, c.hash = consumer, h
	s.counts[h] = c
	return c
}

// cell is a consumer's cell of the filter.
func (s *topShard) cell(h uint64) *uint64 {
	return &s.filter[h/topShards%uint64(len(s.filter))]
}

// least puts the consumer of the least weight in the first place. Weights only
// grow, so that one whose place is right is not above any other.
func (s *topShard) least() *counts {
	for {
		c := s.heap[0]
		if c.order == c.weight {
			return c
		}
		c.order = c.weight
		s.sink()
	}
}

// sink moves the first of the heap to its place.
func (s *topShard) sink() {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(s.heap) {
			return
		}
		if other := child + 1; other < len(s.heap) && s.heap[other].order < s.heap[child].order {
			child = other
		}
		if s.heap[i].order <= s.heap[child].order {
			return
		}
		s.heap[i], s.heap[child] = s.heap[child], s.heap[i]
		i = child
	}
}

// Decay halves every weight, so that the busiest are those of late. The counts
// stay. Call it about once a minute.
func (t *Top) Decay() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, c := range s.heap {
			c.weight, c.excess, c.order = c.weight/2, c.excess/2, c.order/2
		}
		for j := range s.filter {
			s.filter[j] /= 2
		}
		s.mu.Unlock()
	}
}

// ranked is a consumer that is tracked.
type ranked struct {
	consumer string
	by       [len(outcomes)]uint64
	sure     uint64 // the least that its weight can be
}

func (t *Top) tracked() []ranked {
	var all []ranked
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, c := range s.heap {
			all = append(all, ranked{c.consumer, c.by, c.weight - c.excess})
		}
		s.mu.Unlock()
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
	for _, c := range t.tracked() {
		a := Tally{Consumer: c.consumer}
		for i, outcome := range outcomes {
			if outcome == extauthz.Admitted || outcome == extauthz.Shadowed {
				a.Admitted += c.by[i]
			} else if outcome != extauthz.Failed {
				a.Refused += c.by[i]
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
		return cmp.Or(cmp.Compare(b.sure, a.sure), cmp.Compare(a.consumer, b.consumer))
	})
	for _, c := range all[:min(len(all), int(t.shown.Load()))] {
		for i, outcome := range outcomes {
			if n := c.by[i]; n > 0 {
				ch <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(n), c.consumer, string(outcome))
			}
		}
	}
}
