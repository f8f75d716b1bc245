package upstreams_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
)

// TestSignals is K-6: which answers ask for a pause, and how long a one.
func TestSignals(t *testing.T) {
	start := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	const none = time.Duration(0)
	big := `{"data":"` + strings.Repeat("x", 1<<20) + `","error":"throttled"}`
	for _, c := range []struct {
		name   string
		status int
		header string // NAME: VALUE
		body   string
		want   time.Duration // 0: no pause
	}{
		{"Keeper's refusal", 403, "", `{"path":"https://h/api/rest/sm/v1/get_secret, POST, Go","additional_info":"","location":"default exception manager","error":"throttled","message":"get_secret"}`, 10 * time.Second},
		{"with result_code", 403, "", `{"result_code":"throttled","retry_after":30}`, 30 * time.Second},
		{"retry_after as text", 403, "", `{"error":"throttled","retry_after":"42.5"}`, 42500 * time.Millisecond},
		{"retry_after below the learned pause", 403, "", `{"error":"throttled","retry_after":1}`, 10 * time.Second},
		{"retry_after beyond the cap", 429, "", `{"retry_after":1e300}`, 24 * time.Hour},
		{"retry_after negative, then good", 429, "", `{"retry_after":-5,"detail":{"retry_after":20}}`, 20 * time.Second},
		{"retry_after of another kind", 429, "", `{"retry_after":[true]}`, 10 * time.Second},
		{"bare 429", 429, "", "", 10 * time.Second},
		{"429 with seconds", 429, "Retry-After: 17", "", 17 * time.Second},
		{"429 with a date", 429, "Retry-After: Tue, 24 Nov 2026 08:00:50 GMT", "", 50 * time.Second},
		{"429 with a date long past", 429, "Retry-After: Tue, 24 Nov 2020 08:00:50 GMT", "", 10 * time.Second},
		{"429 with nonsense", 429, "Retry-After: soon", "<html>", 10 * time.Second},
		{"503 with Retry-After", 503, "Retry-After: 99", "", 99 * time.Second},
		{"503 without", 503, "", "throttled", none},
		{"access denied", 403, "", `{"error":"access_denied","message":"…"}`, none},
		{"another key is wanted", 401, "", `{"error":"key","key_id":9}`, none},
		{"200 about throttling", 200, "Retry-After: 5", `{"error":"throttled"}`, none},
		{"cut short", 403, "", `{"error":"throttled","retry_after":20,"mess`, 20 * time.Second},
		{"cut short in the number", 403, "", `{"error":"throttled","retry_after`, 10 * time.Second},
		{"a megabyte, and the word beyond what is looked at", 403, "", big, none},
		{"no JSON at all", 403, "", `x"throttled"`, 10 * time.Second},
		{"Tollgate's own", 429, "X-Tollgate-Reason: rate-limited", "", none},
	} {
		r := upstreams.New(upstreams.Options{Clock: limits.NewClock()})
		r.Configure([]*upstreams.Config{config()})
		u := r.ByID("keeper")
		h := http.Header{}
		if name, value, ok := strings.Cut(c.header, ": "); ok {
			h.Set(name, value)
		}
		now := limits.At(start)
		u.Observe(now, upstreams.Answer{Status: c.status, Header: h.Get, Body: []byte(c.body)})
		s := u.Status(now)
		got := none
		if s.State == upstreams.Frozen {
			got = s.Until.Sub(now)
		}
		if got != c.want {
			t.Errorf("%s: pause of %v, want %v", c.name, got, c.want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A date counts from the upstream's clock, where it tells it.
func TestRetryAfterByTheUpstreamsClock(t *testing.T) {
	r := upstreams.New(upstreams.Options{Clock: limits.NewClock()})
	r.Configure([]*upstreams.Config{config()})
	h := http.Header{"Date": {"Tue, 24 Nov 2026 09:30:00 GMT"}, "Retry-After": {"Tue, 24 Nov 2026 09:31:00 GMT"}}
	now := limits.At(time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC))
	r.ByID("keeper").Observe(now, upstreams.Answer{Status: 429, Header: h.Get})
	if got := r.ByID("keeper").Status(now).Until.Sub(now); got != time.Minute {
		t.Errorf("pause of %v, want 1m", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestWantsBody(t *testing.T) {
	r := upstreams.New(upstreams.Options{Clock: limits.NewClock()})
	r.Configure([]*upstreams.Config{config()})
	for status, want := range map[int]bool{200: false, 401: false, 403: true, 429: true, 500: false, 503: true} {
		if got := r.ByID("keeper").WantsBody(status); got != want {
			t.Errorf("WantsBody(%d) = %v, want %v", status, got, want)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// FuzzObserve: whatever an upstream answers, a pause is no longer than the cap.
func FuzzObserve(f *testing.F) {
	f.Add(403, "", []byte(`{"error":"throttled","retry_after":"1e5"}`))
	f.Add(429, "Tue, 24 Nov 2026 08:00:50 GMT", []byte(`[{"retry_after":`))
	f.Add(503, "9999999999999999999999", upstreamstest.Throttled(time.Second).Body)
	r := upstreams.New(upstreams.Options{Clock: limits.NewClock()})
	r.Configure([]*upstreams.Config{config()})
	f.Fuzz(func(t *testing.T, status int, retryAfter string, body []byte) {
		u, now := r.ByID("keeper"), limits.At(time.Now())
		u.Reset(now)
		u.Observe(now, upstreams.Answer{Status: status, Body: body, Header: func(name string) string {
			if name == "retry-after" {
				return retryAfter
			}
			return ""
		}})
		if s := u.Status(now); s.State == upstreams.Frozen && (s.Until.Sub(now) < 10*time.Second || s.Until.Sub(now) > 24*time.Hour) {
			t.Errorf("pause of %v", s.Until.Sub(now))
		}
	})
}
