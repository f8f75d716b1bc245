package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keeper-security/secrets-manager-go/core"

	"github.com/tollgate-dev/tollgate/envoy/envoytest/keeper"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
)

// start runs a fake and returns a client of the SDK that calls it.
func start(t *testing.T, o throttle.Options) (*keeper.Fake, *client, *keeper.Authority) {
	t.Helper()
	ca, err := keeper.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, _, _, err := ca.Issue(keeper.Host)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAccount()
	if err != nil {
		t.Fatal(err)
	}
	f, err := keeper.Start(a, pair, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	c, err := newClient(a, keeper.Host, f.Addr, ca.Pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.transport.CloseIdleConnections)
	return f, c, ca
}

// TestFake: the real SDK reads a secret from the fake, and takes its refusal
// for what it is.
func TestFake(t *testing.T) {
	f, c, ca := start(t, throttle.Options{Model: throttle.IdleReset, N: 2, Window: time.Minute})
	for range 2 {
		if err := c.read("a"); err != nil {
			t.Fatal(err)
		}
	}
	var refused *core.KeeperHTTPError
	if err := c.read("a"); !errors.As(err, &refused) || refused.StatusCode != 403 || refused.ResultCode != "throttled" {
		t.Errorf("read = %v, want 403 throttled", err)
	}
	if n := f.Throttled(); n != 1 || len(f.Calls()) != 3 {
		t.Errorf("%d of %d calls throttled, want 1 of 3", n, len(f.Calls()))
	}
	other, err := f.Account.Stranger()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := newClient(other, keeper.Host, f.Addr, ca.Pool)
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.read("a"); err == nil || strings.Contains(err.Error(), "throttled") {
		t.Errorf("a device that the fake does not know: %v, want it refused", err)
	}
}

// tollgate builds the binary.
func tollgate(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real Envoy: not in -short")
	}
	binary := filepath.Join(t.TempDir(), "tollgate")
	build := exec.Command("go", "build", "-o", binary, "./cmd/tollgate")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// TestLocalRefusal: where nothing may wait, the SDK takes Tollgate's refusal for
// what it is, and Keeper never sees that call.
func TestLocalRefusal(t *testing.T) {
	binary := tollgate(t)
	f, _, ca := start(t, throttle.Options{Model: throttle.IdleReset, N: 100, Window: time.Minute})
	config := filepath.Join(ca.Dir, "tollgate.yaml")
	text := `listen: {grpc: "${SOCKET}", http: "127.0.0.1:0", drain: 0s}
upstreams: [{preset: keeper, match: {host: keepersecurity.example}, limits: [{idle_reset: 2/1m}]}]
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := keeper.StartStack(t.Context(), binary, config, time.Minute, f.Addr, ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	c, err := newClient(f.Account, keeper.Alias, s.Addr, ca.Pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.transport.CloseIdleConnections)
	for range 2 {
		if err := c.read("a"); err != nil {
			t.Fatal(err)
		}
	}
	var refused *core.KeeperHTTPError
	if err := c.read("a"); !errors.As(err, &refused) || refused.StatusCode != 429 || refused.ResultCode != "throttled" {
		t.Errorf("read = %v, want 429 throttled", err)
	}
	if n := len(f.Calls()); n != 2 {
		t.Errorf("%d calls reached Keeper, want 2", n)
	}
	said, err := s.Upstreams()
	if err != nil || !strings.Contains(said, `"keeper"`) {
		t.Errorf("the API says %s, %v, want the upstream", said, err)
	}
}

// TestRecovery is the example, with as many reads as fit into half a minute.
func TestRecovery(t *testing.T) {
	var out bytes.Buffer
	o := options{tollgate: tollgate(t), config: "tollgate.yaml", plot: filepath.Join(t.TempDir(), "plot.svg"), reads: 300, window: time.Second, until: 5 * time.Second, check: true}
	err := run(t.Context(), o, &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Error(err)
	}
	if svg, err := os.ReadFile(o.plot); err != nil || !bytes.HasPrefix(svg, []byte("<svg ")) {
		t.Errorf("plot: %.20q, %v", svg, err)
	}
}
