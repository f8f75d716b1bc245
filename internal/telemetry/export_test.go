package telemetry

import "hash/maphash"

// What the tests of the histogram hold against the library's.
var (
	Classic = classic[:]
	Lowest  = boundary(lowest)
	Longest = boundary(highest + 1)
)

// Weight is what the sketch knows of a consumer.
type Weight struct{ Weight, Excess uint64 }

// Weights returns who is tracked.
func (t *Top) Weights() map[string]Weight {
	all := map[string]Weight{}
	for i := range t.shards {
		for _, c := range t.shards[i].heap {
			all[c.consumer] = Weight{c.weight, c.excess}
		}
	}
	return all
}

// Shard is the shard of a consumer.
func (t *Top) Shard(consumer string) int { return int(maphash.String(t.seed, consumer) % topShards) }
