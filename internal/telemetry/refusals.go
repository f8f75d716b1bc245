package telemetry

import (
	"context"
	"encoding/hex"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// maxBursts bounds the refusals that are told apart between two summaries.
const maxBursts = 1000

// refusals logs the first refusal of a burst at once and counts the rest until
// the next Flush. Safe for concurrent use.
type refusals struct {
	log  *slog.Logger
	last lastBurst // of callers who are no consumers

	mu     sync.Mutex // guards what follows
	bursts map[burst]*tally
	others int64 // refusals of bursts beyond maxBursts
}

// burst is what consecutive refusals have in common. Tokens that nobody issued
// have no consumer and so share one.
type burst struct {
	api, consumer, token, limit, rule, upstream string
	outcome                                     extauthz.Outcome
}

// tally is a burst that goes on.
type tally struct {
	burst
	spec *limits.Spec
	n    atomic.Int64 // refused since the last line about it, or far below 0: it is over
}

const burstOver = math.MinInt64 / 2

// lastBurst remembers where a caller's last refusal was counted, since the next
// one is mostly like it: then neither a lock nor a look-up is needed.
type lastBurst = atomic.Pointer[tally]

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, bursts: map[burst]*tally{}}
}

func refused(o extauthz.Outcome) bool {
	return o == extauthz.Throttled || o == extauthz.Unauthenticated || o == extauthz.Forbidden
}

// add takes in a decision; last belongs to its caller.
func (r *refusals) add(e *extauthz.Event, last *lastBurst) {
	// Where it is not to be logged no burst begins, so that one that is logged
	// later has its first in full.
	if !refused(e.Outcome) || !r.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	if last.Load().goesOn(e) {
		return
	}
	t, first := r.count(e)
	if t == nil {
		return
	}
	last.Store(t)
	if !first {
		return
	}
	attrs := append(t.attrs(),
		slog.String("rate", rate(e)),
		slog.String("method", e.Method),
		slog.String("path", path(e)),
		slog.String("request_id", e.RequestID),
		slog.String("trace_id", traceID(&e.Trace)))
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "request refused", attrs...)
}

// goesOn counts a refusal if it is one more of the burst.
func (t *tally) goesOn(e *extauthz.Event) bool {
	return t != nil && t.spec == e.Limit && t.outcome == e.Outcome && t.consumer == e.Consumer && t.token == e.Token &&
		t.rule == e.Rule && t.upstream == e.Upstream && t.api == e.API && t.n.Add(1) > 0
}

// count counts a refusal and reports whether it begins a burst; there is no
// tally if there are too many.
func (r *refusals) count(e *extauthz.Event) (t *tally, first bool) {
	b := burst{e.API, e.Consumer, e.Token, limitName(e), e.Rule, e.Upstream, e.Outcome}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.bursts[b]; t != nil {
		t.n.Add(1)
		return t, false
	}
	if len(r.bursts) >= maxBursts {
		r.others++
		return nil, false
	}
	t = &tally{burst: b, spec: e.Limit}
	r.bursts[b] = t
	return t, true
}

// flush logs how many refusals followed in the interval that ends now, and
// forgets the bursts that are over.
func (r *refusals) flush(interval time.Duration) {
	type sum struct {
		*tally
		n int64
	}
	var sums []sum
	r.mu.Lock()
	for b, t := range r.bursts {
		if t.n.CompareAndSwap(0, burstOver) {
			delete(r.bursts, b)
			continue
		}
		sums = append(sums, sum{t, t.n.Swap(0)})
	}
	others := r.others
	r.others = 0
	r.mu.Unlock()
	for _, s := range sums {
		r.log.LogAttrs(context.Background(), slog.LevelInfo, "more requests refused",
			append(s.attrs(), slog.Int64("count", s.n), slog.String("interval", interval.String()))...)
	}
	if others > 0 {
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

// path is what a request asked for, without the query, which may hold a token.
func path(e *extauthz.Event) string {
	if e.Path == "" {
		return ""
	}
	return extauthz.NormalPath(e.Path)
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
