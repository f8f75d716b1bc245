package fastgrpc_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// A pipeListener accepts connections in memory, for tests that move time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	writes atomic.Int64 // of the server, on all connections
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial connects to the listener's server. The client's end takes all that the
// server writes at once, as the kernel's buffers would.
func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- countedConn{server, &l.writes}
	b := &bufferedConn{Conn: client}
	b.more.L = &b.mu
	go func() {
		part := make([]byte, 4096)
		for {
			n, err := client.Read(part)
			b.mu.Lock()
			b.buf.Write(part[:n])
			b.err = err
			b.mu.Unlock()
			b.more.Broadcast()
			if err != nil {
				return
			}
		}
	}()
	return b
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

type bufferedConn struct {
	net.Conn
	mu   sync.Mutex
	more sync.Cond
	buf  bytes.Buffer
	err  error
}

func (b *bufferedConn) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.buf.Len() == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.more.Wait()
	}
	return b.buf.Read(p)
}

func (b *bufferedConn) SetReadDeadline(time.Time) error { return nil }

// inBubble runs a test with its own time.
func inBubble(t *testing.T, opts fastgrpc.Options, test func(t *testing.T, server *fastgrpc.Server, l *pipeListener, s *service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := newService()
		opts.Methods = s.methods()
		server := watched(t, opts)
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		test(t, server, l, s)
		server.Close()
		if err := <-served; !errors.Is(err, fastgrpc.ErrServerClosed) {
			t.Errorf("Serve() = %v, want ErrServerClosed", err)
		}
	})
}

// until reads frames until one that is wanted, and returns how long it took.
func (p *peer) until(wanted func(http2.Frame) bool) time.Duration {
	p.t.Helper()
	start := time.Now()
	for {
		frame, err := p.fr.ReadFrame()
		if err != nil {
			p.t.Fatalf("waiting for a frame: %v", err)
		}
		if wanted(frame) {
			return time.Since(start)
		}
	}
}

// untilClosed reads until the connection is closed.
func (p *peer) untilClosed() time.Duration {
	p.t.Helper()
	start := time.Now()
	for {
		if _, err := p.fr.ReadFrame(); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
				p.t.Fatalf("waiting for the end: %v", err)
			}
			return time.Since(start)
		}
	}
}

func isPing(ack bool) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		ping, ok := f.(*http2.PingFrame)
		return ok && ping.IsAck() == ack
	}
}

func isGoAway(last uint32, code http2.ErrCode) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		away, ok := f.(*http2.GoAwayFrame)
		return ok && away.LastStreamID == last && away.ErrCode == code
	}
}
