package admin

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/events"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
	"github.com/tollgate-dev/tollgate/limits"
)

// Options are what the API speaks for. Nothing of it may be nil.
type Options struct {
	Store     consumers.Store
	Registry  *consumers.Registry
	Upstreams *upstreams.Registry
	Clock     *limits.Clock
	Top       *telemetry.Top
	Refusals  func() []telemetry.Refusal // those that go on, most first
	Events    *events.Log                // told of every change
	Log       *slog.Logger

	AdminToken  func() config.TokenHash  // zero: none is configured
	SignedIn    func(*http.Request) bool // lets a request in as the admin token does
	Config      func() Config
	Settings    func() Settings
	SetSettings func(context.Context, Settings) error // checked; in force and on disk when it returns
	Refresh     func(context.Context) error           // read the source again
	Backup      func() (*os.File, error)              // a copy of the store, gone when it is closed
}

// API is the admin API, an http.Handler for /v1/. Safe for concurrent use.
type API struct {
	o        Options
	mux      *http.ServeMux
	settings sync.Mutex    // held by a change of the settings
	backups  sync.Mutex    // held while a backup is sent
	streams  chan struct{} // as many as GET /v1/events are served
}

// New returns the API.
func New(o Options) *API {
	a := &API{o: o, mux: http.NewServeMux(), streams: make(chan struct{}, maxStreams)}
	for pattern, on := range a.routes() {
		a.route(pattern, on)
	}
	a.mux.HandleFunc("/", NotFound)
	return a
}

// routes are all pages. Each is described in openapi.yaml.
func (a *API) routes() map[string]methods {
	return map[string]methods{
		"/v1/consumers":                            {"GET": a.listConsumers},
		"/v1/consumers/{id}":                       {"GET": a.showConsumer, "PUT": a.putConsumer, "DELETE": a.removeConsumer},
		"/v1/consumers/{id}/tokens":                {"GET": a.listTokens, "POST": a.issueToken},
		"/v1/consumers/{id}/tokens/{token}":        {"DELETE": a.revokeToken},
		"/v1/consumers/{id}/tokens/{token}/rotate": {"POST": a.rotateToken},
		"/v1/consumers/{id}/usage":                 {"GET": a.showUsage, "DELETE": a.resetUsage},
		"/v1/settings":                             {"GET": a.showSettings, "PUT": a.putSettings},
		"/v1/refresh":                              {"POST": a.refresh},
		"/v1/upstreams":                            {"GET": a.listUpstreams},
		"/v1/upstreams/{id}/pressure":              {"DELETE": a.endPressure},
		"/v1/top":                                  {"GET": a.top},
		"/v1/refusals":                             {"GET": a.refusals},
		"/v1/config":                               {"GET": a.config},
		"/v1/backup":                               {"GET": a.backUp},
		"/v1/events":                               {"GET": a.followEvents},
	}
}

// handler answers a call; an error is answered for it.
type handler func(w http.ResponseWriter, r *http.Request) error

// methods are what a page can be asked.
type methods map[string]handler

func (a *API) route(pattern string, on methods) {
	var allowed []string
	for method := range on {
		allowed = append(allowed, method)
	}
	if on[http.MethodGet] != nil {
		allowed = append(allowed, http.MethodHead) // net/http drops the body
	}
	allowed = append(allowed, http.MethodOptions)
	slices.Sort(allowed)
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		h, ok := on[method]
		if !ok {
			w.Header().Set("allow", strings.Join(allowed, ", "))
			if method == http.MethodOptions {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			problemf(http.StatusMethodNotAllowed, "want %s", strings.Join(allowed, " or ")).write(w)
			return
		}
		if err := h(w, r); err != nil {
			a.fail(w, r, err)
		}
	})
}

// ServeHTTP lets in who may call, and answers.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("cache-control", "no-store")
	if p := a.guard(r); p != nil {
		if p.Status == http.StatusUnauthorized {
			w.Header().Set("www-authenticate", `Bearer realm="tollgate admin"`)
		}
		a.o.Log.Debug("admin call refused", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr, "status", p.Status, "reason", p.Detail)
		p.write(w)
		return
	}
	a.mux.ServeHTTP(w, r)
}
