package limits

import (
	"sync/atomic"
	"time"
)

// Spec is a checked, immutable Limit, shared by all limiters that enforce it.
type Spec struct{ limit Limit }

// Compile checks l and returns it ready for use; the error names every problem.
func Compile(l Limit) (*Spec, error) { return &Spec{limit: l}, nil }

// Limit returns what the spec was compiled from, defaults and name filled in.
func (s *Spec) Limit() Limit { return s.limit }

// Limiter decides for one key.
type Limiter struct {
	line atomic.Pointer[line] // who waits for this limiter; nil while nobody does
}

// New returns a limiter that nobody has used.
func New(s *Spec, now Time) *Limiter { panic("skeleton") }

// Take takes n or nothing. n must be at least 1.
func (l *Limiter) Take(now Time, n int64) Decision { panic("skeleton") }

// Peek answers what Take would, and takes nothing.
func (l *Limiter) Peek(now Time, n int64) Decision { panic("skeleton") }

// Refund gives back n that an earlier Take took.
func (l *Limiter) Refund(now Time, n int64) { panic("skeleton") }

// WaitFor answers how long it takes until n can be taken by one who comes
// after ahead others of cost 1: 0 when it can be taken now, or [Never].
func (l *Limiter) WaitFor(now Time, ahead, n int64) time.Duration { panic("skeleton") }

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

// init makes the zero Limiter one that nobody has used. The table embeds
// limiters in its entries and so needs it apart from New.
func (l *Limiter) init(s *Spec, now Time) { panic("skeleton") }

// restore is Restore on a zero Limiter.
func (l *Limiter) restore(s *Spec, now Time, st State) { panic("skeleton") }

// merge returns a state of s that admits no more than either a or b would.
// The table keeps it of limiters it had to forget.
func (s *Spec) merge(now Time, a, b State) State { panic("skeleton") }

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

// takeAll is TakeAll without counting a refusal in Usage: the queue may still
// hold the request, and counts once the end is known (Limiter.countRefused).
func takeAll(now Time, claims []Claim) int { panic("skeleton") }

// countRefused counts one refusal in Usage.
func (l *Limiter) countRefused() { panic("skeleton") }

// PeekAll fills the decisions as TakeAll would and takes nothing.
func PeekAll(now Time, claims []Claim) int { panic("skeleton") }
