// Package envoy is the gRPC server that Envoy asks: it listens, secures and
// measures, tells its health, and shuts down without losing a request. What it
// serves is registered by others; the packages below are Envoy's other APIs.
//
//	lis, err := envoy.Listen("127.0.0.1:8081")
//	s, err := envoy.NewServer(envoy.ServerOptions{Log: log, Metrics: registry})
//	authv3.RegisterAuthorizationServer(s, checker)
//	go s.Serve(lis)
//	…
//	s.Drain(ctx) // on SIGTERM
//
// # Shutting down
//
// Envoy goes on to send requests until it has noticed that an instance leaves,
// and that takes as long as the interval of its health checks. So Drain first
// says NOT_SERVING and goes on to decide, then sends GOAWAY, and ends when the
// last request that it had accepted has been answered. The printed
// configurations of package config probe every second.
package envoy
