package redis

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/tollgate-dev/tollgate/limits"
)

// server is a redis-server of a test.
type server struct {
	t    testing.TB
	dir  string
	addr string
	args []string
	cmd  *exec.Cmd
}

// need skips a test that takes a real Redis where that is not wanted or not there.
func need(t testing.TB, program string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts " + program)
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed: apt-get install redis-server redis-sentinel", program)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if port < 50_000 { // a cluster's bus is 10000 above
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// start runs a redis-server that keeps nothing on disk.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	need(t, "redis-server")
	s := &server{t: t, dir: t.TempDir(), args: args}
	port := freePort(t)
	s.addr = fmt.Sprintf("127.0.0.1:%d", port)
	s.up()
	t.Cleanup(s.kill)
	return s
}

// up starts it, again.
func (s *server) up() {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir, "--logfile", filepath.Join(s.dir, "log")}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.waitFor(s.addr)
}

func (s *server) waitFor(addr string) {
	s.t.Helper()
	eventually(s.t, 10*time.Second, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, func() string { b, _ := os.ReadFile(filepath.Join(s.dir, "log")); return string(b) })
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// cli runs a command as the default user.
func (s *server) cli(args ...string) string {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	out, err := exec.Command("redis-cli", append([]string{"-p", port}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// eventually polls for what another process does.
func eventually(t testing.TB, within time.Duration, f func() bool, why func() string) {
	t.Helper()
	for end := time.Now().Add(within); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, why())
		}
	}
}

// fakeClock is the time of decisions and of Redis.
type fakeClock struct{ at atomic.Int64 }

func newFake() *fakeClock {
	c := new(fakeClock)
	c.at.Store(1_699_920_000_000_000_000)
	return c
}

func (c *fakeClock) now() limits.Time        { return limits.Time(c.at.Load()) }
func (c *fakeClock) advance(d time.Duration) { c.at.Add(int64(d)) }

// join makes an instance; what o leaves open is set up for a test.
func join(t *testing.T, o Options) *Cluster {
	t.Helper()
	if o.Clock == nil {
		o.Clock = limits.NewClock()
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second // a test machine may be busy
	}
	c, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func compile(t testing.TB, l limits.Limit) *limits.Spec {
	t.Helper()
	s, err := limits.Compile(l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// limiter returns the limiter of a key on an instance.
func (c *Cluster) limiter(s *limits.Spec, group, key string) *limits.Limiter {
	l := limits.New(s, c.now())
	c.Share(c.now(), group, key, l)
	return l
}

// take takes n of one limiter.
func (c *Cluster) take(l *limits.Limiter, n int64) limits.Decision {
	claims := []limits.Claim{{Limiter: l, N: n}}
	_, _ = c.TakeAll(context.Background(), nil, c.now(), claims)
	return claims[0].Decision
}

func (s *server) client() rueidis.Client {
	s.t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.addr}, DisableCache: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func itoa(n int) string { return strconv.Itoa(n) }
