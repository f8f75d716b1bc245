package telemetry

import (
	"cmp"
	"context"
	"encoding/hex"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// maxBursts bounds the bursts of refusals that are told apart.
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
	reason                                      extauthz.Reason
}

// tally is a burst that goes on.
type tally struct {
	burst
	spec   *limits.Spec
	since  time.Time
	n      atomic.Int64 // refused since then, or far below 0: it is over
	logged atomic.Bool  // one of them in full; set with the refusals' mu held
	told   int64        // how many of them lines of the log are about; guarded by the refusals' mu
}

const burstOver = math.MinInt64 / 2

// lastBurst remembers where a caller's last refusal was counted, since the next
// one is mostly like it: then neither a lock nor a look-up is needed.
type lastBurst = atomic.Pointer[tally]

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, bursts: map[burst]*tally{}}
}

// add takes in a decision; last belongs to its caller.
func (r *refusals) add(e *extauthz.Event, last *lastBurst) {
	if e.Reason == "" {
		return
	}
	t := last.Load()
	if !t.goesOn(e) {
		if t = r.count(e); t == nil {
			return
		}
		last.Store(t)
	}
	// Where refusals are not logged now, the first in full is left to when they are.
	if t.logged.Load() || !r.log.Enabled(context.Background(), slog.LevelInfo) || !r.begin(t) {
		return
	}
	attrs := append(t.attrs(),
		slog.String("rate", rate(e.Limit)),
		slog.String("method", e.Method),
		slog.String("path", path(e)),
		slog.String("request_id", e.RequestID),
		slog.String("trace_id", traceID(&e.Trace)))
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "request refused", attrs...)
}

// goesOn counts a refusal if it is one more of the burst.
func (t *tally) goesOn(e *extauthz.Event) bool {
	return t != nil && t.spec == e.Limit && t.reason == e.Reason && t.consumer == e.Consumer && t.token == e.Token &&
		t.rule == e.Rule && t.upstream == e.Upstream && t.api == e.API && t.outcome == e.Outcome && t.n.Add(1) > 0
}

// count counts a refusal and returns its burst, which it may begin; nil if there
// are too many.
func (r *refusals) count(e *extauthz.Event) *tally {
	b := burst{e.API, e.Consumer, e.Token, limitName(e), e.Rule, e.Upstream, e.Outcome, e.Reason}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.bursts[b]
	if t == nil {
		if len(r.bursts) >= maxBursts {
			r.others++
			return nil
		}
		t = &tally{burst: b, spec: e.Limit, since: time.Now()}
		r.bursts[b] = t
	}
	t.n.Add(1)
	return t
}

// begin reports whether the caller is to log a refusal of a burst in full.
func (r *refusals) begin(t *tally) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.logged.Load() {
		return false
	}
	t.logged.Store(true)
	t.told++
	return true
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
		n := t.n.Load()
		switch more := n - t.told; {
		case more > 0 && t.logged.Load():
			sums = append(sums, sum{t, more})
		case more <= 0 && t.n.CompareAndSwap(n, burstOver):
			delete(r.bursts, b)
		}
		t.told = n
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
		slog.String("api", b.api), slog.String("outcome", string(b.outcome)), slog.String("reason", string(b.reason)),
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

// rate writes the limit that refused, if one did, as configuration does: 100/s.
func rate(spec *limits.Spec) string {
	if spec == nil {
		return ""
	}
	l := spec.Limit()
	return consumers.Limit{Limit: limits.Limit{Kind: l.Kind, N: l.N, Period: l.Period, Calendar: l.Calendar}}.String()
}

// Refusal is a burst of refusals that goes on: that has not been quiet for
// telemetry.log.refusals_every.
type Refusal struct {
	Consumer string           `json:"consumer"` // empty: nobody known
	Token    string           `json:"token"`
	API      string           `json:"api"`
	Outcome  extauthz.Outcome `json:"outcome"`
	Reason   extauthz.Reason  `json:"reason"`
	Limit    string           `json:"limit"` // the one that refuses, if one does
	Rate     string           `json:"rate"`
	Rule     string           `json:"rule"`     // where that limit is a rule's
	Upstream string           `json:"upstream"` // where the requests lead out to
	Since    time.Time        `json:"since"`
	Refused  int64            `json:"refused"` // since then
}

// all returns the bursts that go on, those with most refusals first.
func (r *refusals) all() []Refusal {
	all := []Refusal{}
	r.mu.Lock()
	for _, t := range r.bursts {
		all = append(all, Refusal{
			Consumer: t.consumer, Token: t.token, API: t.api, Outcome: t.outcome, Reason: t.reason,
			Limit: t.limit, Rate: rate(t.spec), Rule: t.rule, Upstream: t.upstream, Since: t.since.UTC(), Refused: t.n.Load(),
		})
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), a.Since.Compare(b.Since), cmp.Compare(a.Consumer, b.Consumer), cmp.Compare(a.Token, b.Token))
	})
	return all
}
