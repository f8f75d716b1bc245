package fastgrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("fastgrpc: server closed")

// A Server serves the unary methods that its Options name. Its methods may be
// called from several goroutines.
type Server struct {
	opts     Options
	services map[string]bool // those of which some method is served
	pool     *pool
	floods   atomic.Uint64
	lent     atomic.Int64 // what connections hold beyond their own share: see memory.go

	conns sync.WaitGroup
	done  chan struct{} // closed with the first Shutdown or Close
	ended func(*conn)   // for tests: told of each connection that has ended

	mu        sync.Mutex
	open      map[*conn]bool
	listeners map[net.Listener]bool
	draining  bool // done is closed
	closed    bool // the pool is closed
}

// New returns a Server that has yet to Serve.
func New(opts Options) *Server {
	opts = opts.withDefaults()
	s := &Server{
		opts:      opts,
		services:  make(map[string]bool),
		pool:      newPool(opts.MaxWaiting),
		done:      make(chan struct{}),
		ended:     func(*conn) {},
		open:      make(map[*conn]bool),
		listeners: make(map[net.Listener]bool),
	}
	for path := range opts.Methods {
		if service, _, ok := cutLast(path[1:]); ok {
			s.services[service] = true
		}
	}
	return s
}

// Serve accepts connections until Shutdown, Close or an error of the listener
// that will not pass, and closes the listener. Several listeners may be served
// at the same time.
func (s *Server) Serve(l net.Listener) error {
	defer func() { _ = l.Close() }()
	if !s.listen(l) {
		return ErrServerClosed
	}
	defer s.unlisten(l)
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.start(nc)
			continue
		}
		if s.isDraining() {
			return ErrServerClosed
		}
		// Running out of file descriptors passes, so it is waited for, as
		// net/http does.
		if temporary, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !ok || !temporary.Temporary() {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-s.done:
		}
	}
}

// start serves a connection in a goroutine of its own, if there is room.
func (s *Server) start(nc net.Conn) {
	if s.opts.TLS != nil {
		nc = tls.Server(nc, s.opts.TLS)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || len(s.open) >= s.opts.MaxConnections {
		_ = nc.Close()
		return
	}
	c := newConn(s, nc, time.Now())
	s.open[c] = true
	s.conns.Go(func() {
		c.serve()
		s.ended(c)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
	})
}

// Shutdown ends in good order: no further connections, GOAWAY on all, answers
// to all calls, waiting ones included. When ctx ends before that, the rest is
// dropped as Close does, and ctx's error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	for _, c := range s.stopListening() {
		c.requestDrain()
	}
	ended := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		s.closePool()
		return nil
	case <-ctx.Done():
		s.Close()
		<-ended
		return ctx.Err()
	}
}

// Close drops all connections and calls. It returns when all goroutines have
// ended; waiting ones see their contexts end.
func (s *Server) Close() {
	for _, c := range s.stopListening() {
		_ = c.nc.Close()
	}
	s.conns.Wait()
	s.closePool()
}

// stopListening closes the listeners and returns the open connections.
func (s *Server) stopListening() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining {
		s.draining = true
		close(s.done)
	}
	for l := range s.listeners {
		_ = l.Close()
	}
	conns := make([]*conn, 0, len(s.open))
	for c := range s.open {
		conns = append(conns, c)
	}
	return conns
}

// closePool waits for the waiting goroutines. All connections have ended, so
// none starts any more.
func (s *Server) closePool() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if first {
		close(s.pool.quit)
	}
	s.pool.wg.Wait()
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.listeners[l] = true
	return true
}

func (s *Server) unlisten(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Stats are what a Server can tell of itself.
type Stats struct {
	Connections int    // open now
	Waiting     int    // calls that wait now
	Buffered    int64  // bytes of MaxBufferedTotal that are in use
	Floods      uint64 // connections ended because they sent too much that asks for nothing
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.open)
	s.mu.Unlock()
	return Stats{Connections: open, Waiting: s.pool.waiting(), Buffered: s.lent.Load(), Floods: s.floods.Load()}
}
