package limitstest

import (
	"context"
	"testing"

	"github.com/tollgate-dev/tollgate/limits"
)

// Shared makes limiters that instances share through a store, for [RunShared].
type Shared struct {
	// New returns a fresh limiter of a key that nobody has used.
	New func(s *limits.Spec, now limits.Time) *limits.Limiter
	// Again returns the limiter of the same key on another instance.
	Again func(l *limits.Limiter, s *limits.Spec, now limits.Time) *limits.Limiter
	// Taker decides, at the instants that At sets for the store, too.
	Taker limits.Taker
	At    func(now limits.Time)
	// Settle waits until the store knows what has been done with a limiter.
	Settle func(l *limits.Limiter)
	// Careful says that instances take in hand what they use: what a decision tells
	// of what remains may be too little, and of the wait too long.
	Careful bool
}

// RunShared is [Run] for limiters that instances share.
func RunShared(t *testing.T, s Shared, l limits.Limit) {
	runAll(t, &run{compile: limits.Compile, limit: l, shared: &s})
}

func (r *run) careful() bool { return r.shared != nil && r.shared.Careful }

// some returns how often a random sequence is tried: a store takes its time.
func (r *run) some(n uint64) uint64 {
	if r.shared != nil {
		return 1
	}
	return n
}

// steps is how long such a sequence is.
func (r *run) steps() int {
	if r.shared != nil {
		return 120
	}
	return 300
}

// subject is a limiter, which decides by itself or through the store.
type subject struct {
	*limits.Limiter
	run *run
}

func (r *run) new(s *limits.Spec, now limits.Time) subject {
	if r.shared == nil {
		return subject{limits.New(s, now), r}
	}
	r.shared.At(now)
	return subject{r.shared.New(s, now), r}
}

// again returns the limiter after a restart.
func (r *run) again(l subject, now limits.Time) subject {
	if r.shared == nil {
		return subject{limits.Restore(r.spec, now, l.State()), r}
	}
	r.shared.At(now)
	r.shared.Settle(l.Limiter)
	return subject{r.shared.Again(l.Limiter, r.spec, now), r}
}

// takeAll is limits.TakeAll.
func (r *run) takeAll(now limits.Time, claims []limits.Claim) int {
	if r.shared == nil {
		return limits.TakeAll(now, claims)
	}
	refused, _ := r.shared.Taker.TakeAll(context.Background(), nil, now, claims) // the context lasts
	return refused
}

func (s subject) Take(now limits.Time, n int64) limits.Decision {
	if s.run.shared == nil {
		return s.Limiter.Take(now, n)
	}
	s.run.shared.At(now)
	claims := []limits.Claim{{Limiter: s.Limiter, N: n}}
	s.run.takeAll(now, claims)
	return claims[0].Decision
}

// Peek is Limiter.Peek.
func (s subject) Peek(now limits.Time, n int64) limits.Decision {
	if s.run.shared == nil {
		return s.Limiter.Peek(now, n)
	}
	s.run.shared.At(now)
	claims := []limits.Claim{{Limiter: s.Limiter, N: n, Shadow: true}} // a look at n is a claim that is not taken
	_, _ = s.run.shared.Taker.PeekAll(context.Background(), now, claims)
	return claims[0].Decision
}

func (s subject) Refund(now limits.Time, n int64) {
	s.Limiter.Refund(now, n)
	s.settle()
}

func (s subject) Reset(now limits.Time) {
	s.Limiter.Reset(now)
	s.settle()
}

func (s subject) SetSpec(now limits.Time, spec *limits.Spec) {
	s.Limiter.SetSpec(now, spec)
	s.settle()
}

func (s subject) settle() {
	if s.run.shared != nil {
		s.run.shared.Settle(s.Limiter)
	}
}

// usable is how many hundredths of a limit can be used.
func (r *run) usable() int64 {
	if r.careful() {
		return 95
	}
	return 100
}
