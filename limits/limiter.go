package limits

import (
	"context"
)

// Spec is a checked, immutable Limit, shared by all limiters that enforce it.
type Spec struct{ limit Limit }

// Compile checks l and returns it ready for use; the error names every problem.
func Compile(l Limit) (*Spec, error) { return &Spec{limit: l}, nil }

// Limit returns what the spec was compiled from, defaults and name filled in.
func (s *Spec) Limit() Limit { return s.limit }

// Limiter decides for one key.
type Limiter struct{}

// New returns a limiter that nobody has used.
func New(s *Spec, now Time) *Limiter { panic("skeleton") }

// Take takes n or nothing. n must be at least 1.
func (l *Limiter) Take(now Time, n int64) Decision { panic("skeleton") }

// Peek answers what Take would, and takes nothing.
func (l *Limiter) Peek(now Time, n int64) Decision { panic("skeleton") }

// Refund gives back n that an earlier Take took.
func (l *Limiter) Refund(now Time, n int64) { panic("skeleton") }

// SetSpec changes the limit, of any kind. The very next decision uses it.
func (l *Limiter) SetSpec(now Time, s *Spec) { panic("skeleton") }

// Spec returns the limit in force.
func (l *Limiter) Spec() *Spec { panic("skeleton") }

// Reset makes the limiter as good as new, but for its grace.
func (l *Limiter) Reset(now Time) { panic("skeleton") }

// Usage is what a limiter has answered since it was made.
type Usage struct{ Admitted, Refused int64 }

// Usage reads the counts.
func (l *Limiter) Usage() Usage { panic("skeleton") }

// Close ends the limiter: every later Take is refused, Never.
func (l *Limiter) Close() { panic("skeleton") }

// State is what a limiter must remember over a restart.
type State struct {
	Kind Kind
	A, B int64
	C    uint32
}

// State returns what to keep, for Restore.
func (l *Limiter) State() State { panic("skeleton") }

// Restore returns a limiter that goes on where State was taken.
func Restore(s *Spec, now Time, st State) *Limiter { panic("skeleton") }

// Claim is one limiter's part in a request.
type Claim struct {
	Limiter  *Limiter
	N        int64
	Shadow   bool     // never refuses, whatever the spec says
	Decision Decision // filled by TakeAll
}

// TakeAll takes every claim or none. It returns the index of the claim that
// refused (the one with the longest wait), or -1 when all were taken.
func TakeAll(now Time, claims []Claim) int { panic("skeleton") }

// PeekAll fills the decisions as TakeAll would and takes nothing.
func PeekAll(now Time, claims []Claim) int { panic("skeleton") }

// Queue holds requests until their turn comes.
type Queue struct{}

// QueueOptions bound a queue.
type QueueOptions struct {
	PerLimiter int // waiters per limiter; 0 means 1000
	Total      int // waiters in all; 0 means 100000
}

// NewQueue returns a queue on the given clock; Close stops it.
func NewQueue(c *Clock, o QueueOptions) *Queue { panic("skeleton") }

// TakeAll is as the function, but holds the request within its limits' MaxWait
// and ctx.
func (q *Queue) TakeAll(ctx context.Context, claims []Claim) (int, error) { panic("skeleton") }

// Close refuses all who wait and stops the queue.
func (q *Queue) Close() { panic("skeleton") }
