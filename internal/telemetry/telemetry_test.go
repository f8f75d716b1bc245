package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/limits"
)

// told is an observer with all that it tells.
type told struct {
	*telemetry.Observer
	metrics  *telemetry.Metrics
	top      *telemetry.Top
	registry *prometheus.Registry
	log      *bytes.Buffer
}

func newTold(shown int) told {
	t := told{registry: prometheus.NewPedanticRegistry(), top: telemetry.NewTop(shown), log: new(bytes.Buffer)}
	t.metrics = telemetry.NewMetrics(t.registry, telemetry.Build{Version: "1.2.3", Revision: "abc"}, telemetry.Live{
		Limiters: func() int { return 7 }, Evictions: func() uint64 { return 8 }, Consumers: func() int { return 9 },
	}, t.top)
	t.Observer = telemetry.NewObserver(t.metrics, t.top, nil, telemetry.NewLogger(t.log, "json", new(slog.LevelVar)))
	return t
}

// lines decodes the log and empties it; times are left out.
func (t told) lines(tb testing.TB) []map[string]any {
	tb.Helper()
	var lines []map[string]any
	for line := range strings.Lines(t.log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			tb.Fatalf("%v in %s", err, line)
		}
		delete(m, "time")
		lines = append(lines, m)
	}
	t.log.Reset()
	return lines
}

func TestMetrics(t *testing.T) {
	o := newTold(10)
	for range 3 {
		o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Domain: "mesh", Consumer: "a", Took: 3 * time.Microsecond})
	}
	o.Observe(&extauthz.Event{API: "ratelimit", Outcome: extauthz.Throttled, Domain: "mesh", Rule: "user", Consumer: "a"})
	o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Unauthenticated, Domain: "mesh"})
	o.metrics.Reloaded(time.Unix(1000, 0), nil)
	o.metrics.Reloaded(time.Unix(2000, 0), errors.New("bad"))
	want := `
# HELP tollgate_config_last_reload_success_timestamp_seconds When a configuration was last put in force, in seconds since the Unix epoch.
# TYPE tollgate_config_last_reload_success_timestamp_seconds gauge
tollgate_config_last_reload_success_timestamp_seconds 1000
# HELP tollgate_config_last_reload_successful 1 if the configuration on disk is in force, 0 if it has problems and the one before is kept.
# TYPE tollgate_config_last_reload_successful gauge
tollgate_config_last_reload_successful 0
# HELP tollgate_consumer_decisions_total Decisions of the busiest consumers (telemetry.top_consumers), by outcome.
# TYPE tollgate_consumer_decisions_total counter
tollgate_consumer_decisions_total{consumer="a",outcome="admitted"} 3
tollgate_consumer_decisions_total{consumer="a",outcome="throttled"} 1
# HELP tollgate_decisions_total Decisions by API, outcome, domain and the rule that decided (empty: a consumer's own limits).
# TYPE tollgate_decisions_total counter
tollgate_decisions_total{api="ext_authz",domain="mesh",outcome="admitted",rule=""} 3
tollgate_decisions_total{api="ext_authz",domain="mesh",outcome="unauthenticated",rule=""} 1
tollgate_decisions_total{api="ratelimit",domain="mesh",outcome="throttled",rule="user"} 1
# HELP tollgate_evictions_total Limiters of descriptors that were forgotten to make room.
# TYPE tollgate_evictions_total counter
tollgate_evictions_total 8
# HELP tollgate_limiters Live limiters of descriptors, bounded by limits.cache.size.
# TYPE tollgate_limiters gauge
tollgate_limiters 7
`
	err := testutil.GatherAndCompare(o.registry, strings.NewReader(want), "tollgate_config_last_reload_success_timestamp_seconds",
		"tollgate_config_last_reload_successful", "tollgate_consumer_decisions_total", "tollgate_decisions_total", "tollgate_evictions_total", "tollgate_limiters")
	if err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(o.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	o := newTold(10)
	for i := range 12_000 {
		o.Observe(&extauthz.Event{API: "ratelimit", Outcome: extauthz.Admitted, Domain: "mesh", Rule: fmt.Sprint(i)})
	}
	n, err := testutil.GatherAndCount(o.registry, "tollgate_decisions_total")
	if err != nil || n > 10_001 {
		t.Errorf("%d series (%v), want at most 10001", n, err)
	}
}

// TestConsumersLeaveTheSeriesConstant counts every series of the registry.
func TestConsumersLeaveTheSeriesConstant(t *testing.T) {
	o := newTold(100)
	series := func(consumers int) int {
		for i := range consumers {
			for range 3 {
				o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Domain: "mesh", Consumer: fmt.Sprintf("c%d", i), Took: time.Microsecond})
			}
		}
		families, err := o.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, f := range families {
			n += len(f.GetMetric())
		}
		return n
	}
	few, many := series(200), series(100_000)
	if few != many {
		t.Errorf("200 consumers leave %d series, 100000 leave %d", few, many)
	}
}

// TestLabelsAreValid has a rule be called after what a caller sent.
func TestLabelsAreValid(t *testing.T) {
	o := newTold(10)
	o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Throttled, Domain: "mesh", Rule: "user_\xff"})
	if n, err := testutil.GatherAndCount(o.registry, "tollgate_decisions_total"); err != nil || n != 1 {
		t.Errorf("%d series (%v), want 1", n, err)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	o := newTold(10)
	e := &extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Domain: "mesh", Rule: "user", Consumer: "a", Token: "b", Took: time.Microsecond}
	o.Observe(e)
	if n := testing.AllocsPerRun(1000, func() { o.Observe(e) }); n != 0 {
		t.Errorf("Observe allocates %v times", n)
	}
}

func TestTopKeepsTheBusiest(t *testing.T) {
	top := newTold(3)
	count := func(consumer string, n int) {
		for range n {
			top.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Admitted, Consumer: consumer})
		}
	}
	count("busy", 50_000)
	for i := range 100_000 { // far more than can be tracked, one request each
		count(fmt.Sprintf("c%d", i), 1)
	}
	count("later", 50_000)
	top.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Throttled, Consumer: "busy"})
	got := top.top.Busiest(2)
	want := []telemetry.Tally{{Consumer: "busy", Admitted: 50_000, Refused: 1}, {Consumer: "later", Admitted: 50_000}}
	if len(got) == 2 && got[1].Consumer == "later" {
		want[1].Admitted = got[1].Admitted // from the moment it was tracked
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Busiest (-want +got):\n%s", diff)
	}
	if got[1].Admitted < 45_000 {
		t.Errorf("of 50000 requests of a newcomer only %d were counted", got[1].Admitted)
	}
	if got := top.top.MostRefused(1); got[0].Consumer != "busy" {
		t.Errorf("MostRefused = %v, want busy", got)
	}
	if n := len(top.top.Busiest(1_000_000)); n > 64*32 {
		t.Errorf("%d consumers are tracked, want at most %d", n, 64*32)
	}
	if n, err := testutil.GatherAndCount(top.registry, "tollgate_consumer_decisions_total"); err != nil || n > 4 {
		t.Errorf("%d series of consumers (%v), want those of 3", n, err)
	}
	for range 40 {
		top.top.Decay()
	}
	count("today", 30)
	text, err := testutil.CollectAndFormat(top.top, expfmt.TypeTextPlain, "consumer_decisions_total")
	if err != nil || !strings.Contains(string(text), `consumer="today"`) {
		t.Errorf("after decay the busiest is not of today (%v):\n%s", err, text)
	}
}

func TestRefusalLog(t *testing.T) {
	o := newTold(10)
	spec, err := limits.Compile(limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	refusal := &extauthz.Event{API: "ext_authz", Outcome: extauthz.Throttled, Reason: extauthz.RateLimited, Consumer: "billing", Token: "prod", Limit: spec,
		Method: "GET", Path: "/pay?api_key=secret", RequestID: "r1", Trace: extauthz.ParseTrace("00-" + traceID + "-" + spanID + "-00")}
	for range 5 {
		o.Observe(refusal)
	}
	first := map[string]any{"level": "INFO", "msg": "request refused", "api": "ext_authz", "outcome": "throttled", "reason": "rate-limited", "consumer": "billing", "token": "prod",
		"limit": "rate-100-s", "rate": "100/s", "method": "GET", "path": "/pay", "request_id": "r1", "trace_id": traceID}
	rest := map[string]any{"level": "INFO", "msg": "more requests refused", "api": "ext_authz", "outcome": "throttled", "reason": "rate-limited", "consumer": "billing",
		"token": "prod", "limit": "rate-100-s", "count": 4.0, "interval": "10s"}
	if diff := cmp.Diff([]map[string]any{first}, o.lines(t)); diff != "" {
		t.Errorf("of a burst (-want +got):\n%s", diff)
	}
	o.Flush(10 * time.Second)
	if diff := cmp.Diff([]map[string]any{rest}, o.lines(t)); diff != "" {
		t.Errorf("after the interval (-want +got):\n%s", diff)
	}
	o.Flush(10 * time.Second) // a quiet interval ends the burst
	if got := o.lines(t); len(got) > 0 {
		t.Errorf("quiet, but logged %v", got)
	}
	o.Observe(refusal)
	if got := o.lines(t); len(got) != 1 || got[0]["msg"] != "request refused" {
		t.Errorf("a new burst logs %v", got)
	}
}

func TestRefusalLogIsBounded(t *testing.T) {
	o := newTold(10)
	for i := range 5000 {
		o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Throttled, Reason: extauthz.RateLimited, Consumer: fmt.Sprint("c", i)})
	}
	for range 5000 { // tokens that nobody issued share one burst
		o.Observe(&extauthz.Event{API: "ext_authz", Outcome: extauthz.Unauthenticated, Reason: extauthz.InvalidCredentials})
	}
	if n := len(o.lines(t)); n != 1000 {
		t.Errorf("%d lines of 10000 refusals at once, want 1000", n)
	}
	o.Flush(time.Second)
	got := o.lines(t)
	if len(got) != 1 || got[0]["count"] != 9000.0 {
		t.Errorf("the rest is told as %v, want one line with 9000", got)
	}
}
