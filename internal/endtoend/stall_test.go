package endtoend_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// A link carries connections to a gate, and can stop carrying anything, as a
// network does that has lost the way, or a process that was stopped.
type link struct {
	addr string // where clients connect
	to   string // where the gate listens

	mu     sync.Mutex
	moving sync.Cond
	stuck  bool
	open   map[net.Conn]bool
	closed bool
	wg     sync.WaitGroup
}

// startLink carries connections until the test's end.
func startLink(t *testing.T, to string) *link {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{addr: lis.Addr().String(), to: to, open: make(map[net.Conn]bool)}
	l.moving.L = &l.mu
	l.wg.Go(func() { l.accept(lis) })
	t.Cleanup(func() {
		_ = lis.Close()
		l.end()
	})
	return l
}

func (l *link) accept(lis net.Listener) {
	for {
		client, err := lis.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		l.wg.Go(func() { l.carry(client.(*net.TCPConn)) })
	}
}

func (l *link) carry(client *net.TCPConn) {
	l.wait()
	conn, err := net.Dial("tcp", l.to)
	if err != nil || !l.keep(client, conn) {
		_ = client.Close()
		return
	}
	gate := conn.(*net.TCPConn)
	var both sync.WaitGroup
	both.Go(func() { l.copy(gate, client) })
	both.Go(func() { l.copy(client, gate) })
	both.Wait()
	l.drop(client, gate)
}

func (l *link) copy(to, from *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		l.wait()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			_ = to.SetLinger(0) // a reset comes out as one
			_ = to.Close()
			return
		}
	}
}

// stall stops the link, or lets it go on.
func (l *link) stall(stuck bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stuck = stuck
	l.moving.Broadcast()
}

func (l *link) wait() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stuck && !l.closed {
		l.moving.Wait()
	}
}

func (l *link) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if l.closed {
			_ = c.Close()
			continue
		}
		l.open[c] = true
	}
	return !l.closed
}

func (l *link) drop(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(l.open, c)
	}
}

func (l *link) end() {
	l.mu.Lock()
	l.closed = true
	l.moving.Broadcast()
	for c := range l.open {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
