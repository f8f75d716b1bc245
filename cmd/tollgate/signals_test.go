package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// served is a `tollgate serve` of its own process.
type served struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *lines
	http string
	done chan error
}

func serveProcess(t *testing.T, drain string) served {
	t.Helper()
	dir := t.TempDir()
	s := served{t: t, log: new(lines), http: redistest.FreeAddr(t), done: make(chan error, 1)}
	config := fmt.Sprintf("listen: {grpc: %q, http: %q, drain: %s}\ntelemetry: {audit: audit.log}\n", redistest.FreeAddr(t), s.http, drain)
	if err := os.WriteFile(dir+"/tollgate.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command("tollgate", "serve", "--config", "tollgate.yaml", "--data-dir", "data")
	s.cmd.Dir, s.cmd.Stderr = dir, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // where the test failed before its end
	s.ready(http.StatusOK)
	return s
}

func (s served) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s served) until(what string, done func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if done() {
			return
		}
	}
	s.t.Fatalf("still not: %s\n%s", what, s.log)
}

func (s served) ready(status int) {
	s.t.Helper()
	s.until(fmt.Sprintf("/readyz answers %d", status), func() bool {
		resp, err := http.Get("http://" + s.http + "/readyz")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == status
	})
}

// ends waits for the process and returns its exit code.
func (s served) ends() int {
	s.t.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		s.t.Fatalf("it goes on\n%s", s.log)
		return 0
	}
}

// TestSecondSignalQuits: a drain of minutes ends at once, and not by SIGHUP.
func TestSecondSignalQuits(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			s := serveProcess(t, "10m")
			s.signal(syscall.SIGTERM)
			s.ready(http.StatusServiceUnavailable)
			s.signal(syscall.SIGHUP)
			s.ready(http.StatusServiceUnavailable) // goes on draining
			s.signal(sig)
			s.ends()
			if !strings.Contains(s.log.String(), `"msg":"draining","drain":"10m0s"`) {
				t.Errorf("it did not drain:\n%s", s.log)
			}
		})
	}
}

func TestFirstSignalDrains(t *testing.T) {
	s := serveProcess(t, "300ms")
	began := time.Now()
	s.signal(syscall.SIGTERM)
	if code := s.ends(); code != 0 {
		t.Errorf("exit %d, want 0:\n%s", code, s.log)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("it drained for %s, want 300ms", took)
	}
}

// TestHangUpReloads: also what has not changed, such as the audit file that was
// moved away.
func TestHangUpReloads(t *testing.T) {
	s := serveProcess(t, "0s")
	audit := s.cmd.Dir + "/audit.log"
	if err := os.Rename(audit, audit+".1"); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	s.until("the audit tells of the reload", func() bool {
		text, err := os.ReadFile(audit)
		return err == nil && strings.Contains(string(text), `"actor":"operator","kind":"config.reload"`)
	})
	s.signal(syscall.SIGTERM)
	if code := s.ends(); code != 0 {
		t.Errorf("exit %d, want 0:\n%s", code, s.log)
	}
}
