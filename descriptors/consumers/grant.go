package consumers

import (
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/limits"
)

// Standing is what a credential is worth.
type Standing int

// The standings.
const (
	Unknown  Standing = iota // nobody's, malformed or revoked
	Expired                  // was somebody's
	Disabled                 // its consumer is disabled
	Valid
)

// Caller is a consumer as decisions see it. It is shared and must not be changed.
type Caller struct {
	ID     string
	Labels map[string]string

	terms  *terms
	shared *sharedLimiters       // nil if no limit is per consumer
	byID   atomic.Pointer[Grant] // made when the consumer is first asked for by id
}

// sharedLimiters are those of a consumer's limits that all its tokens share: as
// long as its terms, nil where a limit is per token.
type sharedLimiters []*limits.Limiter

// Grant is what one token, or one consumer by id, may take from. It is shared
// and must not be changed; its limiters are there to be taken from.
type Grant struct {
	Consumer *Caller
	Token    string            // the token's id; empty for a grant by consumer id
	Limiters []*limits.Limiter // none: unlimited

	expires  limits.Time
	disabled bool
	durable  bool // a limiter has something that must survive a restart
	state    atomic.Uint32
}

// The bits of Grant.state.
const (
	grantWatched = 1 << iota // the journal looks at it
	grantGone                // another took its place, or none
)

func (g *Grant) is(bit uint32) bool { return g.state.Load()&bit != 0 }

func (g *Grant) stateKey(i int) StateKey {
	c := g.Consumer
	switch {
	case c.terms.limits[i].PerConsumer:
		return stateKey(scopeConsumer, c.ID, "", c.terms.slots[i])
	case g.Token == "":
		return stateKey(scopeID, c.ID, "", c.terms.slots[i])
	}
	return stateKey(scopeToken, c.ID, g.Token, c.terms.slots[i])
}

// durable reports whether a limiter has something that must survive a restart.
func durable(s *limits.Spec) bool {
	l := s.Limit()
	return l.Kind == limits.Quota || l.WarmUp.Grace > 0
}

func (g *Grant) standing(now limits.Time) Standing {
	switch {
	case now >= g.expires:
		return Expired
	case g.disabled:
		return Disabled
	}
	return Valid
}

// terms is a list of limits, ready to make limiters of. Callers with equal
// limits share one.
type terms struct {
	key     string // in the pool
	limits  Limits
	specs   []*limits.Spec
	slots   []string // what tells a limit from its siblings while its numbers change
	shared  bool     // one of them is per consumer
	durable bool
}

// newTerms reads a list that was checked before it became text.
func newTerms(key, text string, w limits.WarmUp) *terms {
	t := &terms{key: key}
	ls, err := decodeLimits(text)
	for _, l := range ls {
		spec, broken := l.compile(w)
		if broken != nil {
			err = broken
			break
		}
		t.specs = append(t.specs, spec)
		t.shared = t.shared || l.PerConsumer
		t.durable = t.durable || durable(spec)
	}
	if err != nil {
		// Unreachable by input: whoever wrote the text checked the limits.
		panic("consumers: limits " + text + ": " + err.Error())
	}
	t.limits, t.slots = ls, slots(ls)
	return t
}

// slots names each limit by what a change of its numbers leaves alone: its kind
// and its own name, or else its place among the limits of its kind.
func slots(ls Limits) []string {
	names := make([]string, len(ls))
	seen := map[string]int{}
	for i, l := range ls {
		s := string(l.Kind) + ":" + string(l.Calendar)
		if l.Name != "" {
			names[i] = s + ":=" + l.Name
			continue
		}
		names[i] = s + ":" + string(rune('0'+seen[s]))
		seen[s]++
	}
	return names
}

// match says for each limit of t which limit of old it continues, or -1: the
// one in the same slot, else one of the same kind, else any that is left.
func (t *terms) match(old *terms) []int {
	from := make([]int, len(t.limits))
	taken := make([]bool, len(old.limits))
	for i := range from {
		from[i] = -1
	}
	for _, alike := range []func(i, j int) bool{
		func(i, j int) bool { return t.slots[i] == old.slots[j] },
		func(i, j int) bool { return t.limits[i].Kind == old.limits[j].Kind },
		func(i, j int) bool { return true },
	} {
		for i := range t.limits {
			for j := range old.limits {
				if from[i] < 0 && !taken[j] && t.limits[i].PerConsumer == old.limits[j].PerConsumer && alike(i, j) {
					from[i], taken[j] = j, true
				}
			}
		}
	}
	return from
}

// pool shares equal values among those who hold them.
type pool[T any] struct {
	held map[string]*pooled[T]
}

type pooled[T any] struct {
	value T
	count int
}

func newPool[T any]() pool[T] {
	return pool[T]{held: map[string]*pooled[T]{}}
}

func (p *pool[T]) acquire(key string, make func() T) T {
	e := p.held[key]
	if e == nil {
		e = &pooled[T]{value: make()}
		p.held[key] = e
	}
	e.count++
	return e.value
}

func (p *pool[T]) release(key string) {
	if e := p.held[key]; e != nil {
		if e.count--; e.count == 0 {
			delete(p.held, key)
		}
	}
}
