// Package endtoend holds the tests of the whole: a real Envoy on a printed
// configuration, a Tollgate, an upstream, and clients over HTTP/1.1, HTTP/2 and
// gRPC. It has no code of its own.
package endtoend
