package envoytest

import (
	"net"
	"testing"

	"github.com/tollgate-dev/tollgate/envoy"
)

// Serve runs a gRPC server with what register adds to it until the test's end,
// and returns where it listens.
func Serve(tb testing.TB, register func(*envoy.Server)) string {
	tb.Helper()
	s, err := envoy.NewServer(envoy.ServerOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	register(s)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	tb.Cleanup(func() { s.Close(); <-done })
	return lis.Addr().String()
}
