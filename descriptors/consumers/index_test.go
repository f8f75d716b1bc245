package consumers_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// TestIndexAgainstMap edits an index at random and compares it with a map, and
// what was published earlier with what it held then.
func TestIndexAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	// Few distinct hashes, some alike in the bits that choose a bucket, some in all.
	hash := func() uint64 { return rng.Uint64N(4)<<62 | rng.Uint64N(3)<<52 | rng.Uint64N(40)<<20*rng.Uint64N(2) }
	x, want := new(consumers.Index), map[string]uint64{}
	type version struct {
		x    *consumers.Index
		want map[string]uint64
	}
	var old []version
	for i := range 4000 {
		if len(want) > 0 && rng.IntN(3) == 0 {
			v := slices.Sorted(maps.Keys(want))[rng.IntN(len(want))]
			x = x.Remove(want[v], v)
			delete(want, v)
		} else {
			v, h := fmt.Sprint(i), hash()
			x = x.Insert(h, v)
			want[v] = h
		}
		if i%500 == 0 {
			old = append(old, version{x, maps.Clone(want)})
		}
	}
	old = append(old, version{x, want}, version{consumers.Build(want), want})
	for i, o := range old {
		got := o.x.All()
		slices.Sort(got)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(o.want)), got); diff != "" {
			t.Errorf("version %d holds (-want +got):\n%s", i, diff)
		}
		for v, h := range o.want {
			if !slices.Contains(o.x.Find(h), v) {
				t.Errorf("version %d: Find(%#x) does not have %s", i, h, v)
			}
		}
	}
}

func TestIndexFindsEvenlySpreadHashes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	want := map[string]uint64{}
	for i := range 100_000 {
		want[fmt.Sprint(i)] = rng.Uint64()
	}
	x := consumers.Build(want)
	for v, h := range want {
		if got := x.Find(h); len(got) != 1 || got[0] != v {
			t.Fatalf("Find(%#x) = %v, want %s", h, got, v)
		}
		if got := x.Find(h ^ 1<<40); len(got) != 0 && got[0] == v {
			t.Fatalf("Find of a hash with another bit = %v", got)
		}
	}
}
