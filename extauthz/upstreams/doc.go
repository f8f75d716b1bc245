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
//
// # Many instances
//
// With a [Shared] store, which limits/redis is, the instances are as one towards an
// upstream. Its limits and its budget, with what each class leaves in reserve, are
// taken from buckets in the store, in chunks taken before use. A request that finds
// too little in hand is held while the store is asked, without a max_wait too; no
// lock is held meanwhile. Each instance tells, and hears, every 50 ms and whenever
// something changes there:
//
//   - the pause: the longest that any of them was asked for counts for all;
//   - the probe: before one is sent the store is asked for the right to. It ends
//     with the answer, when the caller leaves, and when the answer is overdue: so
//     an instance that is killed holds nobody up for longer than that;
//   - the return: traffic that comes back is divided by the number of instances;
//   - the working limit: it is lowered by what the upstream took of all instances'
//     requests, and raised by whichever is first, once;
//   - an end by hand, which voids all that was seen before it.
//
// Used and Remaining tell what all have used, half a second late; Classes, Labels
// and Counts are this instance's, and so are the turns of callers and the silence
// of idle_reset while it has not been told. While the store is away each instance
// keeps to its share of limits and budget (on_error of the limit, or of the
// cluster, says otherwise), to the pauses that it knows, and probes for itself; what it did
// then is reported once the store is back.
package upstreams
