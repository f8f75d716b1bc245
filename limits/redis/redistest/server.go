package redistest

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a redis-server of a test. It belongs to one goroutine.
type Server struct {
	Addr string // HOST:PORT
	Dir  string // where its log is

	tb   testing.TB
	args []string
	cmd  *exec.Cmd
}

// program returns what is run for a program.
func program(name string) string {
	return cmp.Or(os.Getenv(strings.ToUpper(strings.ReplaceAll(name, "-", "_"))), name)
}

// Need skips a test that takes a program where that is not wanted or not there.
func Need(tb testing.TB, name string) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("starts " + name)
	}
	if _, err := exec.LookPath(program(name)); err != nil {
		tb.Skipf("%s is not installed: apt-get install redis-server redis-sentinel", program(name))
	}
}

// Start runs a redis-server with further arguments.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	Need(tb, "redis-server")
	s := &Server{Addr: FreeAddr(tb), Dir: tb.TempDir(), tb: tb, args: args}
	s.Up()
	tb.Cleanup(s.Kill)
	return s
}

// StartSentinel runs a redis-sentinel on a configuration, to which its port is added.
func StartSentinel(tb testing.TB, conf string) *Server {
	tb.Helper()
	Need(tb, "redis-sentinel")
	port := FreePort(tb)
	s := &Server{Addr: fmt.Sprintf("127.0.0.1:%d", port), Dir: tb.TempDir(), tb: tb}
	conf = fmt.Sprintf("port %d\nbind 127.0.0.1\nlogfile %s/log\n%s", port, s.Dir, conf)
	path := filepath.Join(s.Dir, "sentinel.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		tb.Fatal(err)
	}
	s.cmd = exec.Command(program("redis-sentinel"), path, "--sentinel")
	s.begin()
	tb.Cleanup(s.Kill)
	return s
}

// Up starts it, again where it was killed.
func (s *Server) Up() {
	s.tb.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.Dir, "--logfile", filepath.Join(s.Dir, "log")}, s.args...)
	s.cmd = exec.Command(program("redis-server"), args...)
	s.begin()
}

// begin runs the program and waits until it listens.
func (s *Server) begin() {
	s.tb.Helper()
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.DialTimeout("tcp", s.Addr, time.Second); err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			s.tb.Fatalf("%s does not listen: %s", s.cmd.Path, s.Log())
		}
	}
}

// Log returns what it has logged.
func (s *Server) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	return string(b)
}

// Kill kills it, if it runs.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Stall stops it until Resume, without closing any connection.
func (s *Server) Stall() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Stall.
func (s *Server) Resume() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

// CLI runs a command as the default user.
func (s *Server) CLI(args ...string) string {
	s.tb.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	args = append([]string{"-p", port}, args...)
	out, err := CLI(args...)
	if err != nil && (strings.Contains(out, "closed the connection") || strings.Contains(out, "reset by peer")) { // as at a failover
		out, err = CLI(args...)
	}
	if err != nil {
		s.tb.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return out
}

// CLI runs redis-cli.
func CLI(args ...string) (string, error) {
	out, err := exec.Command(program("redis-cli"), args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
