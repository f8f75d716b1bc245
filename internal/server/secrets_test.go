package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/internal/telemetry/otlptest"
)

// TestNothingTellsASecret runs a server with known secrets in every place where
// it meets one, at the level that logs most, and searches all that it says.
func TestNothingTellsASecret(t *testing.T) {
	const adminToken, written, environment, query, guessed, cookie = "admin-5ecret", "written-5ecret", "environment-5ecret", "query-5ecret", "guessed-5ecret", "cookie-5ecret"
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+receiver.HTTP)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization="+environment)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	t.Setenv("TOLLGATE_TEST_ADMIN_TOKEN", adminToken)
	r := start(t, base+`admin: {token: "${TOLLGATE_TEST_ADMIN_TOKEN}"}
credentials: [{header: authorization, scheme: Bearer}, {header: x-api-key}, {query: api_key}, {cookie: session}]
authz: {descriptors: [[{key: area, from: path}]]}
telemetry: {traces: otlp, audit: audit.log, log: {level: debug, refusals_every: 50ms}}
`)
	var answers bytes.Buffer // all that the server answers
	ask := func(method, path, body, token string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.HTTPAddr()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("content-type", "application/json")
		if token != "" {
			req.Header.Set("authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Header.Write(&answers)
		return string(text)
	}
	events := secretEvents(t, r, adminToken)
	say := func(text string) string { answers.WriteString(text + "\n"); return text }
	say(ask("PUT", "/v1/consumers/billing", `{"limits":"1/h"}`, adminToken))
	issued := ask("POST", "/v1/consumers/billing/tokens", `{"id":"prod"}`, adminToken) // shows it, this once
	_, rest, _ := strings.Cut(issued, `"token":"`)
	token, _, _ := strings.Cut(rest, `"`)
	if !strings.HasPrefix(token, "tg_") {
		t.Fatalf("issued %s", issued)
	}
	rotated := ask("POST", "/v1/consumers/billing/tokens/prod/rotate", `{"overlap":"1h"}`, adminToken)
	_, rest, _ = strings.Cut(rotated, `"token":"`)
	second, _, _ := strings.Cut(rest, `"`)

	client := authv3.NewAuthorizationClient(r.conn)
	for path, headers := range map[string]map[string]string{
		"/a?q=" + query:                      {"authorization": "Bearer " + token},
		"/a?api_key=" + second + "&" + query: {},
		"/b?api_key=" + guessed:              {},
		"/c;jsessionid=1?" + query:           {"x-api-key": guessed},
		"/d":                                 {"cookie": "session=" + cookie + "; other=" + cookie},
		"/e?" + query + "?" + query:          {"authorization": "Basic " + guessed},
	} {
		for range 3 {
			resp, err := client.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
				Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: path, Host: "api", Headers: headers}}}})
			if err != nil {
				say(err.Error())
			}
			say(resp.String())
		}
	}
	limited, err := rlsv3.NewRateLimitServiceClient(r.conn).ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{Domain: "mesh",
		Descriptors: []*rlcommonv3.RateLimitDescriptor{{Entries: []*rlcommonv3.RateLimitDescriptor_Entry{{Key: "token", Value: guessed}, {Key: "token", Value: token}}}}})
	say(limited.String())
	if err != nil {
		say(err.Error())
	}
	for _, c := range []struct{ method, path, body, token string }{
		{"GET", "/v1/consumers", "", adminToken}, {"GET", "/v1/consumers", "", guessed}, {"GET", "/v1/consumers/billing", "", adminToken},
		{"GET", "/v1/consumers/billing/tokens", "", adminToken}, {"GET", "/v1/consumers/billing/usage", "", adminToken}, {"GET", "/v1/settings", "", adminToken},
		{"GET", "/v1/top", "", adminToken}, {"GET", "/v1/refusals", "", adminToken}, {"PUT", "/v1/settings", `{"log_level":"loud"}`, adminToken}, {"PUT", "/v1/settings", `{"mode":"shadow"}`, adminToken},
		{"PUT", "/v1/settings", `{"mode":"enforce"}`, adminToken}, {"DELETE", "/v1/consumers/billing/usage", "", adminToken}, {"GET", "/v1/consumers?q=" + guessed, "", guessed}, {"GET", "/readyz", "", ""}, {"GET", "/healthz", "", ""},
		{"GET", "/healthcheck", "", ""}, {"GET", "/console/main.js", "", ""}, {"GET", "/debug/pprof/?" + query, "", ""}, {"GET", "/debug/vars", "", ""}, {"OPTIONS", "/v1/events", "", guessed}, {"GET", "/v1/config", "", adminToken}, {"GET", "/v1/upstreams", "", adminToken},
		{"POST", "/v1/consumers/billing/tokens", `{"id":"prod"}`, adminToken}, {"POST", "/console/session", `{"token":"` + guessed + `"}`, ""},
		{"POST", "/console/session", `{"token":"` + adminToken + `"}`, ""}, {"GET", "/console/session", "", ""}, {"GET", "/", "", ""}, {"GET", "/rlconfig", "", ""},
		{"GET", "/stats", "", ""}, {"GET", "/openapi.yaml", "", ""}, {"GET", "/nowhere?" + query, "", ""}, {"POST", "/json", `{"domain":"` + guessed, ""},
	} {
		say(ask(c.method, c.path, c.body, c.token))
	}
	// Configurations with problems beside secrets; the running server logs them and tells of them.
	for _, bad := range []string{
		base + "admin: {token: " + written + ", tokens: " + written + "}\n",
		base + "admin: {token: [" + written + "]}\nconsumers: {source: file, file: consumers.yaml, dsn: \"postgres://u:" + written + "@db/x\"}\n",
	} {
		write(t, r.dir+"/consumers.yaml", "consumers: [{id: a, tokens: [{id: t, value: "+written+", sha256: "+written+"}]}]\n")
		write(t, r.dir+"/tollgate.yaml", bad)
		if err := r.Reload(); err != nil {
			say(err.Error())
		} else {
			t.Errorf("this should have problems:\n%s", bad)
		}
		say(ask("GET", "/v1/config", "", adminToken))
	}
	receiver.Await(t, func(s otlptest.Span) bool { return s.Attributes()["tollgate.outcome"] == "throttled" })
	eventually(t, "a sum of refusals", func() bool { return strings.Contains(r.log.String(), "more requests refused") })
	var spans strings.Builder
	for _, s := range receiver.Spans() {
		text, err := proto.Marshal(s.Span)
		if err != nil {
			t.Fatal(err)
		}
		spans.Write(text)
	}
	audit, err := os.ReadFile(r.dir + "/audit.log")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"the audit": string(audit), "events": events("config.reload"), "the log": r.log.String(), "metrics": string(scrape(t, r)), "traces": spans.String(), "answers": answers.String()} {
		if len(text) < 500 {
			t.Errorf("%s: only %q", name, text)
		}
		for _, secret := range []string{token, second, adminToken, written, environment, query, guessed, cookie, "5ecret"} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s tells %q: %q", name, secret, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
	// The search can fail.
	for _, kind := range []string{"token.issue", "token.rotate", "settings.set", "usage.reset", "config.reload"} {
		if !strings.Contains(string(audit), kind) {
			t.Errorf("the audit tells of no %s", kind)
		}
	}
	if !strings.Contains(r.log.String(), `"consumer":"billing"`) || !strings.Contains(spans.String(), "billing") {
		t.Error("what is no secret is not told either")
	}
	if err := r.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	if strings.Contains(r.log.String(), "5ecret") {
		t.Errorf("the end tells a secret:\n%s", r.log.String())
	}
}

// secretEvents follows the events of a server that wants its admin token, and
// returns what reads them up to one of a kind.
func secretEvents(t *testing.T, r *running, adminToken string) func(last string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.HTTPAddr()+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("authorization", "Bearer "+adminToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return func(last string) string {
		var text strings.Builder
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if text.WriteString(lines.Text() + "\n"); strings.Contains(lines.Text(), last) {
				return text.String()
			}
		}
		t.Errorf("no event %s in %s", last, text.String())
		return text.String()
	}
}

// TestStoresThatAreAwayTellNoSecret: neither their addresses' passwords nor
// those beside, where connecting fails and is told of.
func TestStoresThatAreAwayTellNoSecret(t *testing.T) {
	for name, config := range map[string]string{
		"redis":    `cluster: {redis: {addresses: ["127.0.0.1:1"], username: limits, password: redis-5ecret, tls: {}}, on_error: local}`,
		"postgres": `consumers: {source: postgres, dsn: "postgres://u:dsn-5ecret@127.0.0.1:1/db?sslmode=disable"}`,
		"mysql":    `consumers: {source: mysql, dsn: "u:dsn-5ecret@tcp(127.0.0.1:1)/db"}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, `listen: {grpc: "127.0.0.1:0", http: "127.0.0.1:0", drain: 0s}`+"\ntelemetry: {log: {level: debug}}\n"+config+"\n")
			eventually(t, "that it is away, in the log", func() bool { return strings.Contains(r.log.String(), "refused") })
			said := r.log.String() + string(scrape(t, r))
			for _, path := range []string{"/readyz", "/v1/config", "/v1/consumers", "/v1/refusals"} {
				_, body := get(t, r.HTTPAddr(), path)
				said += body
			}
			if i := strings.Index(said, "5ecret"); i >= 0 {
				t.Errorf("a password is told: %q", said[max(0, i-200):min(len(said), i+100)])
			}
		})
	}
}

// TestNothingTellsASecretInPlaceOfRateLimit does the same in the environment of a
// deployment of envoyproxy/ratelimit, which has a listener of its own for statistics.
func TestNothingTellsASecretInPlaceOfRateLimit(t *testing.T) {
	const password, value, query = "redis-5ecret", "value-5ecret", "query-5ecret"
	root := t.TempDir()
	writeRules(t, filepath.Join(root, "config"), fileRules+"  - key: token\n    rate_limit: {unit: day, requests_per_unit: 1, name: tokens}\n")
	p := startInPlace(t, map[string]string{"RUNTIME_ROOT": root, "LOG_LEVEL": "debug", "LIMIT_RESPONSE_HEADERS_ENABLED": "true", "RESPONSE_DYNAMIC_METADATA": "true",
		"REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": "127.0.0.1:1", "REDIS_AUTH": password})
	var said strings.Builder
	for _, key := range []string{"k", "token"} {
		for range 3 {
			said.WriteString(p.ask("d", key, value).GetOverallCode().String() + "\n")
		}
	}
	for _, body := range []string{`{"domain":"d","descriptors":[{"entries":[{"key":"k","value":"` + value + `"}]}]}`, `{"domain":"` + value, `{"domain":"` + value + `"}`} {
		resp, err := http.Post("http://"+p.HTTPAddr()+"/json?"+query, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		said.Write(text)
	}
	if len(p.ReadingAddrs()) != 1 {
		t.Fatalf("listeners %v, want one", p.ReadingAddrs())
	}
	for _, address := range []string{p.ReadingAddrs()[0], p.HTTPAddr()} {
		for _, path := range []string{"/stats", "/rlconfig", "/healthcheck", "/healthz", "/readyz", "/metrics", "/", "/openapi.yaml", "/v1/config", "/v1/refusals", "/v1/top", "/debug/pprof/", "/nowhere"} {
			code, body := get(t, address, path+"?"+query)
			fmt.Fprintf(&said, "%d %s\n", code, body)
		}
	}
	eventually(t, "a refusal, in the log", func() bool { return strings.Contains(p.log.String(), "refused") })
	for name, text := range map[string]string{"the log": p.log.String(), "answers": said.String()} {
		if i := strings.Index(text, "5ecret"); i >= 0 {
			t.Errorf("%s: %q", name, text[max(0, i-200):min(len(text), i+100)])
		}
	}
	if text := said.String(); !strings.Contains(text, "memstats: {") || !strings.Contains(text, "d.token: unit=DAY") || !strings.Contains(text, "tollgate_decisions_total") || !strings.Contains(text, "OVER_LIMIT") {
		t.Errorf("what is no secret is not told either:\n%.3000s", text)
	}
}
