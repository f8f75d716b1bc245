package telemetry

import (
	"context"
	"encoding/hex"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// maxBursts bounds the refusals that are told apart between two summaries.
const maxBursts = 1000

const refusalShards = 16

// refusals logs the first refusal of a burst at once and counts the rest until
// the next Flush. Safe for concurrent use.
type refusals struct {
	log    *slog.Logger
	seed   maphash.Seed
	known  atomic.Int64 // bursts in all shards
	others atomic.Int64 // refusals of those beyond maxBursts
	shards [refusalShards]refusalShard
}

// refusalShard holds the bursts of some consumers.
type refusalShard struct {
	mu     sync.Mutex
	bursts map[burst]*int64 // refused since the last line about it
	_      [64]byte         // the next one's cache line is another
}

// burst is what consecutive refusals have in common. Tokens that nobody issued
// have no consumer and so share one.
type burst struct {
	api, consumer, token, limit, rule, upstream string
	outcome                                     extauthz.Outcome
}

func newRefusals(log *slog.Logger) *refusals {
	r := &refusals{log: log, seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].bursts = map[burst]*int64{}
	}
	return r
}

func refused(o extauthz.Outcome) bool {
	return o == extauthz.Throttled || o == extauthz.Unauthenticated || o == extauthz.Forbidden
}

func (r *refusals) add(e *extauthz.Event) {
	// Where it is not to be logged no burst begins, so that one that is logged
	// later has its first in full.
	if !refused(e.Outcome) || !r.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	b := burst{e.API, e.Consumer, e.Token, limitName(e), e.Rule, e.Upstream, e.Outcome}
	if !r.first(b) {
		return
	}
	attrs := append(b.attrs(),
		slog.String("rate", rate(e)),
		slog.String("method", e.Method),
		slog.String("path", withoutQuery(e.Path)),
		slog.String("request_id", e.RequestID),
		slog.String("trace_id", traceID(&e.Trace)))
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "request refused", attrs...)
}

// first counts a refusal and reports whether it begins a burst.
func (r *refusals) first(b burst) bool {
	s := &r.shards[maphash.String(r.seed, b.consumer)%refusalShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.bursts[b]; n != nil {
		*n++
		return false
	}
	if r.known.Add(1) > maxBursts {
		r.known.Add(-1)
		r.others.Add(1)
		return false
	}
	s.bursts[b] = new(int64)
	return true
}

// sum is how many refusals of a burst followed.
type sum struct {
	burst
	n int64
}

// take adds what followed, and forgets the bursts that are over.
func (r *refusals) take(s *refusalShard, sums []sum) []sum {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b, n := range s.bursts {
		if *n == 0 {
			delete(s.bursts, b)
			r.known.Add(-1)
			continue
		}
		sums = append(sums, sum{b, *n})
		*n = 0
	}
	return sums
}

// flush logs how many refusals followed in the interval that ends now.
func (r *refusals) flush(interval time.Duration) {
	var sums []sum
	for i := range r.shards {
		sums = r.take(&r.shards[i], sums)
	}
	for _, s := range sums {
		r.log.LogAttrs(context.Background(), slog.LevelInfo, "more requests refused",
			append(s.attrs(), slog.Int64("count", s.n), slog.String("interval", interval.String()))...)
	}
	if others := r.others.Swap(0); others > 0 {
		r.log.LogAttrs(context.Background(), slog.LevelInfo, "requests of further consumers refused",
			slog.Int64("count", others), slog.String("interval", interval.String()))
	}
}

func (b burst) attrs() []slog.Attr {
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("api", b.api), slog.String("outcome", string(b.outcome)),
		slog.String("consumer", b.consumer), slog.String("token", b.token), slog.String("limit", b.limit))
	if b.rule != "" {
		attrs = append(attrs, slog.String("rule", b.rule))
	}
	if b.upstream != "" {
		attrs = append(attrs, slog.String("upstream", b.upstream))
	}
	return attrs
}

// withoutQuery cuts off what may hold a token.
func withoutQuery(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return path
}

func traceID(t *extauthz.Trace) string {
	if !t.Valid() {
		return ""
	}
	return hex.EncodeToString(t.ID[:])
}

func limitName(e *extauthz.Event) string {
	if e.Limit == nil {
		return ""
	}
	return e.Limit.Limit().Name
}

// rate writes the limit that refused as configuration does: 100/s.
func rate(e *extauthz.Event) string {
	if e.Limit == nil {
		return ""
	}
	l := e.Limit.Limit()
	return consumers.Limit{Limit: limits.Limit{Kind: l.Kind, N: l.N, Period: l.Period, Calendar: l.Calendar}}.String()
}
