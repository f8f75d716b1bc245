package console

import (
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strings"

	"github.com/tollgate-dev/tollgate/internal/config"
)

//go:embed web
var web embed.FS

// policy lets the page use what comes from this server, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// maxBody bounds a sign-in.
const maxBody = 4 << 10

var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Options are what a Console needs. Nothing of it may be nil.
type Options struct {
	AdminToken func() config.TokenHash // zero: none is configured
	Log        *slog.Logger
}

// Console serves / and what is below /console/. Safe for concurrent use.
type Console struct {
	o        Options
	mux      *http.ServeMux
	sessions *sessions
	foreign  *http.CrossOriginProtection
}

// New returns the console.
func New(o Options) *Console {
	c := &Console{o: o, mux: http.NewServeMux(), sessions: newSessions(), foreign: http.NewCrossOriginProtection()}
	c.mux.HandleFunc("GET /console/session", c.showSession)
	c.mux.HandleFunc("POST /console/session", c.signIn)
	c.mux.HandleFunc("DELETE /console/session", c.signOut)
	c.serve("GET /{$}", "web/index.html")
	files, _ := fs.Glob(web, "web/*") // a pattern of our own
	for _, file := range files {
		if path.Ext(file) != ".html" {
			c.serve("GET /console/"+path.Base(file), file)
		}
	}
	return c
}

// serve serves an embedded file.
func (c *Console) serve(pattern, file string) {
	data, err := web.ReadFile(file)
	if err != nil {
		panic(err) // embedded when this was built
	}
	sum := sha256.Sum256(data)
	tag, kind := `"`+hex.EncodeToString(sum[:8])+`"`, kinds[path.Ext(file)]
	c.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", kind)
		w.Header().Set("cache-control", "no-cache")
		w.Header().Set("etag", tag)
		if r.Header.Get("if-none-match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(data) // a browser that is gone needs no page
	})
}

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("content-security-policy", policy)
	h.Set("x-content-type-options", "nosniff")
	h.Set("referrer-policy", "no-referrer")
	h.Set("cross-origin-opener-policy", "same-origin")
	h.Set("cross-origin-resource-policy", "same-origin")
	c.mux.ServeHTTP(w, r)
}

// SignedIn reports whether a request comes from a page of this server whose
// user has signed in. Without an admin token nobody has.
func (c *Console) SignedIn(r *http.Request) bool {
	token := c.o.AdminToken()
	return token != (config.TokenHash{}) && c.sessions.valid(r, token) && c.foreign.Check(r) == nil
}

// showSession tells the page whether to ask for the token.
func (c *Console) showSession(w http.ResponseWriter, r *http.Request) {
	state := "needed"
	switch {
	case c.o.AdminToken() == config.TokenHash{}:
		state = "none"
	case c.SignedIn(r):
		state = "done"
	}
	w.Header().Set("content-type", "application/json")
	w.Header().Set("cache-control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{"sign_in": state})
}

func (c *Console) signIn(w http.ResponseWriter, r *http.Request) {
	var body struct{ Token string }
	if err := c.foreign.Check(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&body); err != nil {
		http.Error(w, "want the admin token as JSON", http.StatusBadRequest)
		return
	}
	want, got := c.o.AdminToken(), sha256.Sum256([]byte(body.Token))
	if want == (config.TokenHash{}) || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		c.o.Log.Debug("console sign-in refused", "remote", r.RemoteAddr)
		http.Error(w, "this is not the admin token", http.StatusUnauthorized)
		return
	}
	c.o.Log.Info("console sign-in", "remote", r.RemoteAddr)
	http.SetCookie(w, cookie(c.sessions.add(want), secure(r)))
	w.WriteHeader(http.StatusNoContent)
}

func (c *Console) signOut(w http.ResponseWriter, r *http.Request) {
	if err := c.foreign.Check(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	c.sessions.remove(r)
	gone := cookie("", secure(r))
	gone.MaxAge = -1
	http.SetCookie(w, gone)
	w.WriteHeader(http.StatusNoContent)
}

// secure reports whether the browser came over TLS, which a proxy has ended.
func secure(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("x-forwarded-proto"), "https")
}
