package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

// TestLogLevelChangesThroughTheAPI: at once, kept over a restart, and with an event.
func TestLogLevelChangesThroughTheAPI(t *testing.T) {
	r := start(t, base+"telemetry: {log: {level: warn}}\n")
	next := r.follow(t, "")
	r.check(t, "guessed")
	r.must(t, 200, "PUT", "/v1/settings", `{"log_level":"info"}`, nil)
	if e := next(); e.Kind != "settings.set" || e.Before["log_level"] != "warn" || e.After["log_level"] != "info" || e.After["mode"] != "enforce" {
		t.Errorf("the event is %+v", e)
	}
	if r.check(t, "guessed"); strings.Count(r.log.String(), `"msg":"request refused"`) != 1 { // of a burst that began unlogged
		t.Errorf("at info, the log holds\n%s", r.log.String())
	}
	r.must(t, 422, "PUT", "/v1/settings", `{"log_level":"loud"}`, nil)
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	var now struct {
		Level string `json:"log_level"`
	}
	if r.must(t, 200, "GET", "/v1/settings", "", &now); now.Level != "info" {
		t.Errorf("after a restart the level is %q, want info", now.Level)
	}
	write(t, r.dir+"/tollgate.yaml", base+"telemetry: {log: {level: error}}\n") // the file's new value wins
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if r.must(t, 200, "GET", "/v1/settings", "", &now); now.Level != "error" {
		t.Errorf("after a change of the file the level is %q, want error", now.Level)
	}
}

// TestWhoIsRefusedNow: by which limit, since when, and whether an upstream is
// the reason, over the API and in metrics.
func TestWhoIsRefusedNow(t *testing.T) {
	r := start(t, base+"telemetry: {log: {level: error, refusals_every: 30s}}\n")
	token := r.newToken(t, "billing", "1/h")
	before := time.Now().Add(-time.Second)
	for range 4 {
		r.check(t, token)
	}
	r.check(t, "guessed")
	r.overLimit(t, "alice")
	r.overLimit(t, "alice")
	var got struct{ Refusals []telemetry.Refusal }
	r.must(t, 200, "GET", "/v1/refusals", "", &got)
	for i := range got.Refusals {
		if since := got.Refusals[i].Since; since.Before(before) || since.After(time.Now()) {
			t.Errorf("it began at %s", since)
		}
		got.Refusals[i].Since = time.Time{}
	}
	want := []telemetry.Refusal{
		{Consumer: "billing", Token: "prod", API: "ext_authz", Outcome: "throttled", Reason: "rate-limited", Limit: "rate-1-h", Rate: "1/h", Refused: 3},
		{API: "ext_authz", Outcome: "unauthenticated", Reason: "invalid-credentials", Refused: 1},
		{API: "ratelimit", Outcome: "throttled", Reason: "rate-limited", Limit: "fixed_window-1-d", Rate: "fixed_window: 1/d", Rule: "user", Refused: 1},
	}
	if diff := cmp.Diff(want, got.Refusals); diff != "" {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}
	exposed := string(scrape(t, r))
	if line := `tollgate_refusals_since_requests{consumer="billing",limit="rate-1-h",reason="rate-limited",rule="",upstream=""} 3`; !strings.Contains(exposed, line) {
		t.Errorf("the metrics lack %s", line)
	}
}

func TestLogLevelChangesWithAReload(t *testing.T) {
	r := start(t, base+"telemetry: {log: {level: warn}}\n")
	if r.check(t, "guessed"); strings.Contains(r.log.String(), "request refused") {
		t.Errorf("at warn, the log holds\n%s", r.log.String())
	}
	write(t, r.dir+"/tollgate.yaml", base+"telemetry: {log: {level: info, refusals_every: 50ms}}\n")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal in the log", func() bool {
		r.check(t, "guessed")
		return strings.Contains(r.log.String(), `"msg":"request refused"`)
	})
}

// TestRulesCountForThemselves: what each rule's limit says, also where it only
// watches and where requests come by ext_authz, and over a reload.
func TestRulesCountForThemselves(t *testing.T) {
	r := start(t, base+"authz: {descriptors: [[method]]}\n")
	const some = `domain: mesh
descriptors:
- {key: user, rate_limit: {unit: day, requests_per_unit: 10}}
- {key: user, value: watched, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: user, value: free, rate_limit: {unlimited: true}}
- {key: method, rate_limit: {unit: day, requests_per_unit: 2}}
`
	write(t, r.dir+"/rules.yaml", some)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	token := r.newToken(t, "billing", "1000/s")
	for range 12 {
		r.overLimit(t, "alice")
	}
	for range 3 {
		r.overLimit(t, "watched")
		r.overLimit(t, "free")
		r.check(t, token)
	}
	write(t, r.dir+"/rules.yaml", some+"- {key: more, rate_limit: {unit: day, requests_per_unit: 1}}\n")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`near_limit_total{domain="mesh",limit="",rule="user_free"} 0`,
		`near_limit_total{domain="mesh",limit="fixed_window-1-d",rule="user_watched"} 1`,
		`near_limit_total{domain="mesh",limit="fixed_window-10-d",rule="user"} 2`,
		`near_limit_total{domain="mesh",limit="fixed_window-2-d",rule="method"} 1`,
		`over_limit_total{domain="mesh",limit="",rule="user_free"} 0`,
		`over_limit_total{domain="mesh",limit="fixed_window-1-d",rule="user_watched"} 2`,
		`over_limit_total{domain="mesh",limit="fixed_window-10-d",rule="user"} 2`,
		`over_limit_total{domain="mesh",limit="fixed_window-2-d",rule="method"} 1`,
		`shadow_mode_total{domain="mesh",limit="",rule="user_free"} 0`,
		`shadow_mode_total{domain="mesh",limit="fixed_window-1-d",rule="user_watched"} 2`,
		`shadow_mode_total{domain="mesh",limit="fixed_window-10-d",rule="user"} 0`,
		`shadow_mode_total{domain="mesh",limit="fixed_window-2-d",rule="method"} 0`,
		`within_limit_total{domain="mesh",limit="",rule="user_free"} 3`,
		`within_limit_total{domain="mesh",limit="fixed_window-1-d",rule="user_watched"} 1`,
		`within_limit_total{domain="mesh",limit="fixed_window-10-d",rule="user"} 10`,
		`within_limit_total{domain="mesh",limit="fixed_window-2-d",rule="method"} 2`,
	}
	var got []string
	for line := range strings.Lines(string(scrape(t, r))) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "tollgate_rule_"); ok {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
