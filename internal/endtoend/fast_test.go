package endtoend_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// TestFastListenerLosesNothing has every supported Envoy ask the fast listener
// of two instances, whose connections retire all the time and which are
// restarted one after the other: no request fails.
func TestFastListenerLosesNothing(t *testing.T) {
	t.Parallel()
	for _, binary := range envoytest.Binaries(t) {
		for _, mode := range []config.Mode{config.Fused, config.TwoPhase} {
			t.Run(filepath.Base(filepath.Dir(binary))+"-"+string(mode), func(t *testing.T) {
				options := envoy.ServerOptions{Drain: 3 * time.Second, MaxConnectionAge: time.Second}
				gates := []*gate{newGate(t, "domain: mesh\n"), newGate(t, "domain: mesh\n")}
				for _, g := range gates {
					g.fast = true
					g.put(t, consumers.Consumer{ID: "steady", Limits: unlimited()}, "prod")
					g.serve(t, unixSocket(t), options)
				}
				e := wireTo(t, binary, config.Options{Mode: mode}, gates...)
				var askers []*asker
				for _, client := range clients(t, e) {
					askers = append(askers, ask(t, client, 2, 4*time.Millisecond, secretOf("steady", "prod"), mustReach(t)))
				}
				for _, g := range gates {
					g.drain(t)
					g.serve(t, g.addr, options)
					envoytest.Eventually(t, func() error { return allHealthy(e, len(gates)) })
				}
				for _, a := range askers {
					envoytest.Eventually(t, func() error { return sent(a, 300) })
					a.stop()
				}
			})
		}
	}
}
