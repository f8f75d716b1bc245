package console_test

import (
	"crypto/sha256"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/console"
)

const adminToken = "admin-secret"

type fixture struct {
	*console.Console
	token config.TokenHash
}

func newFixture() *fixture {
	f := &fixture{token: sha256.Sum256([]byte(adminToken))}
	f.Console = console.New(console.Options{AdminToken: func() config.TokenHash { return f.token }, Log: slog.New(slog.DiscardHandler)})
	return f
}

// ask sends a request as a browser does; headers are pairs.
func (f *fixture) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := request(method, path, body, headers...)
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func request(method, path, body string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, "http://tollgate.internal:8080"+path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (f *fixture) signIn(t *testing.T) string {
	t.Helper()
	w := f.ask("POST", "/console/session", `{"token":"`+adminToken+`"}`, "origin", "http://tollgate.internal:8080")
	if w.Code != http.StatusNoContent || len(w.Result().Cookies()) != 1 {
		t.Fatalf("sign-in answers %d %s", w.Code, w.Body)
	}
	c := w.Result().Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || strings.Contains(c.Value, adminToken) {
		t.Errorf("cookie %v", c)
	}
	return c.Name + "=" + c.Value
}

func TestSession(t *testing.T) {
	f := newFixture()
	if got := f.ask("GET", "/console/session", "").Body.String(); !strings.Contains(got, `"needed"`) {
		t.Errorf("before the sign-in: %s", got)
	}
	for _, c := range []struct {
		body, origin string
		want         int
	}{
		{`{"token":"guessed"}`, "http://tollgate.internal:8080", 401},
		{`{"token":""}`, "http://tollgate.internal:8080", 401},
		{`token`, "http://tollgate.internal:8080", 400},
		{`{"token":"` + strings.Repeat("x", 5000) + `"}`, "http://tollgate.internal:8080", 400},
		{`{"token":"` + adminToken + `"}`, "http://elsewhere.example", 403},
	} {
		if w := f.ask("POST", "/console/session", c.body, "origin", c.origin); w.Code != c.want || len(w.Result().Cookies()) > 0 {
			t.Errorf("%.30s from %s: %d with %d cookies, want %d", c.body, c.origin, w.Code, len(w.Result().Cookies()), c.want)
		}
	}
	cookie := f.signIn(t)
	if got := f.ask("GET", "/console/session", "", "cookie", cookie).Body.String(); !strings.Contains(got, `"done"`) {
		t.Errorf("after the sign-in: %s", got)
	}
	for _, c := range []struct {
		name, method string
		headers      []string
		want         bool
	}{
		{"the page", "PUT", []string{"cookie", cookie, "origin", "http://tollgate.internal:8080", "sec-fetch-site", "same-origin"}, true},
		{"another site", "PUT", []string{"cookie", cookie, "origin", "http://elsewhere.example"}, false},
		{"another site, told by the browser", "PUT", []string{"cookie", cookie, "sec-fetch-site", "cross-site"}, false},
		{"another port", "DELETE", []string{"cookie", cookie, "sec-fetch-site", "same-site"}, false},
		{"no cookie", "GET", nil, false},
		{"a guessed cookie", "GET", []string{"cookie", "tollgate_session=guessed"}, false},
		{"the token as the cookie", "GET", []string{"cookie", "tollgate_session=" + adminToken}, false},
	} {
		if got := f.SignedIn(request(c.method, "/v1/settings", "", c.headers...)); got != c.want {
			t.Errorf("%s: signed in = %v, want %v", c.name, got, c.want)
		}
	}
	f.token = sha256.Sum256([]byte("another"))
	if f.SignedIn(request("GET", "/v1/settings", "", "cookie", cookie)) {
		t.Error("the session outlives the admin token")
	}
	f.token = sha256.Sum256([]byte(adminToken))
	if w := f.ask("DELETE", "/console/session", "", "cookie", cookie, "origin", "http://tollgate.internal:8080"); w.Code != http.StatusNoContent {
		t.Errorf("sign-out answers %d", w.Code)
	}
	if f.SignedIn(request("GET", "/v1/settings", "", "cookie", cookie)) {
		t.Error("the session outlives the sign-out")
	}
}

func TestNoTokenNoSession(t *testing.T) {
	f := newFixture()
	cookie := f.signIn(t)
	f.token = config.TokenHash{}
	if f.SignedIn(request("GET", "/v1/settings", "", "cookie", cookie)) {
		t.Error("signed in, where there is nothing to sign in with")
	}
	if w := f.ask("POST", "/console/session", `{"token":""}`); w.Code != http.StatusUnauthorized {
		t.Errorf("sign-in without a token configured: %d", w.Code)
	}
	if got := f.ask("GET", "/console/session", "").Body.String(); !strings.Contains(got, `"none"`) {
		t.Errorf("session: %s", got)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	f := newFixture()
	first := f.signIn(t)
	for range 1000 {
		f.signIn(t)
	}
	if f.SignedIn(request("GET", "/v1/settings", "", "cookie", first)) {
		t.Error("the oldest of 1001 sessions goes on")
	}
}

func TestFiles(t *testing.T) {
	f := newFixture()
	for path, kind := range map[string]string{"/": "text/html", "/console/main.js": "text/javascript", "/console/style.css": "text/css", "/console/icon.svg": "image/svg+xml"} {
		w := f.ask("GET", path, "")
		h := w.Header()
		if w.Code != 200 || !strings.HasPrefix(h.Get("content-type"), kind) || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s", path, w.Code, h.Get("content-type"))
		}
		if csp := h.Get("content-security-policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
		if again := f.ask("GET", path, "", "if-none-match", h.Get("etag")); again.Code != http.StatusNotModified {
			t.Errorf("%s again: %d", path, again.Code)
		}
	}
	for path, want := range map[string]int{"/console/": 404, "/console/index.html": 404, "/console/../console.go": 404, "/x": 404} {
		if w := f.ask("GET", path, ""); w.Code == 200 {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

// TestEveryTextIsTranslated reads what the code says, and what there is of it in
// Chinese.
func TestEveryTextIsTranslated(t *testing.T) {
	files, err := filepath.Glob("web/*.js")
	if err != nil || len(files) < 6 {
		t.Fatal(files, err)
	}
	files = append(files, "web/index.html")
	read := func(file string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	texts := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  "((?:[^"\\]|\\.)*)": "`).FindAllStringSubmatch(read("web/text.js"), -1) {
		texts[m[1]] = false
	}
	said := regexp.MustCompile(`\b(?:t|field|table|busiest)\("((?:[^"\\]|\\.)*)"|data-(?:text|label)="([^"]*)"`)
	columns := regexp.MustCompile(`table\([^\[\n]*\[([^\]]*)\]`)
	for _, file := range files {
		text := read(file)
		var used []string
		for _, m := range said.FindAllStringSubmatch(text, -1) {
			used = append(used, m[1]+m[2])
		}
		for _, m := range columns.FindAllStringSubmatch(text, -1) {
			for _, c := range strings.Split(m[1], ",") {
				if c = strings.TrimPrefix(strings.Trim(strings.TrimSpace(c), `"`), "#"); c != "" {
					used = append(used, c)
				}
			}
		}
		for _, u := range used {
			if _, ok := texts[u]; !ok {
				t.Errorf("%s: %q is not in text.js", file, u)
			}
			texts[u] = true
		}
	}
	for text, used := range texts {
		if !used {
			t.Errorf("text.js: %q is said nowhere", text)
		}
	}
}
