// Package envoytest is what tests with a real Envoy are made of: the Envoys that
// `make envoy` fetches, an upstream that echoes what reached it, and clients
// over HTTP/1.1, HTTP/2 and gRPC.
//
//	upstream := envoytest.StartUpstream(t)
//	e := envoytest.Start(t, envoytest.Binary(t), bootstrap(upstream.Addr))
//	answer := envoytest.Get(t, envoytest.HTTP1(t, e.Addr("http")), "/hello", "x-api-key", "secret")
//
// Tests that use it are skipped by -short, and fail where there is no Envoy.
package envoytest
