package sqltest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/limits"
)

// Connect opens a store.
type Connect func(dsn string, o sqlstore.Options) (*sqlstore.Store, error)

// Source is a database as the conformance suite opens and closes it.
type Source struct {
	DSN     string
	Connect Connect

	running *Running
}

// Open opens the database and loads it.
func (s *Source) Open(t *testing.T, r *consumers.Registry) consumers.Store {
	t.Helper()
	s.running = Run(t, s.Connect, s.DSN, sqlstore.Options{Registry: r})
	s.running.Loaded(t)
	return s.running.Store
}

// Close closes it again.
func (s *Source) Close(t *testing.T) { s.running.Stop(t) }

// Running is a store that runs.
type Running struct {
	Store    *sqlstore.Store
	Registry *consumers.Registry

	cancel context.CancelFunc
	ended  chan error
}

// Run opens a store and lets it run until the test ends, at the latest. A
// missing registry, clock or log is made.
func Run(t testing.TB, connect Connect, dsn string, o sqlstore.Options) *Running {
	t.Helper()
	if o.Registry == nil {
		o.Registry = consumers.NewRegistry(consumers.RegistryOptions{})
	}
	if o.Clock == nil {
		o.Clock = limits.NewClock()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	store, err := connect(dsn, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{Store: store, Registry: o.Registry, cancel: cancel, ended: make(chan error, 1)}
	go func() {
		r.ended <- store.Run(ctx)
		close(r.ended)
	}()
	t.Cleanup(func() { r.Stop(t) })
	return r
}

// Loaded waits until the first attempt succeeded.
func (r *Running) Loaded(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.Store.Started(ctx); err != nil {
		t.Fatalf("the first attempt: %v", err)
	}
}

// Stop ends the store; a second time it does nothing.
func (r *Running) Stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil { // closed after the first answer
		t.Errorf("Run = %v", err)
	}
}
