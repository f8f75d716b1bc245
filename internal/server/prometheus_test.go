package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/tollgate-dev/tollgate/internal/telemetry/otlptest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

const deploy = "../../deploy"

// throttling is a configuration with an upstream, and with a cluster whose store
// is away, so that their series are there.
const throttling = base + `cluster: {redis: {addresses: ["127.0.0.1:1"]}, on_error: local}
upstreams: [{id: keeper, match: {host: "*.keepersecurity.com"}, limits: [{window: 200/10s, max_wait: 30s}]}]
`

// promtool runs Prometheus' own checker; it must find nothing to complain about.
func promtool(t *testing.T, input []byte, args ...string) {
	t.Helper()
	cmd := exec.Command(program(t, "promtool"), args...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// program returns a program of Debian's package prometheus, or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skipf("needs %s: not in -short", name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: no %s: run `make services`, or apt-get install prometheus", name)
	}
	return path
}

// busy is a server that has decided in every way, so that all series are there.
func busy(t *testing.T, config string) *running {
	t.Helper()
	r := start(t, config)
	token := r.newToken(t, "billing", "1/h")
	for range 3 {
		r.check(t, token)
		r.overLimit(t, "alice")
	}
	r.check(t, "guessed")
	return r
}

func scrape(t *testing.T, r *running) []byte {
	t.Helper()
	_, body := get(t, r.HTTPAddr(), "/metrics")
	return []byte(body)
}

func TestPromtoolLikesTheMetrics(t *testing.T) {
	program(t, "promtool")
	promtool(t, scrape(t, busy(t, throttling)), "check", "metrics")
}

func TestAlertRules(t *testing.T) {
	promtool(t, nil, "check", "rules", deploy+"/prometheus/alerts.yaml")
	promtool(t, nil, "test", "rules", deploy+"/prometheus/alerts_test.yaml")
}

// expressions are what the dashboard asks Prometheus.
func expressions(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(deploy + "/grafana/tollgate.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Annotations struct{ List []struct{ Expr string } }
		Panels      []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range dashboard.Annotations.List {
		all = append(all, a.Expr)
	}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			all = append(all, strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*").Replace(target.Expr))
		}
	}
	return all
}

func TestDashboardExpressions(t *testing.T) {
	all := expressions(t)
	if len(all) < 20 {
		t.Fatalf("only %d expressions", len(all))
	}
	var b strings.Builder
	b.WriteString("groups: [{name: dashboard, rules: [\n")
	for i, e := range all {
		fmt.Fprintf(&b, "{record: %q, expr: %q},\n", fmt.Sprint("panel_", i), e)
	}
	b.WriteString("]}]\n")
	path := t.TempDir() + "/dashboard.yaml"
	write(t, path, b.String())
	promtool(t, nil, "check", "rules", path)
}

// TestDashboardAndAlertsAskForWhatThereIs has every name that they use be one
// that a running server exposes.
func TestDashboardAndAlertsAskForWhatThereIs(t *testing.T) {
	alerts, err := os.ReadFile(deploy + "/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(alerts)) {
		if !strings.Contains(line, "description:") && !strings.Contains(line, "summary:") {
			text.WriteString(line)
		}
	}
	text.WriteString(strings.Join(expressions(t), "\n"))
	used := regexp.MustCompile(`\b(tollgate|grpc_server|go|process)_[a-z_]+`).FindAllString(text.String(), -1)
	slices.Sort(used)
	used = slices.Compact(used)
	if len(used) < 12 {
		t.Fatalf("found only the names %v", used)
	}
	exposed := string(scrape(t, busy(t, throttling)))
	for _, name := range used {
		if !regexp.MustCompile(`(?m)^` + name + `[{ ]`).MatchString(exposed) {
			t.Errorf("%s is used, but not exposed", name)
		}
	}
}

// TestPrometheusScrapes has a real Prometheus take histograms of both kinds and
// exemplars from a running server.
func TestPrometheusScrapes(t *testing.T) {
	binary := program(t, "prometheus")
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+receiver.HTTP)
	r := busy(t, base+"telemetry: {traces: otlp}\n")
	for _, c := range []struct{ name, features, series, count, p99 string }{
		{"native", "native-histograms,exemplar-storage", "tollgate_decision_seconds", "histogram_count(tollgate_decision_seconds%s)", "tollgate_decision_seconds"},
		{"classic", "exemplar-storage", "tollgate_decision_seconds_bucket", "tollgate_decision_seconds_count%s", "tollgate_decision_seconds_bucket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := startPrometheus(t, binary, r.HTTPAddr(), c.features)
			ask := func(path string, query url.Values) string {
				resp, err := http.Get("http://" + addr + path + "?" + query.Encode())
				if err != nil {
					return err.Error() // not up yet
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				return string(body)
			}
			throttled := `{api="ext_authz",outcome="throttled"}`
			eventually(t, "a histogram in Prometheus", func() bool {
				return strings.Contains(ask("/api/v1/query", url.Values{"query": {fmt.Sprintf(c.count, throttled)}}), `"2"]`)
			})
			for _, query := range []string{
				`tollgate_decisions_total{api="ratelimit",rule="user",outcome="throttled"} == 2`,
				`tollgate_consumer_decisions_total{consumer="billing",outcome="admitted"} == 1`,
				`histogram_quantile(0.99, ` + c.p99 + throttled + `) > 0`,
			} {
				if got := ask("/api/v1/query", url.Values{"query": {query}}); !strings.Contains(got, `"value":[`) {
					t.Errorf("%s: %s", query, got)
				}
			}
			now := time.Now()
			got := ask("/api/v1/query_exemplars", url.Values{"query": {c.series},
				"start": {now.Add(-time.Minute).Format(time.RFC3339)}, "end": {now.Add(time.Minute).Format(time.RFC3339)}})
			if !regexp.MustCompile(`"trace_id":"[0-9a-f]{32}"`).MatchString(got) {
				t.Errorf("exemplars: %s", got)
			}
			if got := ask("/api/v1/rules", nil); !strings.Contains(got, "TollgateConfigNotInForce") {
				t.Errorf("rules: %s", got)
			}
		})
	}
}

// TestDashboardShowsData has a real Prometheus scrape a running server and answer
// all that the dashboard asks, with a number in each answer.
func TestDashboardShowsData(t *testing.T) {
	binary := program(t, "prometheus")
	r := busy(t, throttling)
	addr := startPrometheus(t, binary, r.HTTPAddr(), "exemplar-storage")
	token := r.newToken(t, "more", "1/h")
	next := time.NewTicker(100 * time.Millisecond)
	defer next.Stop()
	waiting := expressions(t)
	var last string
	for deadline := time.Now().Add(time.Minute); len(waiting) > 0 && time.Now().Before(deadline); <-next.C {
		r.check(t, token)
		r.overLimit(t, "alice")
		_, _ = rlsv3.NewRateLimitServiceClient(r.conn).ShouldRateLimit(t.Context(), new(rlsv3.RateLimitRequest)) // for the panel of errors
		waiting = slices.DeleteFunc(waiting, func(e string) bool {
			query := strings.NewReplacer("[5m]", "[10s]", "[1m]", "[10s]").Replace(e)
			resp, err := http.Get("http://" + addr + "/api/v1/query?" + url.Values{"query": {query}}.Encode())
			if err != nil {
				return false // not up yet
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			last = query + ": " + string(body)
			if strings.Contains(e, "changes(") { // which reloads there were: none
				return strings.Contains(last, `"status":"success"`)
			}
			return regexp.MustCompile(`"value":\[[0-9.]+,"[0-9.e+-]+"\]`).Match(body)
		})
	}
	for _, e := range waiting {
		t.Errorf("no data: %s", e)
	}
	if len(waiting) > 0 {
		t.Log(last)
	}
}

// startPrometheus runs one that scrapes target and loads the alert rules.
func startPrometheus(t *testing.T, binary, target, features string) string {
	t.Helper()
	addr, dir := redistest.FreeAddr(t), t.TempDir()
	alerts, err := filepath.Abs(deploy + "/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/prometheus.yml", fmt.Sprintf(`global: {scrape_interval: 500ms}
rule_files: [%q]
scrape_configs: [{job_name: tollgate, static_configs: [{targets: [%q]}]}]
`, alerts, target))
	var log buffer
	cmd := exec.Command(binary, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+addr,
		"--enable-feature="+features)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus' log:\n%s", log.String())
		}
	})
	return addr
}
