package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/config"
)

const (
	syncEvery     = time.Second
	syncTolerance = 50 * time.Millisecond // below, the wall clock is only being adjusted
	decayEvery    = time.Minute

	// What a reload left to do, in pieces of a tenth of a millisecond, is done in
	// about a twentieth of a processor, so that callers notice little of it: a
	// million consumers take about 20 s. It is in force before.
	settleEvery = 100 * time.Millisecond
	settlePause = time.Millisecond

	// httpWithin is how long admin calls may take to end once decisions have.
	httpWithin = 5 * time.Second

	// exportWithin is how long the last traces may take to be handed over.
	exportWithin = 2 * time.Second
)

// run starts what goes on until stop, and serves.
func (s *Server) run() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.every(ctx, syncEvery, func() {
		if step := s.clock.Sync(syncTolerance); step != 0 {
			s.upstreams.Shift(step)
			s.log.Warn("the wall clock was stepped", "step", step.String())
		}
	})
	s.every(ctx, upstreams.FlushEvery, s.upstreams.Flush)
	s.every(ctx, min(max(s.current.Load().Config.Limits.Cache.Idle/8, time.Second), time.Minute), func() { s.table.Expire(s.clock.Now()) })
	s.every(ctx, decayEvery, s.top.Decay)
	s.every(ctx, settleEvery, func() {
		for ctx.Err() == nil && s.registry.Settle() {
			time.Sleep(settlePause)
		}
	})
	tuneMemory(ctx)
	s.running.Go(func() { s.flushRefusals(ctx) })
	if src := s.current.Load().sources; len(src.Files)+len(src.Patterns) > 0 {
		s.running.Go(func() {
			if err := config.Watch(ctx, src, s.changed); err != nil {
				s.log.Error("files are not watched: send SIGHUP after a change", "err", err)
			}
		})
	}
	s.serving.Go(func() { s.ended(s.grpc.Serve(s.grpcListener)) })
	if s.fastListener != nil {
		s.serving.Go(func() { s.ended(s.grpc.ServeFast(s.fastListener)) })
	}
	s.serveHTTP(s.http, s.httpListener)
	for _, l := range s.readingOn {
		s.serveHTTP(s.reading, l)
	}
	now := s.current.Load()
	if s.xds != nil {
		s.running.Go(func() { _ = s.xds.Run(ctx) }) // ends with ctx only
	}
	if s.database != nil {
		s.running.Go(func() { s.followDatabase(ctx) })
	}
	known, _ := s.registry.Len()
	s.log.Info("tollgate is running", "version", s.o.Build.Version, "grpc", s.GRPCAddr(), "fast", s.FastAddr(), "http", s.HTTPAddr(),
		"config", s.o.ConfigPath, "source", now.Config.Consumers.Source, "consumers", known, "rules", now.Rules.Len())
	s.warn(now)
}

func (s *Server) serveHTTP(server *http.Server, l net.Listener) {
	s.serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.ended(err)
		}
	})
}

// every calls f at intervals until ctx ends.
func (s *Server) every(ctx context.Context, interval time.Duration, f func()) {
	s.running.Go(func() {
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				f()
			case <-ctx.Done():
				return
			}
		}
	})
}

// flushRefusals sums refusals up, at the interval that is configured just now.
func (s *Server) flushRefusals(ctx context.Context) {
	for {
		interval := s.current.Load().Config.Telemetry.RefusalsEvery
		t := time.NewTimer(interval)
		select {
		case <-t.C:
			s.observer.Flush(interval)
		case <-ctx.Done():
			t.Stop()
			s.observer.Flush(interval)
			return
		}
	}
}

// ended tells of a listener that ended by itself.
func (s *Server) ended(err error) {
	if err != nil && !s.draining.Load() {
		s.failed <- err
	}
}

// Drain stops in order: not ready at once, decisions go on for listen.drain,
// then what is held finishes. When ctx ends first, what still runs is cut off.
func (s *Server) Drain(ctx context.Context) error {
	s.grpc.MarkUnready() // both ways to ask tell the same
	s.draining.Store(true)
	s.log.Info("draining", "drain", s.current.Load().Config.Listen.Drain.String())
	err := s.grpc.Drain(ctx)
	s.events.Close() // who follows them would keep the HTTP port open
	stopping, cancel := context.WithTimeout(ctx, httpWithin)
	defer cancel()
	err = errors.Join(err, s.http.Shutdown(stopping), s.reading.Shutdown(stopping), s.Close())
	s.log.Info("stopped")
	return err
}

// Close stops at once and releases everything. What was acknowledged is on
// disk. Closing twice does no harm.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.draining.Store(true)
		s.events.Close()
		s.grpc.Close()
		_ = s.http.Close() // its listener's error; it is closed below too
		_ = s.reading.Close()
		s.stop()
		s.serving.Wait()
		s.running.Wait()
		s.closed = s.release()
	})
	return s.closed
}
