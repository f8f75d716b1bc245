package descriptors

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
)

// Book pairs the rules in force with the live limiters of their descriptors.
// Safe for concurrent use.
type Book struct {
	table     *limits.Table
	rules     atomic.Pointer[Rules]
	overrides overrides
	labels    labels

	swapping sync.Mutex // guards tallies
	tallies  map[tallyKey]*tally
}

// NewBook returns a book over the given table, with no rules.
func NewBook(t *limits.Table) *Book {
	b := &Book{table: t}
	b.overrides.seed = maphash.MakeSeed()
	b.rules.Store(&Rules{})
	return b
}

// Swap puts rules in force, whole. Limiters of descriptors that still have a
// rule go on counting, with the new limit from their next use.
func (b *Book) Swap(r *Rules) {
	b.keepTallies(r)
	b.rules.Store(r)
}

// Rules returns the rules in force; one decision uses one value.
func (b *Book) Rules() *Rules {
	return b.rules.Load()
}

// keyRoom is the stack space for a key in the making, before it is hashed.
// Descriptors of ordinary length fit; others cost one allocation.
const keyRoom = 512

// Limiter returns the live limiter of a rule for these entries, nil if the rule
// is unlimited. Nothing is allocated for one that lives.
func (b *Book) Limiter(now limits.Time, rule *Rule, entries []Entry) *limits.Limiter {
	if rule.Unlimited {
		return nil
	}
	var room [keyRoom]byte
	return b.table.Limiter(now, rule.AppendKey(room[:0], entries), rule.Spec)
}
