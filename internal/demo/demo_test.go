package demo_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/internal/demo"
)

// screen keeps what is written and tells of each write.
type screen struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.wrote <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func run(t *testing.T, ctx context.Context, o demo.Options) (*screen, <-chan error) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	s := &screen{wrote: make(chan struct{}, 1)}
	o.Out, o.EnvoyPath = s, envoytest.Binary(t)
	done := make(chan error, 1)
	go func() { done <- demo.Run(ctx, o) }()
	select {
	case <-s.wrote:
	case err := <-done:
		t.Fatalf("ended before it told anything: %v", err)
	}
	return s, done
}

// TestWhatIsPrintedWorks runs the printed lines as a person would paste them.
func TestWhatIsPrintedWorks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, done := run(t, ctx, demo.Options{})
	lines := regexp.MustCompile(`(?m)^  (curl|for) .*$`).FindAllString(s.String(), -1)
	if len(lines) != 3 {
		t.Fatalf("printed %d lines to paste, want 3:\n%s", len(lines), s)
	}
	for i, want := range []string{"HTTP/1.1 401", "HTTP/1.1 200", "429"} {
		out, err := exec.CommandContext(ctx, "sh", "-c", lines[i]).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s\n%v: want %s in\n%s", lines[i], err, want, out)
		}
		if i == 2 && !strings.Contains(string(out), "200") {
			t.Errorf("%s\nnothing was admitted:\n%s", lines[i], out)
		}
	}
	cancel() // as Ctrl-C does
	if err := <-done; err != nil {
		t.Errorf("interrupted: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(t.TempDir(), "..", "*", "tollgate-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestForEndsByItself(t *testing.T) {
	s, done := run(t, t.Context(), demo.Options{For: 1500 * time.Millisecond})
	address := regexp.MustCompile(`http://[0-9.:]+`).FindString(s.String())
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`bob \(5/s\): [1-9]\d* admitted, [1-9]\d* refused`).MatchString(s.String()) {
		t.Errorf("the traffic does not show:\n%s", s)
	}
	if resp, err := http.Get(address); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		t.Errorf("%s still answers", address)
	}
}

func TestNoEnvoyIsExplained(t *testing.T) {
	err := demo.Run(t.Context(), demo.Options{Out: io.Discard, EnvoyPath: "/no/such/envoy"})
	if err == nil || !strings.Contains(err.Error(), "/no/such/envoy") {
		t.Errorf("Run with a missing Envoy: %v", err)
	}
}
