package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// told is an event as followers and files see it.
type told struct {
	ID, Kind, What, Actor string
	Before, After         map[string]any
}

// follow opens GET /v1/events and returns what reads its next event.
func (r *running) follow(t *testing.T, after string) func() told {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.HTTPAddr()+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("last-event-id", after)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if kind := resp.Header.Get("content-type"); resp.StatusCode != 200 || kind != "text/event-stream" {
		t.Fatalf("GET /v1/events = %s of type %s", resp.Status, kind)
	}
	lines := bufio.NewScanner(resp.Body)
	return func() told {
		t.Helper()
		id := ""
		for lines.Scan() {
			if value, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = value
			}
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var e told
			if err := json.Unmarshal([]byte(data), &e); err != nil || e.ID != id {
				t.Fatalf("%v in %s with the id %q", err, data, id)
			}
			return e
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return told{}
	}
}

// TestEventsTellEveryChange follows what is changed, by API and by file, and
// reads the same in the audit file.
func TestEventsTellEveryChange(t *testing.T) {
	r := start(t, base+"telemetry: {audit: audit.log}\n")
	next := r.follow(t, "")
	token := r.newToken(t, "billing", "1/h")
	r.must(t, 200, "PUT", "/v1/consumers/billing", `{"limits":"2/h"}`, nil)
	var issued struct{ Token string }
	r.must(t, 201, "POST", "/v1/consumers/billing/tokens/prod/rotate", `{"overlap":"1h"}`, &issued)
	r.must(t, 204, "DELETE", "/v1/consumers/billing/usage", "", nil)
	r.must(t, 204, "DELETE", "/v1/consumers/billing/tokens/prod", "", nil)
	r.must(t, 200, "PUT", "/v1/settings", `{"mode":"shadow"}`, nil)
	r.must(t, 204, "POST", "/v1/refresh", "", nil)
	r.must(t, 204, "DELETE", "/v1/consumers/billing", "", nil)
	write(t, r.dir+"/rules.yaml", fmt.Sprintf(rules, 7))

	var got []string
	var events []told
	for range 10 {
		e := next()
		got, events = append(got, e.Kind+" "+e.What), append(events, e)
	}
	want := []string{
		"consumer.set consumer billing", "token.issue token prod of consumer billing", "consumer.set consumer billing",
		"token.rotate token prod of consumer billing", "usage.reset consumer billing", "token.revoke token prod of consumer billing",
		"settings.set settings", "source.refresh consumers", "consumer.remove consumer billing", "config.reload configuration",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"before the first set", events[0].Before, map[string]any(nil)},
		{"before the second set", events[2].Before["limits"], events[0].After["limits"]},
		{"mode before", events[6].Before["mode"], "enforce"},
		{"mode after", events[6].After["mode"], "shadow"},
		{"before the removal", events[8].Before["limits"], events[2].After["limits"]},
		{"after the removal", events[8].After, map[string]any(nil)},
		{"who reloaded", events[9].Actor, "file watch"},
		{"mode of what was reloaded", events[9].After["mode"], "shadow"},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
	if from := events[0].Actor; !strings.HasPrefix(from, "local 127.0.0.1:") {
		t.Errorf("the actor is %q, want this machine's address", from)
	}
	if events[9].Before["sha256"] == events[9].After["sha256"] {
		t.Error("the reload of a changed file shows no difference")
	}

	text, err := os.ReadFile(r.dir + "/audit.log")
	if err != nil || strings.Count(string(text), "\n") != 10 {
		t.Errorf("the audit file has %d lines (%v), want 10", strings.Count(string(text), "\n"), err)
	}
	for _, secret := range []string{token, issued.Token} {
		if strings.Contains(string(text), secret) || strings.Contains(r.log.String(), secret) {
			t.Error("the audit or the log holds a token")
		}
	}

	again := r.follow(t, events[7].ID)
	for _, want := range got[8:] {
		if e := again(); e.Kind+" "+e.What != want {
			t.Errorf("after the eighth: %s %s, want %s", e.Kind, e.What, want)
		}
	}
	if e := r.follow(t, "earlier-5")(); e.Kind != "events.missed" {
		t.Errorf("after an id of an earlier run: %s, want events.missed", e.Kind)
	}
}

// TestAuditFileIsOpenedAnew: a file that was moved away is let go by a reload.
func TestAuditFileIsOpenedAnew(t *testing.T) {
	r := start(t, base+"telemetry: {audit: audit.log}\n")
	r.must(t, 200, "PUT", "/v1/consumers/a", `{}`, nil)
	if err := os.Rename(r.dir+"/audit.log", r.dir+"/audit.log.1"); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	r.must(t, 200, "PUT", "/v1/consumers/b", `{}`, nil)
	for file, want := range map[string]string{"audit.log.1": `"consumer a"`, "audit.log": `"consumer b"`} {
		if text, err := os.ReadFile(r.dir + "/" + file); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s is %s (%v), want it to tell of %s", file, text, err, want)
		}
	}
	write(t, r.dir+"/tollgate.yaml", base+"telemetry: {audit: no/such/folder}\n")
	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), "telemetry.audit") {
		t.Errorf("Reload with an audit file that cannot be opened = %v", err)
	}
	r.must(t, 200, "PUT", "/v1/consumers/c", `{}`, nil)
	if text, err := os.ReadFile(r.dir + "/audit.log"); err != nil || !strings.Contains(string(text), `"consumer c"`) {
		t.Errorf("after the failed reload the audit is %s (%v), want it to go on", text, err)
	}
}

func TestAuditInTheLog(t *testing.T) {
	r := start(t, base)
	r.must(t, 200, "PUT", "/v1/consumers/billing", `{"limits":"1/h"}`, nil)
	if want := `"msg":"audit","event":{"id":`; !strings.Contains(r.log.String(), want) {
		t.Errorf("no %s in the log:\n%s", want, r.log.String())
	}
}

// TestStreamsAreBounded: and end with the server, which a reader does not delay.
func TestStreamsAreBounded(t *testing.T) {
	r := start(t, base)
	for range 32 {
		r.follow(t, "")
	}
	var p struct{ Status int }
	if got := r.call(t, "GET", "/v1/events", "", &p); got != 503 || p.Status != 503 {
		t.Errorf("stream 33 = %d, want the problem 503", got)
	}
	began := time.Now()
	if err := r.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 30*time.Second { // they go on for a minute
		t.Errorf("draining took %s: it waited for those who follow", took)
	}
}
