package admin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/events"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/limits"
)

// fixture is an API over an embedded store.
type fixture struct {
	api       *admin.API
	log       *bytes.Buffer
	registry  *consumers.Registry
	upstreams *upstreams.Registry
	clock     *limits.Clock
	token     config.TokenHash
	events    *events.Log
	audit     bytes.Buffer
	backups   int // that were taken
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{log: new(bytes.Buffer), clock: limits.NewClock(), events: events.NewLog(events.Options{})}
	f.events.SendTo(&f.audit)
	f.upstreams = upstreams.New(upstreams.Options{Clock: f.clock})
	f.upstreams.Configure([]*upstreams.Config{{
		ID: "keeper", Signals: []upstreams.Signal{{Status: 429}}, Budget: &upstreams.Budget{Periods: []upstreams.Period{{Calls: 100, Calendar: limits.Month}}},
		Limits: []upstreams.Limit{{Limit: limits.Limit{Kind: limits.Window, N: 100, Period: 10 * time.Second}, Margin: 0.1}, {Limit: limits.Limit{Kind: limits.Quota, N: 5, Calendar: limits.Day}}},
	}})
	t.Cleanup(func() { _ = f.upstreams.Close() })
	f.registry = consumers.NewRegistry(consumers.RegistryOptions{})
	db, err := embedded.Open(t.TempDir()+"/tollgate.db", embedded.Options{Clock: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	store, err := db.Consumers(f.registry, nil)
	if err != nil {
		t.Fatal(err)
	}
	mode, limit := "enforce", "20/s"
	f.api = admin.New(admin.Options{
		SignedIn: func(*http.Request) bool { return false },
		Store:    store, Registry: f.registry, Upstreams: f.upstreams, Clock: f.clock, Top: telemetry.NewTop(10),
		Log:        slog.New(slog.NewJSONHandler(f.log, nil)),
		Events:     f.events,
		AdminToken: func() config.TokenHash { return f.token },
		Config:     func() admin.Config { return admin.Config{Files: []string{"tollgate.yaml"}} },
		Settings:   func() admin.Settings { return admin.Settings{Mode: &mode, DefaultLimit: &limit} },
		SetSettings: func(_ context.Context, s admin.Settings) error {
			if s.Mode != nil {
				mode = *s.Mode
			}
			return nil
		},
		Refresh: store.Refresh,
		Backup:  func() (*os.File, error) { f.backups++; return db.Backup() },
	})
	return f
}

// ask calls the API from this machine; headers are pairs.
func (f *fixture) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.serve(w, method, path, body, headers...)
	return w
}

func (f *fixture) serve(w http.ResponseWriter, method, path, body string, headers ...string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:1234", "localhost:8080"
	r.Header.Set("content-type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		switch headers[i] {
		case "remote":
			r.RemoteAddr = headers[i+1]
		case "host":
			r.Host = headers[i+1]
		default:
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	f.api.ServeHTTP(w, r)
}

const billing = "/v1/consumers/billing"

// TestErrors: every error is a problem document with the status of the contract.
func TestErrors(t *testing.T) {
	f := newFixture(t)
	f.ask("PUT", billing, `{}`)
	f.ask("POST", billing+"/tokens", `{"id":"prod"}`)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		detail                   string
	}{
		{"unknown page", "GET", "/v1/nothing", "", 404, "no such page"},
		{"unknown consumer", "GET", "/v1/consumers/nobody", "", 404, "nobody"},
		{"usage of unknown", "GET", "/v1/consumers/nobody/usage", "", 404, "nobody"},
		{"reset of unknown", "DELETE", "/v1/consumers/nobody/usage", "", 404, "nobody"},
		{"tokens of unknown", "GET", "/v1/consumers/nobody/tokens", "", 404, "nobody"},
		{"issue to unknown", "POST", "/v1/consumers/nobody/tokens", `{"id":"a"}`, 404, "nobody"},
		{"revoke unknown", "DELETE", billing + "/tokens/nothing", "", 404, "nothing"},
		{"rotate unknown", "POST", billing + "/tokens/nothing/rotate", `{}`, 404, "nothing"},
		{"remove unknown", "DELETE", "/v1/consumers/nobody", "", 404, "nobody"},
		{"wrong method", "PATCH", billing, "", 405, "DELETE or GET or HEAD"},
		{"not JSON", "PUT", billing, `{"plan":`, 400, "not one JSON document"},
		{"two documents", "PUT", billing, `{}{}`, 400, "not one JSON document"},
		{"not UTF-8", "PUT", billing, "{\"plan\":\"\xff\"}", 400, "UTF-8"},
		{"bad page size", "GET", "/v1/consumers?page_size=none", "", 400, "page_size"},
		{"bad page token", "GET", "/v1/consumers?page_token=!", "", 400, "page_token"},
		{"bad ranking", "GET", "/v1/top?by=size", "", 400, "by"},
		{"unknown member", "PUT", billing, `{"lmits":[]}`, 422, `unknown field "lmits"`},
		{"wrong type", "PUT", billing, `{"disabled":"yes"}`, 422, "disabled"},
		{"bad limits, all named", "PUT", billing, `{"limits":[{"rate":"5/fortnight"},{"pace":"-1/s"}]}`, 422, "limits[1]"},
		{"unknown plan", "PUT", billing, `{"plan":"gold"}`, 422, "gold"},
		{"another id", "PUT", billing, `{"id":"other"}`, 422, "other"},
		{"bad id", "PUT", "/v1/consumers/a%20b", `{}`, 422, "letters, digits"},
		{"empty label", "PUT", billing, `{"labels":{"":"x"}}`, 422, "labels"},
		{"bad token id", "POST", billing + "/tokens", `{"id":"a/b"}`, 422, "letters, digits"},
		{"no token id", "POST", billing + "/tokens", `{}`, 422, "id"},
		{"past expiry", "POST", billing + "/tokens", `{"id":"a","expires":"2001-01-01T00:00:00Z"}`, 422, "still to come"},
		{"far expiry", "POST", billing + "/tokens", `{"id":"a","expires":"2999-01-01T00:00:00Z"}`, 422, "2262"},
		{"bad expiry", "POST", billing + "/tokens", `{"id":"a","expires":"soon"}`, 422, "soon"},
		{"bad overlap", "POST", billing + "/tokens/prod/rotate", `{"overlap":"-1s"}`, 422, "overlap"},
		{"bad mode", "PUT", "/v1/settings", `{"mode":"sometimes"}`, 422, "mode"},
		{"bad default", "PUT", "/v1/settings", `{"default_limit":"-5/s"}`, 422, "default_limit"},
		{"duplicate token", "POST", billing + "/tokens", `{"id":"prod"}`, 409, "prod"},
		{"too large", "PUT", billing, `{"plan":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := f.ask(c.method, c.path, c.body)
			var p admin.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			if w.Code != c.status || p.Status != c.status || w.Header().Get("content-type") != "application/problem+json" || p.Type == "" || p.Title == "" {
				t.Errorf("%d %v %+v, want a problem of status %d", w.Code, w.Header(), p, c.status)
			}
			if !strings.Contains(p.Detail, c.detail) {
				t.Errorf("detail %q does not name %q", p.Detail, c.detail)
			}
		})
	}
	if allow := f.ask("PATCH", billing, "").Header().Get("allow"); allow != "DELETE, GET, HEAD, OPTIONS, PUT" {
		t.Errorf("allow: %q", allow)
	}
}

func TestWhoMayCall(t *testing.T) {
	f := newFixture(t)
	secret := sha256.Sum256([]byte("secret"))
	for _, c := range []struct {
		name    string
		token   config.TokenHash
		headers []string
		want    int
	}{
		{name: "from here", want: 200},
		{name: "over IPv6", headers: []string{"remote", "[::1]:1", "host", "[::1]:8080"}, want: 200},
		{name: "mapped IPv4", headers: []string{"remote", "[::ffff:127.0.0.1]:1"}, want: 200},
		{name: "own page", headers: []string{"origin", "http://localhost:8080"}, want: 200},
		{name: "from elsewhere", headers: []string{"remote", "10.0.0.1:1"}, want: 403},
		{name: "foreign host", headers: []string{"host", "evil.example"}, want: 403},
		{name: "host that begins like ours", headers: []string{"host", "localhost.evil.example"}, want: 403},
		{name: "foreign page", headers: []string{"origin", "http://evil.example"}, want: 403},
		{name: "page on another port", headers: []string{"origin", "http://localhost:3000"}, want: 403},
		{name: "opaque page", headers: []string{"origin", "null"}, want: 403},
		{name: "no token shown", token: secret, want: 401},
		{name: "wrong token", token: secret, headers: []string{"authorization", "Bearer guess"}, want: 401},
		{name: "token in another scheme", token: secret, headers: []string{"authorization", "Basic secret"}, want: 401},
		{name: "token", token: secret, headers: []string{"authorization", "Bearer secret"}, want: 200},
		{name: "token from elsewhere", token: secret, headers: []string{"authorization", "bearer secret", "remote", "10.0.0.1:1", "host", "admin.example"}, want: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.token = c.token
			w := f.ask("GET", "/v1/settings", "", c.headers...)
			if w.Code != c.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.want)
			}
			if challenge := w.Header().Get("www-authenticate"); (challenge != "") != (c.want == 401) {
				t.Errorf("www-authenticate: %q with %d", challenge, w.Code)
			}
		})
	}
	f.token = config.TokenHash{}
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", ""} {
		if w := f.ask("PUT", "/v1/settings", `{"mode":"off"}`, "content-type", kind); w.Code != 415 {
			t.Errorf("content-type %q: %d, want 415", kind, w.Code)
		}
	}
}

func TestLostRaces(t *testing.T) {
	f := newFixture(t)
	first := f.ask("PUT", billing, `{"limits":[{"rate":"1/s"}]}`, "if-none-match", "*")
	if first.Code != 200 {
		t.Fatalf("add: %d %s", first.Code, first.Body)
	}
	if w := f.ask("PUT", billing, `{}`, "if-none-match", "*"); w.Code != 409 {
		t.Errorf("adding what is there: %d, want 409", w.Code)
	}
	tag := f.ask("GET", billing, "").Header().Get("etag")
	if tag != first.Header().Get("etag") {
		t.Errorf("etag %s after a PUT that said %s", tag, first.Header().Get("etag"))
	}
	if w := f.ask("PUT", billing, `{"limits":[{"rate":"2/s"}]}`, "if-match", tag); w.Code != 200 {
		t.Errorf("of the version that was read: %d %s", w.Code, w.Body)
	}
	for _, stale := range []string{tag, `"nonsense!"`, `"0"`} {
		if w := f.ask("PUT", billing, `{}`, "if-match", stale); w.Code != 409 {
			t.Errorf("if-match %s: %d, want 409", stale, w.Code)
		}
		if w := f.ask("DELETE", billing, "", "if-match", stale); w.Code != 409 {
			t.Errorf("DELETE if-match %s: %d, want 409", stale, w.Code)
		}
	}
	if w := f.ask("PUT", "/v1/consumers/nobody", `{}`, "if-match", "*"); w.Code != 404 {
		t.Errorf("if-match * of nobody: %d, want 404", w.Code)
	}
	if body := f.ask("GET", billing, "").Body.String(); !strings.Contains(body, "2/s") {
		t.Errorf("a lost race changed it: %s", body)
	}
}

func TestTokens(t *testing.T) {
	f := newFixture(t)
	f.ask("PUT", billing, `{}`)
	issue := func(w *httptest.ResponseRecorder) string {
		t.Helper()
		var issued admin.Issued
		if err := json.Unmarshal(w.Body.Bytes(), &issued); err != nil || w.Code != 201 || issued.ID != "prod" {
			t.Fatalf("%d %s (%v), want 201 with the token prod", w.Code, w.Body, err)
		}
		if !strings.HasPrefix(issued.Token, "tg_") || !consumers.WellFormed(issued.Token) {
			t.Errorf("token %q is not one of Tollgate's", issued.Token)
		}
		return issued.Token
	}
	stands := func(token string, want consumers.Standing) {
		t.Helper()
		if _, got := f.registry.Resolve(f.clock.Now(), token); got != want {
			t.Errorf("standing %v, want %v", got, want)
		}
	}
	old := issue(f.ask("POST", billing+"/tokens", `{"id":"prod","expires":"2200-01-01T00:00:00Z"}`))
	stands(old, consumers.Valid)
	during := issue(f.ask("POST", billing+"/tokens/prod/rotate", `{"overlap":"1h"}`))
	stands(old, consumers.Valid)
	stands(during, consumers.Valid)
	last := issue(f.ask("POST", billing+"/tokens/prod/rotate", ""))
	stands(during, consumers.Unknown)
	stands(last, consumers.Valid)
	list := f.ask("GET", billing+"/tokens", "").Body.String()
	if strings.Contains(list, "tg_") || strings.Contains(list, consumers.HashOf(last).String()) || !strings.Contains(list, `"expires":"2200-01-01T00:00:00Z"`) {
		t.Errorf("tokens: %s", list)
	}
	if w := f.ask("DELETE", billing+"/tokens/prod", ""); w.Code != 204 {
		t.Errorf("revoke: %d", w.Code)
	}
	stands(last, consumers.Unknown)
	for _, secret := range []string{old, during, last} {
		for _, held := range []string{secret, consumers.HashOf(secret).String()} {
			if strings.Contains(f.log.String(), held) || strings.Contains(f.audit.String(), held) {
				t.Error("the log or the audit holds a token")
			}
		}
	}
	if n := strings.Count(f.audit.String(), "\n"); n != 5 {
		t.Errorf("%d events of 5 changes:\n%s", n, &f.audit)
	}
}

func TestPages(t *testing.T) {
	f := newFixture(t)
	for i := range 7 {
		f.ask("PUT", fmt.Sprintf("/v1/consumers/c%d", i), `{}`)
	}
	var ids []string
	for token, pages := "", 0; ; pages++ {
		var page admin.ConsumerPage
		w := f.ask("GET", "/v1/consumers?page_size=3&page_token="+token, "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || pages > 3 {
			t.Fatalf("page %d: %v %s", pages, err, w.Body)
		}
		for _, c := range page.Consumers {
			ids = append(ids, c.ID)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if got := strings.Join(ids, " "); got != "c0 c1 c2 c3 c4 c5 c6" {
		t.Errorf("pages hold %s", got)
	}
}

func TestUsage(t *testing.T) {
	f := newFixture(t)
	f.ask("PUT", billing, `{"limits":[{"rate":"10/h","burst":10,"name":"hourly"}]}`)
	f.ask("POST", billing+"/tokens", `{"id":"prod"}`)
	usage := func() admin.LimitUsage {
		t.Helper()
		var u admin.Usage
		w := f.ask("GET", billing+"/usage", "")
		if err := json.Unmarshal(w.Body.Bytes(), &u); err != nil || len(u.Usage) != 1 {
			t.Fatalf("%v: %s", err, w.Body)
		}
		return u.Usage[0]
	}
	if u := usage(); u.Token != "prod" || u.Limit != "hourly" || u.Remaining != 10 {
		t.Errorf("unused: %+v", u)
	}
	f.registry.Each(func(g consumers.Grant) bool {
		g.Limiter(0).Take(f.clock.Now(), 4)
		return true
	})
	if u := usage(); u.Remaining != 6 || u.Reset < 1000 || u.Reset > 1500 || u.Admitted == 0 {
		t.Errorf("after 4 of 10: %+v, want 6 left and 1440 s", u)
	}
	if w := f.ask("DELETE", billing+"/usage", ""); w.Code != 204 {
		t.Errorf("reset: %d", w.Code)
	}
	if u := usage(); u.Remaining != 10 {
		t.Errorf("after the reset: %+v", u)
	}
}

// TestClientExplainsItself: what people see when the server cannot help them.
func TestClientExplainsItself(t *testing.T) {
	f := newFixture(t)
	f.token = sha256.Sum256([]byte("secret"))
	s := httptest.NewServer(f.api)
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer stranger.Close()
	for _, c := range []struct {
		name   string
		client admin.Client
		want   string
	}{
		{"no token", admin.Client{Server: s.URL}, "TOLLGATE_ADMIN_TOKEN"},
		{"another server", admin.Client{Server: stranger.URL}, "check --server"},
		{"no address", admin.Client{Server: "::"}, "want one such as"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := c.client.Settings(ctx); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a hint at %s", c.name, err, c.want)
		}
		cancel()
	}
	s.Close()
	client := admin.Client{Server: s.URL}
	if _, err := client.Settings(t.Context()); err == nil || !strings.Contains(err.Error(), "tollgate serve") {
		t.Errorf("no server: %v", err)
	}
}

func TestSearch(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"Billing", "bill-2", "search", "unbilled", "other"} {
		f.ask("PUT", "/v1/consumers/"+id, `{}`)
	}
	var ids []string
	for token := ""; ; {
		var page admin.ConsumerPage
		w := f.ask("GET", "/v1/consumers?page_size=2&q=BILL&page_token="+token, "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Consumers {
			ids = append(ids, c.ID)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if want := "Billing bill-2 unbilled"; strings.Join(ids, " ") != want {
		t.Errorf("found %v, want %v", ids, want)
	}
}

// TestBackup: only for who may call, one at a time, and never with a secret.
func TestBackup(t *testing.T) {
	f := newFixture(t)
	var issued struct{ Token string }
	f.ask("PUT", billing, `{}`)
	if err := json.Unmarshal(f.ask("POST", billing+"/tokens", `{"id":"prod"}`).Body.Bytes(), &issued); err != nil || issued.Token == "" {
		t.Fatalf("no token: %v", err)
	}
	w := f.ask("GET", "/v1/backup", "")
	if w.Code != 200 || w.Header().Get("content-length") != fmt.Sprint(w.Body.Len()) || !bytes.Contains(w.Body.Bytes(), []byte("billing")) {
		t.Errorf("HTTP %d, %v, %d bytes: want the store", w.Code, w.Header(), w.Body.Len())
	}
	if bytes.Contains(w.Body.Bytes(), []byte(issued.Token)) {
		t.Error("a token is in the backup")
	}
	if !strings.Contains(f.audit.String(), `"store.backup"`) {
		t.Errorf("nothing tells of the backup: %s", f.audit.String())
	}
	if w := f.ask("GET", "/v1/backup", "", "remote", "192.0.2.1:1"); w.Code != 403 && w.Code != 401 {
		t.Errorf("from elsewhere: HTTP %d", w.Code)
	}
	if f.backups != 1 {
		t.Errorf("%d backups were taken, want 1", f.backups)
	}

	reading := &blocked{ResponseRecorder: httptest.NewRecorder(), began: make(chan struct{}), goOn: make(chan struct{})}
	done := make(chan struct{})
	go func() { defer close(done); f.serve(reading, "GET", "/v1/backup", "") }()
	<-reading.began
	if w := f.ask("GET", "/v1/backup", ""); w.Code != 503 || w.Header().Get("retry-after") == "" {
		t.Errorf("a second at once: HTTP %d, want 503 with Retry-After", w.Code)
	}
	close(reading.goOn)
	<-done
	if w := f.ask("GET", "/v1/backup", ""); w.Code != 200 {
		t.Errorf("afterwards: HTTP %d, want 200", w.Code)
	}
}

// blocked is a caller that reads only when it is told to.
type blocked struct {
	*httptest.ResponseRecorder
	once        sync.Once
	began, goOn chan struct{}
}

func (b *blocked) Write(p []byte) (int, error) {
	b.once.Do(func() { close(b.began); <-b.goOn })
	return b.ResponseRecorder.Write(p)
}
