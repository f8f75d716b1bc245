// Package upstreams keeps callers inside what an upstream allows that throttles
// them: it holds requests until their turn, stops everybody when the upstream
// refuses all the same, and counts what it bills.
//
// # Model
//
// A [Registry] knows the configured upstreams. A request belongs to one by its
// host, or by the name that its route gives ([Registry.Find]). [Upstream.Admit]
// lets it pass, holds it, or refuses it; [Upstream.Observe] is told what the
// upstream answered, before the caller is. All that is mathematics is in the
// packages limits and limits/pressure.
//
// # Guarantees
//
//   - From the moment Observe returns no request passes until the pause is over,
//     neither one that was held before nor a new one; then exactly one does.
//   - The limits of an upstream are taken together, in the order of arrival of
//     each caller, and callers take turns. A caller that leaves takes nothing.
//   - The silence that idle_reset waits for is counted from the last answer: a
//     request may be on its way for a while before the upstream counts it.
//   - The queue is bounded. What cannot pass in time is refused at once.
//   - A pause that begins is on disk when Observe returns, and in force though the
//     disk should fail; that it became longer, what was counted and what the
//     budget has left are within [FlushEvery]. After a kill, limits that count in a
//     period start as used up then, so that nothing goes out too early.
package upstreams
