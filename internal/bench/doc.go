// Command bench measures what serving a decision costs and prints ratios.
//
// It starts each server as a process of its own, drives all of them with the
// same load in interleaved rounds, and reports medians of
//
//   - CPU: user and system time of the server process per answered request,
//     the figure that is stable on machines that others use too;
//   - throughput, and p50 and p99 latency.
//
// The floor is grpc-go with default options and a handler that only says OK:
// what a server costs that decides nothing. Every figure is also given as a
// ratio to it.
//
// The generator drives HTTP/2 through golang.org/x/net's Framer, one goroutine
// per connection, so that it costs little beside what it measures. A closed
// loop keeps a number of streams in flight; an open loop sends at a rate,
// whatever comes back, and measures latency from when a request was due, so
// that a server that stalls cannot hide it (no coordinated omission).
// Histograms are HDR histograms.
//
//	go run ./internal/bench -servers floor,tollgate -api check -consumers 1000,1000000
//
// A machine's absolute figures mean little elsewhere; the ratios do.
//
// What telemetry costs, traces unsampled, metrics and the refusal log on:
//
//	go run ./internal/bench -servers tollgate-silent,tollgate-observed -consumers 1000 -streams 64
package main
