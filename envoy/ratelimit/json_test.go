package ratelimit_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
)

func TestJSON(t *testing.T) {
	s := start(t, rules, ratelimit.Policy{})
	const ask = `{"domain":"shop","descriptors":[{"entries":[{"key":"tight","value":"x"}]}]}`
	for _, c := range []struct {
		name, method, body string
		status             int
		want               string // part of the answer
	}{
		{"OK", "POST", ask, 200, `"overallCode":"OK"`},
		{"over the limit, whatever the method", "GET", ask, 429, `"overallCode":"OVER_LIMIT"`},
		{"no JSON", "POST", "{", 400, "read request"},
		{"unknown field", "POST", `{"domian":"shop"}`, 400, "domian"},
		{"empty domain", "POST", `{}`, 400, "domain: must not be empty"},
		{"too large", "POST", strings.Repeat(" ", 2<<20), 413, "too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(c.method, "/json", strings.NewReader(c.body)))
			got := strings.ReplaceAll(w.Body.String(), " ", "") // protojson varies its spaces
			if w.Code != c.status || !strings.Contains(got, strings.ReplaceAll(c.want, " ", "")) {
				t.Errorf("%d %s, want %d with %s", w.Code, w.Body, c.status, c.want)
			}
		})
	}
}
