package endtoend_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// tonicPeer is the program that asks with tonic's client, which `make tonic`
// builds, or "".
func tonicPeer(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../.tools/tonic/release/tonic-peer")
	if err != nil {
		t.Fatal(err)
	}
	if found, err := filepath.Glob(path); err != nil || len(found) == 0 {
		return ""
	}
	return path
}

// TestTonic has tonic's client ask the fast listener.
func TestTonic(t *testing.T) {
	peer := tonicPeer(t)
	if testing.Short() || peer == "" {
		t.Skip("no tonic-peer: run `make tonic`, which needs cargo")
	}
	t.Run("each kind of call", func(t *testing.T) {
		g := newSoakedGate(t)
		g.serve(t, "127.0.0.1:0", envoy.ServerOptions{})
		output, err := exec.CommandContext(t.Context(), peer, "suite", g.addr).CombinedOutput()
		if t.Logf("%s", output); err != nil {
			t.Error(err)
		}
		nothingHeld(t, g)
	})
	t.Run("restarts", func(t *testing.T) {
		options := envoy.ServerOptions{MaxConnectionAge: time.Second, Drain: time.Second}
		gates := []*gate{newSoakedGate(t), newSoakedGate(t)}
		for _, g := range gates {
			g.serve(t, "127.0.0.1:0", options)
		}
		asked := askByTonic(t.Context(), t, peer, 10*time.Second, 500, gates[0].addr, gates[1].addr)
		for _, g := range gates {
			g.drain(t)
			g.serve(t, g.addr, options)
			g.server.Close()
			if err := <-g.served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			g.serve(t, g.addr, options)
		}
		asked()
		nothingHeld(t, gates...)
	})
}

// askByTonic starts tonic's client on both instances, and returns what waits
// for its end, of itself or with ctx: no call may fail that was tried again as
// Envoy does.
func askByTonic(ctx context.Context, t *testing.T, peer string, time time.Duration, rate int, addrs ...string) (wait func()) {
	t.Helper()
	args := append([]string{"soak", fmt.Sprint(int(time.Seconds())), fmt.Sprint(rate)}, addrs...)
	cmd := exec.CommandContext(ctx, peer, args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			t.Errorf("tonic's client: %v", err)
		}
		t.Logf("%s", &output)
	}
}

// nothingHeld waits until the requests of calls that were cancelled are gone.
func nothingHeld(t *testing.T, gates ...*gate) {
	t.Helper()
	envoytest.Eventually(t, func() error {
		for i, g := range gates {
			if n := g.queue.Waiting(); n != 0 {
				return fmt.Errorf("instance %d still holds %d requests", i, n)
			}
		}
		return nil
	})
}

// newSoakedGate is a gate for the fast listener, with a consumer that is
// always admitted, one whose requests are held, and a rule that soon refuses.
func newSoakedGate(t *testing.T) *gate {
	g := newGate(t, "domain: mesh\ndescriptors:\n- {key: user, rate_limit: {unit: day, requests_per_unit: 2}}\n")
	g.fast = true
	g.put(t, consumers.Consumer{ID: "steady", Limits: unlimited()}, "prod")
	held := perSecond(1, time.Second, 1)
	held[0].Limit.MaxWait = 20 * time.Second
	g.put(t, consumers.Consumer{ID: "held", Limits: held}, "prod")
	return g
}
