package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options say how to run an Envoy.
type Options struct {
	Path        string // the binary; empty: what Find finds
	Bootstrap   []byte // YAML
	Concurrency int    // worker threads; 0 means 2
	LogLevel    string // Envoy's own; empty means warning
}

// Envoy is a running Envoy. Its methods are safe for concurrent use.
type Envoy struct {
	admin string
	dir   string
	cmd   *exec.Cmd
	done  chan struct{} // closed when the process has ended
	err   error         // how it ended; read after done
}

// Start runs Envoy in a temporary folder of its own and returns once it serves,
// or with an error that holds the end of its log. ctx bounds the start only;
// the caller stops what Start returned.
func Start(ctx context.Context, o Options) (*Envoy, error) {
	if o.Path == "" {
		path, err := Find()
		if err != nil {
			return nil, err
		}
		o.Path = path
	}
	dir, err := os.MkdirTemp("", "tollgate-envoy-")
	if err != nil {
		return nil, err
	}
	e := &Envoy{dir: dir, done: make(chan struct{})}
	if err := e.start(o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := e.waitReady(ctx); err != nil {
		err = fmt.Errorf("start %s: %w\n%s", o.Path, err, e.Log())
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

func (e *Envoy) start(o Options) error {
	bootstrap := filepath.Join(e.dir, "bootstrap.yaml")
	if err := os.WriteFile(bootstrap, o.Bootstrap, 0o600); err != nil {
		return err
	}
	log, err := os.Create(e.logFile())
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own descriptor
	if o.Concurrency == 0 {
		o.Concurrency = 2
	}
	if o.LogLevel == "" {
		o.LogLevel = "warning"
	}
	e.cmd = exec.Command(o.Path,
		"--config-path", bootstrap,
		"--admin-address-path", e.adminFile(),
		"--concurrency", strconv.Itoa(o.Concurrency),
		"--log-level", o.LogLevel,
		"--drain-time-s", "1",
		"--disable-hot-restart") // no shared memory, so that many run side by side
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = diesWithParent()
	started := make(chan error)
	go func() {
		// See diesWithParent: the kernel takes the end of the thread that started it
		// for that of the parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := e.cmd.Start()
		if started <- err; err == nil {
			e.err = e.cmd.Wait()
			close(e.done)
		}
	}()
	return <-started
}

func (e *Envoy) logFile() string   { return filepath.Join(e.dir, "envoy.log") }
func (e *Envoy) adminFile() string { return filepath.Join(e.dir, "admin") }

// waitReady returns when Envoy's admin port says that it is live.
func (e *Envoy) waitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if address, err := os.ReadFile(e.adminFile()); err == nil && len(address) > 0 {
			e.admin = string(address)
			if _, err := e.Get(ctx, "/ready"); err == nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-e.done:
			return fmt.Errorf("ended: %w", e.err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Admin returns the HOST:PORT of the admin interface.
func (e *Envoy) Admin() string { return e.admin }

// Get reads a page of the admin interface.
func (e *Envoy) Get(ctx context.Context, path string) ([]byte, error) {
	return e.ask(ctx, http.MethodGet, path)
}

// Post does what only a POST to the admin interface may.
func (e *Envoy) Post(ctx context.Context, path string) error {
	_, err := e.ask(ctx, http.MethodPost, path)
	return err
}

func (e *Envoy) ask(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+e.admin+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// Listener returns the HOST:PORT that a listener of the bootstrap got.
func (e *Envoy) Listener(ctx context.Context, name string) (string, error) {
	body, err := e.Get(ctx, "/listeners?format=json")
	if err != nil {
		return "", err
	}
	var page struct {
		Statuses []struct {
			Name    string `json:"name"`
			Address struct {
				Socket struct {
					Host string `json:"address"`
					Port int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return "", fmt.Errorf("read Envoy's listeners: %w", err)
	}
	for _, s := range page.Statuses {
		if s.Name == name {
			return net.JoinHostPort(s.Address.Socket.Host, strconv.Itoa(s.Address.Socket.Port)), nil
		}
	}
	return "", fmt.Errorf("Envoy has no listener %q: %s", name, body)
}

// Stats returns the counters and gauges whose names contain filter, a regular
// expression.
func (e *Envoy) Stats(ctx context.Context, filter string) (map[string]int64, error) {
	body, err := e.Get(ctx, "/stats?filter="+url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	stats := make(map[string]int64)
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			stats[name] = n
		}
	}
	return stats, nil
}

// logTail bounds what Log returns.
const logTail = 16 << 10

// Log returns the end of what Envoy has logged.
func (e *Envoy) Log() string {
	log, err := os.ReadFile(e.logFile())
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-logTail):])
}

// Done is closed when Envoy has ended, on its own or by Stop.
func (e *Envoy) Done() <-chan struct{} { return e.done }

// stopWithin is how long an Envoy may take to end before it is killed.
const stopWithin = 5 * time.Second

// Stop ends Envoy and removes its folder. Stopping twice does no harm.
func (e *Envoy) Stop() error {
	_ = e.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-e.done:
	case <-time.After(stopWithin):
		_ = e.cmd.Process.Kill()
		<-e.done
	}
	return os.RemoveAll(e.dir)
}

// Validate asks an Envoy whether it would start on a bootstrap; the error holds
// what it says.
func Validate(ctx context.Context, path string, bootstrap []byte) error {
	f, err := os.CreateTemp("", "tollgate-bootstrap-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(bootstrap)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, path, "--mode", "validate", "--log-level", "warning", "--config-path", f.Name()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s --mode validate: %w\n%s", path, err, out)
	}
	return nil
}
