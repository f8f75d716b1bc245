// Package plan says what External Secrets' objects cost an upstream, whether it
// allows that, and how to spread them so that it does.
//
// [Set.Add] takes in manifests, [List] a cluster; [Set.Demand] makes of either what
// costs calls: so many, so often. [Make] holds them against an [Allowance].
//
// # How refreshes are spread
//
// Time is divided into slots, each as long as the upstream needs to forget a
// batch ([Allowance.Batch]). An object has a place in a slot of its own interval,
// and so in one slot of every interval after it. Intervals become multiples of
// the smallest one, rounded down so that nothing is older than was asked for:
// then two objects that share no slot in the first round share none in any. The
// objects of a slot are refreshed together, and make no more calls than a batch.
package plan
