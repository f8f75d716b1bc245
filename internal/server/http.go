package server

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/config"
)

func (s *Server) newHTTP() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("/readyz", s.readyz)
	mux.Handle("/metrics", promhttp.HandlerFor(s.prom, promhttp.HandlerOpts{}))
	mux.Handle("/json", s.rls)
	mux.Handle("/v1/", admin.New(admin.Options{
		Store:       s.store,
		Registry:    s.registry,
		Clock:       s.clock,
		Top:         s.top,
		Log:         s.log,
		AdminToken:  func() config.TokenHash { return s.current.Load().Config.Admin.Token },
		Config:      s.config,
		Settings:    s.settings,
		SetSettings: s.setSettings,
		Refresh:     func(ctx context.Context) error { return s.store.Refresh(ctx) },
	}))
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		http.Error(w, "draining", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
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
