package descriptors

import (
	"fmt"
	"hash/maphash"
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
)

// Override is a limit that a request brings along (descriptor.limit).
type Override struct {
	Unit            Unit
	UnitMultiplier  uint32 // 0 means 1
	RequestsPerUnit uint32
}

// overridePath is the path of overrides where no rule matches.
const overridePath = "override"

// overrideSlots bounds how many overrides are kept ready. One that comes again
// after another has taken its slot is compiled again.
const overrideSlots = 1 << 12

// overrides are the rules made for requests that bring their own limit, each
// at a place given by its hash.
type overrides struct {
	seed  maphash.Seed
	slots [overrideSlots]atomic.Pointer[override]
}

type override struct {
	key  overrideKey
	rule *Rule
}

type overrideKey struct {
	Override
	domain string
	path   string
	shares bool   // the counter of a rule in force,
	tag    string // which has this tag
}

// Override returns the rule for a descriptor that brings its own limit, in
// place of the one that matches: never a shadow or a quota, and without a name.
// It counts where the matching rule does if both have the same window, and
// otherwise where all overrides of that window and these entries do. The error
// says what is wrong with o. Nothing is allocated for an override seen before.
// Where requests with and without an override meet on one counter at the same
// instant, one may be decided by the other's number; none is counted twice.
// In a nil Domain there are no overrides either.
func (b *Book) Override(d *Domain, entries []Entry, o Override) (*Rule, error) {
	if d == nil {
		return nil, nil
	}
	o.UnitMultiplier = max(o.UnitMultiplier, 1)
	key := overrideKey{Override: o, domain: d.name, path: overridePath}
	for r := d.Match(entries); r != nil && !key.shares; r = r.Next {
		key.path = r.Path
		if r.fixed && r.shared == nil && r.Unit == o.Unit && r.UnitMultiplier == o.UnitMultiplier {
			key.shares, key.tag = true, r.tag
		}
	}
	slot := &b.overrides.slots[maphash.Comparable(b.overrides.seed, key)%overrideSlots]
	if known := slot.Load(); known != nil && known.key == key {
		return known.rule, nil
	}
	rule, err := newOverride(key)
	if err != nil {
		return nil, err
	}
	slot.Store(&override{key, rule})
	return rule, nil
}

func newOverride(key overrideKey) (*Rule, error) {
	l := RateLimit{Unit: key.Unit, UnitMultiplier: key.UnitMultiplier, RequestsPerUnit: key.RequestsPerUnit}
	if key.Unit.length() == 0 {
		return nil, fmt.Errorf("limit.unit %d: want one of %s", key.Unit, unitNames)
	}
	limit, err := l.limit(false)
	if err != nil {
		return nil, fmt.Errorf("limit.unit_multiplier %d: %w", key.UnitMultiplier, err)
	}
	spec, err := limits.Compile(limit)
	if err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	tag := key.tag
	if !key.shares {
		tag = "override " + windowTag(key.Unit, key.UnitMultiplier, "")
	}
	return &Rule{
		Path: key.path, Unit: key.Unit, UnitMultiplier: key.UnitMultiplier, RequestsPerUnit: key.RequestsPerUnit,
		Spec: spec.Grouped(group(key.domain, key.path, tag)), domain: key.domain, tag: tag,
	}, nil
}
