package server_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/internal/telemetry/otlptest"
)

// heard is all that a Tollgate lets know of the calls that were made to it.
type heard struct {
	Answers []string // of each call, in order
	Metrics []string // series and their values, but for what tells times
	Log     []string // lines, but for times and addresses
	Spans   []string // names and attributes, sorted
}

// TestListenersAgree makes the same calls to a Tollgate by grpc-go's listener
// and to another by the fast one: answers, refusals, statuses, metrics, log and
// traces must be the same.
func TestListenersAgree(t *testing.T) {
	slow, fast := listenTo(t, "grpc"), listenTo(t, "fast")
	if diff := cmp.Diff(slow, fast); diff != "" {
		t.Errorf("the fast listener differs (-grpc +fast):\n%s", diff)
	}
	t.Logf("%d answers, %d series, %d lines of the log and %d spans are the same", len(fast.Answers), len(fast.Metrics), len(fast.Log), len(fast.Spans))
	for what, n := range map[string]int{"answers": len(fast.Answers), "series": len(fast.Metrics), "lines of the log": len(fast.Log), "spans": len(fast.Spans)} {
		if n < 4 {
			t.Errorf("only %d %s were compared", n, what)
		}
	}
}

func listenTo(t *testing.T, listener string) heard {
	t.Helper()
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+receiver.GRPC)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	r := start(t, `listen: {grpc: "127.0.0.1:0", fast: "127.0.0.1:0", http: "127.0.0.1:0", drain: 0s}
limits: {warm_up: {grace: 0s, ramp: 0s}}
rules: {files: [rules.yaml]}
telemetry: {traces: otlp, log: {refusals_every: 1h}}
`)
	addr := r.GRPCAddr()
	if listener == "fast" {
		addr = r.FastAddr()
	}
	s := &script{tokens: map[string]string{"steady": r.newToken(t, "steady", "1000/s"), "scarce": r.newToken(t, "scarce", "1/h")}}
	for id, limit := range map[string]string{"patient": `{"rate":"1/200ms","burst":1,"max_wait":"1m"}`, "hurried": `{"rate":"1/d","max_wait":"24h"}`} {
		r.must(t, 200, "PUT", "/v1/consumers/"+id, `{"limits":[`+limit+`]}`, nil)
		var issued struct{ Token string }
		r.must(t, 201, "POST", "/v1/consumers/"+id+"/tokens", `{"id":"prod"}`, &issued)
		s.tokens[id] = issued.Token
	}
	var err error
	if s.conn, err = grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	began := len(r.log.String())
	s.run(t)

	h := heard{Answers: s.answers, Metrics: seriesOf(string(scrape(t, r))), Log: linesOf(t, r.log.String()[began:])}
	if err := r.Close(); err != nil { // sends all spans
		t.Fatal(err)
	}
	for _, span := range receiver.Spans() {
		h.Spans = append(h.Spans, spanText(span))
	}
	slices.Sort(h.Spans)
	return h
}

// script makes calls and notes the answers.
type script struct {
	conn    *grpc.ClientConn
	tokens  map[string]string
	answers []string
}

func (s *script) run(t *testing.T) {
	const check, limit, health = "/envoy.service.auth.v3.Authorization/Check", "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", "/grpc.health.v1.Health/Check"
	tokens := s.tokens
	for _, c := range []struct {
		name, method string
		in           proto.Message
		out          proto.Message
	}{
		{name: "admitted", method: check, in: checkOf(tokens["steady"]), out: new(authv3.CheckResponse)},
		{name: "the only one of an hour", method: check, in: checkOf(tokens["scarce"]), out: new(authv3.CheckResponse)},
		{name: "over the limit", method: check, in: checkOf(tokens["scarce"]), out: new(authv3.CheckResponse)},
		{name: "over the limit again", method: check, in: checkOf(tokens["scarce"]), out: new(authv3.CheckResponse)},
		{name: "an unknown token", method: check, in: checkOf("guessed"), out: new(authv3.CheckResponse)},
		{name: "no token", method: check, in: checkOf(""), out: new(authv3.CheckResponse)},
		{name: "admitted at once", method: check, in: checkOf(tokens["patient"]), out: new(authv3.CheckResponse)},
		{name: "held", method: check, in: checkOf(tokens["patient"]), out: new(authv3.CheckResponse)},
		{name: "the first of a day", method: check, in: checkOf(tokens["hurried"]), out: new(authv3.CheckResponse)},
		{name: "no time to be held", method: check, in: checkOf(tokens["hurried"]), out: new(authv3.CheckResponse)},
		{name: "nothing to check", method: check, in: &authv3.CheckRequest{}, out: new(authv3.CheckResponse)},
		{name: "user", method: limit, in: askFor("alice", 0), out: new(rlsv3.RateLimitResponse)},
		{name: "user over the limit", method: limit, in: askFor("alice", 0), out: new(rlsv3.RateLimitResponse)},
		{name: "more hits than there are", method: limit, in: askFor("bob", 5), out: new(rlsv3.RateLimitResponse)},
		{name: "no rule", method: limit, in: &rlsv3.RateLimitRequest{Domain: "other"}, out: new(rlsv3.RateLimitResponse)},
		{name: "no domain", method: limit, in: &rlsv3.RateLimitRequest{}, out: new(rlsv3.RateLimitResponse)},
		{name: "health", method: health, in: &healthpb.HealthCheckRequest{}, out: new(healthpb.HealthCheckResponse)},
		{name: "health of a service", method: health, in: &healthpb.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"}, out: new(healthpb.HealthCheckResponse)},
		{name: "health of nothing", method: health, in: &healthpb.HealthCheckRequest{Service: "none"}, out: new(healthpb.HealthCheckResponse)},
		{name: "no message of the kind", method: check, in: &healthpb.HealthCheckRequest{Service: "\x01\xff"[:1]}, out: new(authv3.CheckResponse)},
		{name: "an unknown method", method: "/envoy.service.auth.v3.Authorization/Other", in: checkOf(""), out: new(authv3.CheckResponse)},
		{name: "an unknown service", method: "/other.Service/Check", in: checkOf(""), out: new(authv3.CheckResponse)},
		{name: "too large", method: check, in: checkOf(strings.Repeat("x", 8<<20)), out: new(authv3.CheckResponse)},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if c.method != health {
			trace := fmt.Sprintf("00-4bf92f3577b34da6a3ce929d0e0e4736-%016x-01", len(s.answers)+1)
			ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", trace)
		}
		err := s.conn.Invoke(ctx, c.method, c.in, c.out)
		cancel()
		s.note(t, c.name, c.out, err)
	}
}

// checkOf is what Envoy asks for a GET with an API key.
func checkOf(token string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/a?q=1", Host: "api", Headers: map[string]string{"x-api-key": token}},
	}}}
}

// askFor is what Envoy asks for a user's request.
func askFor(user string, hits uint32) *rlsv3.RateLimitRequest {
	return &rlsv3.RateLimitRequest{Domain: "mesh", HitsAddend: hits, Descriptors: []*rlcommonv3.RateLimitDescriptor{
		{Entries: []*rlcommonv3.RateLimitDescriptor_Entry{{Key: "user", Value: user}}}}}
}

// note writes down an answer.
func (s *script) note(t *testing.T, name string, answer proto.Message, err error) {
	if err != nil {
		st := status.Convert(err)
		s.answers = append(s.answers, fmt.Sprintf("%s: %v: %s", name, st.Code(), st.Message()))
		return
	}
	if a, ok := answer.(*rlsv3.RateLimitResponse); ok && len(a.RawBody) > 0 {
		name += ": " + seconds.ReplaceAllString(string(a.RawBody), "${1}N")
		a.RawBody = nil
	}
	text, err := protojson.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer // protojson varies its spaces
	if err := json.Compact(&plain, text); err != nil {
		t.Fatal(err)
	}
	s.answers = append(s.answers, name+": "+seconds.ReplaceAllString(plain.String(), "${1}N"))
}

// seconds are what differs from one run to the next in an answer: how long
// until a limit admits again.
var seconds = regexp.MustCompile(`("durationUntilReset":"|"key":"retry-after","value":"|;t=|retry_after\\?":|again in )[0-9.]+`)

// seriesOf are the series of calls and decisions, without what tells times,
// without this process's own and without the fast listener's.
func seriesOf(metrics string) []string {
	var series []string
	for line := range strings.Lines(metrics) {
		switch line = strings.TrimSpace(line); {
		case !strings.HasPrefix(line, "tollgate_") && !strings.HasPrefix(line, "grpc_server_"):
		case strings.Contains(line, "_seconds_bucket") || strings.Contains(line, "_seconds_sum") || strings.Contains(line, "_timestamp_") || strings.Contains(line, "build_info") || strings.Contains(line, "_bytes") || strings.HasPrefix(line, "tollgate_fast_"):
		default:
			series = append(series, line)
		}
	}
	slices.Sort(series)
	return series
}

// linesOf are the lines of a log, with what is not of the run.
func linesOf(t *testing.T, log string) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(log) {
		fields := map[string]any{}
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for _, name := range []string{"time", "wait", "retry_after", "span_id", "trace_id"} {
			delete(fields, name)
		}
		var words []string
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			words = append(words, fmt.Sprintf("%s=%v", name, fields[name]))
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return lines
}

func spanText(span otlptest.Span) string {
	attributes := span.Attributes()
	for name := range attributes {
		if strings.Contains(name, "wait") || strings.Contains(name, "port") || strings.Contains(name, "retry") {
			attributes[name] = fmt.Sprintf("a %T", attributes[name])
		}
	}
	return fmt.Sprintf("%s below %s, %v, %v: %v", span.GetName(), hex.EncodeToString(span.GetParentSpanId()), span.GetKind(), span.GetStatus(), attributes)
}
