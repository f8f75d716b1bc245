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

// Caller is a consumer as decisions see it. Its labels must not be changed.
type Caller struct {
	ID     string
	Labels map[string]string
}

// Grant is what one token, or one consumer by id, may take from: limiters that
// are shared with all who ask for it. The zero value is nobody's.
type Grant struct {
	Consumer Caller
	Token    string // the token's id; empty for a grant by consumer id

	only *limits.Limiter   // where there is but one
	all  []*limits.Limiter // else
}

// Nobody reports whether the grant is nobody's.
func (g *Grant) Nobody() bool { return g.Consumer.ID == "" }

// Len returns the number of limiters. None: unlimited.
func (g *Grant) Len() int {
	if g.only != nil {
		return 1
	}
	return len(g.all)
}

// Limiter returns the limiter i, counted from 0, to be taken from.
func (g *Grant) Limiter(i int) *limits.Limiter {
	if g.only != nil && i == 0 {
		return g.only
	}
	return g.all[i]
}

// caller is a consumer in use whose tokens are not all plain, see seat.
type caller struct {
	id     string
	labels map[string]string
	terms  *terms
	shared *sharedLimiters       // nil if no limit is per consumer
	byID   atomic.Pointer[grant] // made when the consumer is first asked for by id
}

// sharedLimiters are those of a consumer's limits that all its tokens share: as
// long as its terms, nil where a limit is per token.
type sharedLimiters []*limits.Limiter

// grant is what is behind a Grant that is not a plain token's, and what the
// journal keeps of one that is.
type grant struct {
	caller   *caller
	token    string // the token's id; empty for a grant by consumer id
	limiters []*limits.Limiter
	expires  limits.Time
	disabled bool
	state    state
	turn     uint32 // the state's when the grant was made: another one, another grant
}

// state is what the journal knows of those who share limiters: flags, above them
// the age of the snapshot that the limiters were last brought up to, and above
// that how often another grant took the place of the one before.
type state struct{ *atomic.Uint32 }

const (
	watched      = 1 << iota // the journal looks at it
	plainly                  // a plain token has the seat
	durablePlain             // and the journal should look at it
	ageUnit                  // from here on the age
	turnUnit     = ageUnit << ageBits
	ageBits      = 8
)

// aged reports whether the state's limiters are those that a snapshot of an age
// asks for.
func aged(state, age uint32) bool { return state%turnUnit/ageUnit == age%(1<<ageBits) }

// become notes the age of the snapshot that the limiters were brought up to.
func (s state) become(age uint32) {
	for {
		was := s.Load()
		if s.CompareAndSwap(was, was/turnUnit*turnUnit|age%(1<<ageBits)*ageUnit|was%ageUnit) {
			return
		}
	}
}

func (s state) turn() uint32 { return s.Load() / turnUnit }

// next makes the grants before gone, and reports whether they were watched.
func (s state) next() bool {
	for {
		was := s.Load()
		if s.CompareAndSwap(was, (was/turnUnit+1)*turnUnit) {
			return was&watched != 0
		}
	}
}

// plain notes that a plain token under some terms has the seat.
func (s state) plain(t *terms) {
	if t.durable {
		s.Or(plainly | durablePlain)
		return
	}
	s.And(^uint32(durablePlain))
	s.Or(plainly)
}

// gone reports whether another grant took the place of g, or none.
func (g *grant) gone() bool { return g.state.turn() != g.turn }

func (g *grant) durable() bool { return g.caller.terms.durable }

// public is the grant as it is given out.
func (g *grant) public() Grant {
	return Grant{Consumer: Caller{g.caller.id, g.caller.labels}, Token: g.token, all: g.limiters}
}

func (g *grant) stateKey(i int) StateKey {
	c := g.caller
	switch {
	case c.terms.limits[i].PerConsumer:
		return stateKey(scopeConsumer, c.id, "", c.terms.slots[i])
	case g.token == "":
		return stateKey(scopeID, c.id, "", c.terms.slots[i])
	}
	return stateKey(scopeToken, c.id, g.token, c.terms.slots[i])
}

// durable reports whether a limiter has something that must survive a restart.
func durable(s *limits.Spec) bool {
	l := s.Limit()
	return l.Kind == limits.Quota || l.WarmUp.Grace > 0
}

func (g *grant) standing(now limits.Time) Standing { return standing(now, g.expires, g.disabled) }

func standing(now, expires limits.Time, disabled bool) Standing {
	switch {
	case now >= expires:
		return Expired
	case disabled:
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
	plain   bool // tokens can be plain: there is one limit, and it is per token
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
	t.plain = len(ls) == 1 && !t.shared
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

// again is acquire for what may be there, by a key that is not kept.
func (p *pool[T]) again(key []byte) (value T, ok bool) {
	if e := p.held[string(key)]; e != nil {
		e.count++
		return e.value, true
	}
	return value, false
}

// release reports whether nobody holds it any more.
func (p *pool[T]) release(key string) bool {
	e := p.held[key]
	if e == nil {
		return false
	}
	if e.count--; e.count == 0 {
		delete(p.held, key)
	}
	return e.count == 0
}
