package webhook_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/webhook"
)

const secret = "0123456789abcdef"

// fixture is a receiver over a queue, at a time that tests move.
type fixture struct {
	*webhook.Receiver
	queue    *webhook.Queue
	registry *prometheus.Registry
	now      time.Time
}

func newFixture(t *testing.T, change func(*webhook.Hook)) *fixture {
	t.Helper()
	f := &fixture{registry: prometheus.NewRegistry(), now: time.Unix(1_780_000_000, 0), queue: openQueue(t, filepath.Join(t.TempDir(), "q.db"))}
	h := webhook.Hook{Name: "keeper", Upstream: "keeper", Secret: sha256.Sum256([]byte(secret)), Replay: 10 * time.Minute, Rate: 1000, Burst: 1000,
		Adapter: webhook.Presets()["keeper"]}
	if change != nil {
		change(&h)
	}
	f.Receiver = webhook.New(webhook.Options{Hooks: []webhook.Hook{h}, Queue: f.queue, Now: func() time.Time { return f.now },
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Registry: f.registry})
	return f
}

func openQueue(t *testing.T, file string) *webhook.Queue {
	t.Helper()
	q, err := webhook.OpenQueue(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func (f *fixture) send(body string, change func(*http.Request)) int {
	req := httptest.NewRequest(http.MethodPost, "/webhooks/keeper", strings.NewReader(body))
	req.Header.Set("authorization", "Bearer "+secret)
	if change != nil {
		change(req)
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, req)
	return w.Code
}

// jobs returns what waits, as text.
func (f *fixture) jobs(t *testing.T) string {
	t.Helper()
	all, err := f.queue.Jobs()
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, j := range all {
		text = append(text, fmt.Sprintf("%s %s %s", j.Upstream, j.Kind, j.Name))
	}
	return strings.Join(text, "; ")
}

func (f *fixture) update(record string) string {
	return fmt.Sprintf(`{"audit_event":"record_update","record_uid":%q,"timestamp":%d}`, record, f.now.Unix())
}

// TestK16RefusesAndCounts: whatever is not a new event of somebody who may send
// is refused, counted, and no job.
func TestK16RefusesAndCounts(t *testing.T) {
	f := newFixture(t, nil)
	good := f.update("a")
	for _, c := range []struct {
		name    string
		body    string
		change  func(*http.Request)
		want    int
		outcome string
	}{
		{"no secret", good, func(r *http.Request) { r.Header.Del("authorization") }, 401, "forged"},
		{"another secret", good, func(r *http.Request) { r.Header.Set("authorization", "Bearer 0123456789abcdeF") }, 401, "forged"},
		{"a longer secret", good, func(r *http.Request) { r.Header.Set("authorization", "Bearer "+secret+"0") }, 401, "forged"},
		{"another scheme", good, func(r *http.Request) { r.Header.Set("authorization", "Basic "+secret) }, 401, "forged"},
		{"another secret in the path", good, func(r *http.Request) { r.Header.Del("authorization"); r.URL.Path += "/nonsense" }, 401, "forged"},
		{"a certificate that nobody verified", good, func(r *http.Request) {
			r.Header.Del("authorization")
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{DNSNames: []string{"alerts.example.com"}}}}
		}, 401, "forged"},
		{"not JSON", "record_uid=a", nil, 400, "malformed"},
		{"half of it", good[:20], nil, 400, "malformed"},
		{"two documents", good + good, nil, 400, "malformed"},
		{"no object", `"record_update"`, nil, 400, "malformed"},
		{"no event", `{"record_uid":"a"}`, nil, 400, "malformed"},
		{"no record", `{"audit_event":"record_update"}`, nil, 400, "malformed"},
		{"a time that is none", `{"audit_event":"record_update","record_uid":"a","timestamp":"yesterday"}`, nil, 400, "malformed"},
		{"empty", "", nil, 400, "malformed"},
		{"oversized", `{"audit_event":"record_update","record_uid":"a","x":"` + strings.Repeat("x", 256<<10) + `"}`, nil, 413, "oversized"},
		{"replayed", fmt.Sprintf(`{"audit_event":"record_update","record_uid":"a","timestamp":%d}`, f.now.Add(-11*time.Minute).Unix()), nil, 403, "replayed"},
		{"of the future", fmt.Sprintf(`{"audit_event":"record_update","record_uid":"a","timestamp":%d}`, f.now.Add(11*time.Minute).UnixMilli()), nil, 403, "replayed"},
		{"unknown event", `{"audit_event":"login","record_uid":"a"}`, nil, 202, "ignored"},
		{"GET", good, func(r *http.Request) { r.Method = http.MethodGet }, 405, ""},
		{"another hook", good, func(r *http.Request) { r.URL.Path = "/webhooks/other" }, 404, ""},
		{"no hook", good, func(r *http.Request) { r.URL.Path = "/webhooks/" }, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := f.counted(c.outcome)
			if got := f.send(c.body, c.change); got != c.want {
				t.Errorf("answer = %d, want %d", got, c.want)
			}
			if got := f.counted(c.outcome) - before; c.outcome != "" && got != 1 {
				t.Errorf("%s was counted %v times, want once", c.outcome, got)
			}
			if got := f.jobs(t); got != "" {
				t.Errorf("jobs = %s, want none", got)
			}
		})
	}
}

// counted returns how often an outcome was counted.
func (f *fixture) counted(outcome string) float64 {
	families, _ := f.registry.Gather()
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "outcome" && l.GetValue() == outcome {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

// TestK16ClosedByDefault: without a hook there is nothing, and a hook with
// neither a secret nor names takes from nobody.
func TestK16ClosedByDefault(t *testing.T) {
	f := newFixture(t, func(h *webhook.Hook) { h.Secret = webhook.Digest{} })
	for _, change := range []func(*http.Request){
		nil,
		func(r *http.Request) { r.Header.Del("authorization") },
		func(r *http.Request) { r.Header.Set("authorization", "Bearer ") },
	} {
		if got := f.send(f.update("a"), change); got != 401 {
			t.Errorf("answer = %d, want 401", got)
		}
	}
}

// TestK16DuplicatesAreOne: a hundred of the same at once are one job, also when
// the first was done, and after a restart.
func TestK16DuplicatesAreOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "q.db")
	f := newFixture(t, nil)
	_ = f.queue.Close()
	reopen := func() {
		f.queue = openQueue(t, file)
		f.registry = prometheus.NewRegistry()
		f.Receiver = webhook.New(webhook.Options{Queue: f.queue, Now: func() time.Time { return f.now }, Registry: f.registry,
			Log: slog.New(slog.DiscardHandler), Hooks: []webhook.Hook{{Name: "keeper", Upstream: "keeper", Secret: sha256.Sum256([]byte(secret)),
				Replay: 10 * time.Minute, Rate: 1000, Burst: 1000, Adapter: webhook.Presets()["keeper"]}}})
	}
	reopen()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got := f.send(f.update("a"), nil); got != 202 {
				t.Errorf("answer = %d, want 202", got)
			}
		})
	}
	all.Wait()
	if accepted, duplicate := f.counted("accepted"), f.counted("duplicate"); accepted != 1 || duplicate != 99 {
		t.Errorf("%v accepted and %v duplicates, want 1 and 99", accepted, duplicate)
	}
	jobs, err := f.queue.Jobs()
	if err != nil || len(jobs) != 1 {
		t.Fatalf("jobs = %v, %v, want one", jobs, err)
	}
	if err := f.queue.Done(jobs...); err != nil {
		t.Fatal(err)
	}
	sent := f.update("a")
	_ = f.queue.Close()
	reopen()
	f.now = f.now.Add(9 * time.Minute)
	if got := f.send(sent, nil); got != 202 || f.jobs(t) != "" {
		t.Errorf("answer = %d, jobs = %s, want that it is known", got, f.jobs(t))
	}
}

// TestK16OwnRate: who may send may not send without bound.
func TestK16OwnRate(t *testing.T) {
	f := newFixture(t, func(h *webhook.Hook) { h.Rate, h.Burst = 1, 2 })
	var got []int
	for i := range 3 {
		got = append(got, f.send(f.update(fmt.Sprint(i)), nil))
	}
	f.now = f.now.Add(time.Second)
	got = append(got, f.send(f.update("later"), nil))
	if fmt.Sprint(got) != "[202 202 429 202]" {
		t.Errorf("answers = %v, want 202 202 429 202", got)
	}
}

// TestK16NothingIsTakenWithoutADisk: what is not on disk is not taken, and its
// sender is told to come again.
func TestK16NothingIsTakenWithoutADisk(t *testing.T) {
	f := newFixture(t, nil)
	_ = f.queue.Close()
	if got := f.send(f.update("a"), nil); got != 503 {
		t.Errorf("answer = %d, want 503", got)
	}
}

func TestK16ClientCertificate(t *testing.T) {
	f := newFixture(t, func(h *webhook.Hook) {
		h.Secret, h.SANs = webhook.Digest{}, []string{"alerts.example.com", "spiffe://example.com/alerts"}
	})
	spiffe, err := url.Parse("spiffe://example.com/alerts")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cert *x509.Certificate
		want int
	}{
		{"by DNS name", &x509.Certificate{DNSNames: []string{"alerts.example.com"}}, 202},
		{"by URI", &x509.Certificate{URIs: []*url.URL{spiffe}}, 202},
		{"another", &x509.Certificate{DNSNames: []string{"other.example.com"}}, 401},
	} {
		got := f.send(f.update(c.name), func(r *http.Request) {
			r.Header.Del("authorization")
			r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{c.cert}}}
		})
		if got != c.want {
			t.Errorf("%s: answer = %d, want %d", c.name, got, c.want)
		}
	}
}

func TestSecretInThePath(t *testing.T) {
	f := newFixture(t, nil)
	got := f.send(f.update("a"), func(r *http.Request) { r.Header.Del("authorization"); r.URL.Path += "/" + secret })
	if got != 202 {
		t.Errorf("answer = %d, want 202", got)
	}
}

// TestK17KeeperPreset holds the preset to samples of Keeper's audit events.
func TestK17KeeperPreset(t *testing.T) {
	const at = `,"remote_address":"10.0.0.1","category":"usage","client_version":"Web App.17.4.1","username":"a@example.com","enterprise_id":1,"timestamp":"2026-05-28T20:26:40Z"}`
	for _, c := range []struct{ body, want string }{
		{`{"audit_event":"record_update","record_uid":"AAAAAAAAAAAAAAAAAAAAAA"` + at, "keeper uid AAAAAAAAAAAAAAAAAAAAAA"},
		{`{"audit_event":"record_delete","record_uid":"b"` + at, "keeper uid b"},
		{`{"audit_event":"app_record_shared","secret_uid":"c","app_uid":"app"` + at, "keeper uid c"},
		{`{"audit_event":"app_record_removed","secret_uid":"d","app_uid":"app"` + at, "keeper uid d"},
		{`{"audit_event":"app_folder_shared","secret_uid":"folder","app_uid":"app"` + at, "keeper every "},
		{`{"audit_event":"folder_add_record","folder_uid":"folder","record_uid":"e"` + at, "keeper every "},
		{`{"audit_event":"login"` + at, ""},
	} {
		f := newFixture(t, nil)
		f.now = time.Date(2026, 5, 28, 20, 27, 0, 0, time.UTC)
		if got := f.send(c.body, nil); got != 202 || f.jobs(t) != c.want {
			t.Errorf("%s: answer = %d, jobs = %q, want 202 and %q", c.body[:40], got, f.jobs(t), c.want)
		}
	}
}

// TestK17AdapterOfOnesOwn: another sender, by paths.
func TestK17AdapterOfOnesOwn(t *testing.T) {
	path := func(s string) webhook.Path {
		p, err := webhook.ParsePath(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	f := newFixture(t, func(h *webhook.Hook) {
		h.Adapter = webhook.Adapter{Event: path("$.detail['event name']"), Records: []webhook.Path{path("$.resources[*].arn")}, Titles: []webhook.Path{path("$.title")},
			ID: path("$.id"), Time: path("$.time"), Effects: map[string]webhook.Effect{"PutSecretValue": webhook.Record}}
	})
	body := `{"id":"1","time":"` + f.now.UTC().Format(time.RFC3339) + `","title":"db","detail":{"event name":"PutSecretValue"},"resources":[{"arn":"a"},{"arn":"b"},{}]}`
	for _, again := range []string{body, body, strings.Replace(body, `"db"`, `"other"`, 1)} { // the id tells, not the body
		if got := f.send(again, nil); got != 202 {
			t.Errorf("answer = %d, want 202", got)
		}
	}
	for _, want := range []string{"uid a", "uid b", "title db"} {
		if got := f.jobs(t); !strings.Contains(got, want) || strings.Contains(got, "other") {
			t.Errorf("jobs = %s, want %s, and nothing of the one that came twice", got, want)
		}
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	f := newFixture(t, nil)
	if problems, err := testutil.GatherAndLint(f.registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
