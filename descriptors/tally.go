package descriptors

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
)

// nearLimit is from which part of its limit on a hit counts as near it, as
// envoyproxy/ratelimit has it by default.
const nearLimit = 0.8

// Tally is what a rule has said of hits, since it or another of the same domain,
// path and limit was put in force.
type Tally struct {
	Domain, Path, Limit string
	Within              uint64 // hits that the limit admits, also where another refuses the request
	Near                uint64 // of those that were taken, the ones beyond 80 % of the limit
	Over                uint64 // hits that the limit refuses, also where it only watches
	Shadow              uint64 // of those, the ones of a limit in shadow_mode
}

// tally is where a rule counts. Decisions of all processors do; the next one's
// cache line is another.
type tally struct {
	within, near, over, shadow atomic.Uint64
	_                          [64]byte
}

// tallyKey is what a rule keeps its tally by when rules are swapped.
type tallyKey struct{ domain, path, limit string }

func (r *Rule) tallyKey() tallyKey {
	k := tallyKey{domain: r.domain, path: r.Path}
	if r.Spec != nil {
		k.limit = r.Spec.Limit().Name
	}
	return k
}

// Count takes in what the rule's limit has said of n hits; taken is false where
// the request was refused, so that nothing was. Rules that a request brings with
// it do not count. It allocates nothing.
func (r *Rule) Count(n int64, said limits.Decision, taken bool) {
	t := r.tally.Load()
	switch {
	case t == nil || n <= 0:
	case !said.Allowed:
		t.over.Add(uint64(n))
		if r.Shadow {
			t.shadow.Add(uint64(n))
		}
	default:
		t.within.Add(uint64(n))
		if r.Spec == nil || !taken {
			return
		}
		limit := r.Spec.Limit().N
		if near := limit - said.Remaining - int64(float64(limit)*nearLimit); near > 0 {
			t.near.Add(uint64(min(n, near)))
		}
	}
}

// keepTallies gives rules that come into force the tallies of those before, and
// forgets the others.
func (b *Book) keepTallies(r *Rules) {
	b.swapping.Lock()
	defer b.swapping.Unlock()
	kept := map[tallyKey]*tally{}
	for _, d := range r.domains {
		for _, rule := range d.rules {
			k := rule.tallyKey()
			t := kept[k]
			if t == nil {
				if t = b.tallies[k]; t == nil {
					t = new(tally)
				}
				kept[k] = t
			}
			rule.tally.CompareAndSwap(nil, t)
		}
	}
	b.tallies = kept
}

// Tallies returns what each rule has counted, of those that were asked at all.
func (b *Book) Tallies() []Tally {
	b.swapping.Lock()
	defer b.swapping.Unlock()
	var all []Tally
	for k, t := range b.tallies {
		one := Tally{Domain: k.domain, Path: k.path, Limit: k.limit, Within: t.within.Load(), Near: t.near.Load(), Over: t.over.Load(), Shadow: t.shadow.Load()}
		if one.Within+one.Over > 0 {
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Limit, b.Limit))
	})
	return all
}
