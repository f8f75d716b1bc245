package limits

import "context"

// Queue holds requests until their turn comes.
type Queue struct{}

// QueueOptions bound a queue.
type QueueOptions struct {
	PerLimiter int // waiters per limiter; 0 means 1000
	Total      int // waiters in all; 0 means 100000
}

// line is who waits for one limiter.
type line struct{}

// NewQueue returns a queue on the given clock; Close stops it.
func NewQueue(c *Clock, o QueueOptions) *Queue { panic("skeleton") }

// TakeAll is as the function, but holds the request within its limits' MaxWait
// and ctx.
func (q *Queue) TakeAll(ctx context.Context, claims []Claim) (int, error) { panic("skeleton") }

// Close refuses all who wait and stops the queue.
func (q *Queue) Close() { panic("skeleton") }

// retime gives everyone who waits for l a new turn. SetSpec, Reset, Refund and
// Close end with it: what was promised before no longer holds. It costs one
// atomic load when nobody waits.
func (l *Limiter) retime() {
	if l.line.Load() != nil {
		panic("skeleton")
	}
}
