package server

import (
	"context"
	"expvar"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit/xds"
)

// This file holds what a deployment of envoyproxy/ratelimit finds in its place.

// healthcheck answers 200 OK, or 500 without a body.
func (s *Server) healthcheck(w http.ResponseWriter, _ *http.Request) {
	if s.unready() != "" {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, "OK")
}

// rlconfig lists the limits in force, one a line.
func (s *Server) rlconfig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("content-type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, s.book.Rules().String())
}

// stats prints the process's command line and memory; what is counted is in
// /metrics.
func stats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("content-type", "text/plain; charset=utf-8")
	expvar.Do(func(kv expvar.KeyValue) { fmt.Fprintf(w, "%s: %s\n", kv.Key, kv.Value) })
}

// loaded tells metrics whether a configuration that was read at a time is in force.
func (s *Server) loaded(at time.Time, err error) {
	s.metrics.Reloaded(at, err)
	if s.stats != nil {
		s.stats.Loaded(err)
	}
}

// openXDS makes the client that gets the rules, if they come over xDS.
func (s *Server) openXDS(context.Context) (err error) {
	now := s.current.Load()
	if now.Config.Rules.XDS == nil {
		return nil
	}
	o := *now.Config.Rules.XDS
	o.Apply, o.Rejected, o.Log = s.apply, s.rejected, s.log
	s.xds, err = xds.New(o)
	return err
}

// apply puts rules in force that came over xDS.
func (s *Server) apply(rules *descriptors.Rules) {
	s.change.Lock()
	defer s.change.Unlock()
	next := *s.current.Load()
	loaded := *next.Loaded
	loaded.Rules = rules
	next.Loaded, next.at, next.lastErr, next.rejected, next.fetched = &loaded, time.Now(), nil, nil, true
	s.loaded(next.at, nil)
	s.putInForce(&next)
	s.current.Store(&next)
	if s.unready() == "" {
		s.grpc.MarkReady()
	}
}

// rejected notes why rules that came over xDS are not in force.
func (s *Server) rejected(err error) {
	s.change.Lock()
	defer s.change.Unlock()
	kept := *s.current.Load()
	kept.lastErr, kept.rejected = err, err
	s.loaded(kept.at, err)
	s.current.Store(&kept)
}
