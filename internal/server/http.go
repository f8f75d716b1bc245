package server

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/console"
)

// reads is what only reads, and needs no token.
func (s *Server) reads() *http.ServeMux {
	mux := http.NewServeMux()
	// OpenMetrics carries exemplars, but renames counters that do not end in
	// _total: those of envoyproxy/ratelimit must keep their names.
	metrics := promhttp.HandlerFor(s.prom, promhttp.HandlerOpts{EnableOpenMetrics: s.stats == nil})
	mux.HandleFunc("/healthz", admin.Reading(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }))
	mux.HandleFunc("/readyz", admin.Reading(s.readyz))
	mux.HandleFunc("/healthcheck", s.healthcheck)
	mux.HandleFunc("/rlconfig", s.rlconfig)
	mux.HandleFunc("/stats", stats)
	mux.HandleFunc("/metrics", admin.Reading(metrics.ServeHTTP))
	also := s.current.Load().Config.Telemetry.RateLimitMetrics
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if also == nil || r.URL.Path != also.Path {
			admin.NotFound(w, r)
			return
		}
		metrics.ServeHTTP(w, r)
	})
	return mux
}

// everything is what listen.http serves.
func (s *Server) everything() *http.ServeMux {
	mux := s.reads()
	mux.Handle("/json", s.rls)
	mux.HandleFunc("/openapi.yaml", admin.Reading(admin.Document))
	token := func() config.TokenHash { return s.current.Load().Config.Admin.Token }
	page := console.New(console.Options{AdminToken: token, Log: s.log})
	mux.Handle("/{$}", page)
	mux.Handle("/console/", page)
	mux.Handle("/v1/", admin.New(admin.Options{
		Store:       s.store,
		Registry:    s.registry,
		Upstreams:   s.upstreams,
		Clock:       s.clock,
		Top:         s.top,
		Refusals:    s.observer.Refusals,
		Events:      s.events,
		Log:         s.log,
		AdminToken:  token,
		SignedIn:    page.SignedIn,
		Config:      s.config,
		Settings:    s.settings,
		SetSettings: s.setSettings,
		Refresh:     func(ctx context.Context) error { return s.store.Refresh(ctx) },
		Backup:      s.db.Backup,
	}))
	return mux
}

func newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// unready says why Envoy should ask another instance, or nothing.
func (s *Server) unready() string {
	switch {
	case s.draining.Load():
		return "draining"
	case !s.current.Load().sourced:
		return cmp.Or(s.sourceText(), "waiting for the consumers")
	case !s.current.Load().ready():
		return "waiting for rules"
	}
	return ""
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if why := s.unready(); why != "" {
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
	if text := s.sourceText(); text != "" {
		_, _ = io.WriteString(w, text+"\n")
	}
}

func (s *Server) config() admin.Config {
	now := s.current.Load()
	c := admin.Config{LoadedAt: now.at.UTC(), Files: append([]string{}, now.sources.Files...)}
	if now.lastErr != nil {
		text := now.lastErr.Error()
		c.LastError = &text
	}
	return c
}
