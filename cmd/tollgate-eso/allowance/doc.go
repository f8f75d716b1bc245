// Package allowance knows what Tollgate says an upstream allows just now.
//
// A [Watcher] follows Tollgate's events and reads GET /v1/upstreams behind them,
// so that it learns of a pause at once and misses none. [State.Calls] is the one
// figure that whoever makes External Secrets call an upstream needs.
package allowance
