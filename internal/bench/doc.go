// Command bench measures what serving a decision costs and prints ratios.
//
// It starts each server as a process of its own, drives all of them with the
// same load in interleaved rounds, and reports medians of
//
//   - CPU: user and system time of the server's processes per answered request,
//     the figure that is stable on machines that others use too;
//   - throughput, and p50 and p99 latency.
//
// The floor is grpc-go with default options and a handler that only says OK:
// what a server costs that decides nothing. Every figure is also given as a
// ratio to it: the median of the rounds' ratios, since what disturbs a round
// disturbs all of it. At the end stand the goals, and which of them are met.
//
//	go run ./internal/bench              # everything, about 20 minutes
//	go run ./internal/bench -quick       # 1,000 consumers, 64 in flight
//
// Other rate limit services are measured beside where a program is given:
//
//	go run ./internal/bench -ratelimit PATH -limitador PATH
//
// One of them that dies is told of and left out from then on; its figures so far
// stay. All servers run all the time, so a run begins once none of them does more
// than the odd thing, or after three seconds.
//
// What each way of asking adds to a request through a real Envoy, beside one
// without filters and one that asks the floor:
//
//	go run ./internal/bench envoy
//
// What a million consumers cost beside CPU, start, memory and reloads:
//
//	go run ./internal/bench many
//
// A run of it begins once the configuration before is in force and the server still,
// and each round takes the reloads, and none, in another order.
//
// The generator drives HTTP/2 through golang.org/x/net's Framer, so that it
// costs little beside what it measures. A closed loop keeps a number of requests
// in flight, with a goroutine for each connection; an open loop sends at a rate,
// whatever comes back, from one thread for all connections, and measures latency
// from when a request was due, of every request that was, so that a server that
// stalls cannot hide it (no coordinated omission). How late the open loop itself
// sent stands beside ("sent late", p99): where that is much of a latency, the
// machine had no processor left for the generator, and the latency says little
// of the server. Histograms are HDR histograms.
//
// What telemetry costs, traces unsampled, metrics and the refusal log on:
//
//	make bench-telemetry
//
// A machine's absolute figures mean little elsewhere; the ratios do.
package main
