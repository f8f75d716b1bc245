package sqltest

import (
	"io"
	"os/exec"
	"testing"
	"time"
)

// Exec runs statements as a person would, in the database's own client.
func (s *Server) Exec(t testing.TB, database, statements string) {
	t.Helper()
	if out, err := s.client(database, statements).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", statements, err, out)
	}
}

// Session is a client that stays connected.
type Session struct {
	in  io.WriteCloser
	cmd *exec.Cmd
}

// Session opens a client. It ends with the test, if not before.
func (s *Server) Session(t testing.TB, database string) *Session {
	t.Helper()
	cmd := s.client(database, "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &Session{in, cmd}
	t.Cleanup(func() { _ = c.in.Close() })
	return c
}

// Send sends statements without waiting for them.
func (c *Session) Send(t testing.TB, statements string) {
	t.Helper()
	if _, err := io.WriteString(c.in, statements+"\n"); err != nil {
		t.Fatal(err)
	}
}

// Close waits for what was sent.
func (c *Session) Close(t testing.TB) {
	t.Helper()
	_ = c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// patience is how long a test waits for what should come much sooner.
const patience = time.Minute

// Eventually waits until a condition holds and returns how long that took.
func Eventually(t testing.TB, what string, holds func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(start) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
		<-tick.C
	}
	return time.Since(start)
}
