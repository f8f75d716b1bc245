package limits

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Queue holds requests until their turn comes, for limits that have a MaxWait.
// Those who wait for one limiter are served first come, first served, and
// nobody who comes later overtakes them. A request of several limits waits for
// the limiter with the longest wait, then takes all of them together or moves
// on to the next, where it stands before those who came later.
//
// A limiter belongs to one queue. A request that need not wait takes no lock
// and allocates nothing. One timer serves all who wait; while nobody waits
// nothing runs. All methods are safe for concurrent use.
type Queue struct {
	clock   *Clock
	options QueueOptions
	start   time.Time // due times count from here, so that a step of the clock does not move them
	waiting atomic.Int64

	mu     sync.Mutex // guards what follows, every line and every waiter; before staleMu
	closed bool
	ticket uint64 // of the last who came
	due    lineHeap
	timer  *time.Timer
	armed  time.Duration // what the timer is set to; forever when it is stopped

	staleMu sync.Mutex
	stale   []*line // whose turns no longer hold
}

// QueueOptions bound a queue.
type QueueOptions struct {
	PerLimiter int // waiters per limiter; 0 means 1000
	Total      int // waiters in all; 0 means 100000
}

const (
	defaultPerLimiter = 1000
	defaultTotal      = 100_000

	forever = time.Duration(math.MaxInt64)
)

// NewQueue returns a queue on the given clock; Close stops it.
func NewQueue(c *Clock, o QueueOptions) *Queue {
	if o.PerLimiter <= 0 {
		o.PerLimiter = defaultPerLimiter
	}
	if o.Total <= 0 {
		o.Total = defaultTotal
	}
	q := &Queue{clock: c, options: o, start: time.Now(), armed: forever}
	q.timer = time.AfterFunc(forever, q.serve)
	q.timer.Stop()
	return q
}

// TakeAll is as the function, but holds the request within its limits' MaxWait
// and ctx. It refuses at once when the turn lies beyond either; the Wait of the
// decision then counts those ahead. An error is ErrWouldWait, or that of ctx,
// which ended while the request was held: nothing was taken then, and the turn
// went to the next.
func (q *Queue) TakeAll(ctx context.Context, claims []Claim) (int, error) {
	return q.take(ctx, claims, asConfigured)
}

// Wait takes n, waiting for it as long as ctx allows, whatever the limit's
// MaxWait. It refuses at once what cannot come before the deadline of ctx, and
// fails with the error of ctx when that ends earlier.
func (l *Limiter) Wait(ctx context.Context, q *Queue, n int64) (Decision, error) {
	claims := [1]Claim{{Limiter: l, N: n}}
	_, err := q.take(ctx, claims[:], asContext)
	return claims[0].Decision, err
}

// ErrWouldWait is what a queue answers under a context of [WithoutWaiting] to a
// request that it would hold. Nothing was taken then, and nothing counted.
var ErrWouldWait = errors.New("limits: the request would have to wait for its turn")

type withoutWaiting struct{}

// WithoutWaiting returns a context for a goroutine that must not block: a
// request that would be held fails with ErrWouldWait, and may be asked again
// where it can wait.
func WithoutWaiting(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutWaiting{}, true)
}

// MayWait reports whether a request under ctx may be held.
func MayWait(ctx context.Context) bool { return ctx.Value(withoutWaiting{}) == nil }

// Waiting returns how many requests are held.
func (q *Queue) Waiting() int { return int(q.waiting.Load()) }

// Waiting returns how many requests wait for l.
func (l *Limiter) Waiting() int {
	if ln := l.line(); ln != nil {
		return int(ln.len.Load())
	}
	return 0
}

// Close refuses all who wait and stops the queue, which from then on holds
// nobody.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.unlock()
	q.closed = true
	for len(q.due) > 0 {
		ln := q.due[0]
		for len(ln.waiters) > 0 {
			q.refuse(ln.waiters[0], ln.waiters[0].at)
		}
		q.settle(ln)
	}
}

// patience says what bounds a wait.
type patience int

const (
	asConfigured patience = iota // the limits' MaxWait, and the context
	asContext                    // the context alone
)

func (q *Queue) take(ctx context.Context, claims []Claim, p patience) (int, error) {
	now := q.clock.Now()
	if anyoneWaits(claims) {
		PeekAll(now, claims)
	} else if i := takeAll(now, claims); i < 0 {
		return i, nil
	} else if p == asConfigured && claims[i].Limiter.Spec().limit.MaxWait == 0 {
		claims[i].Limiter.countRefused()
		return i, nil
	}
	// Most of those who come in vain are told so without the lock.
	r := request{patience: p, ticket: newest, arrived: q.elapsed(), deadline: q.deadline(ctx)}
	if at, ok := q.forecast(now, claims, &r); !ok {
		claims[at].Limiter.countRefused()
		return at, nil
	}
	if !MayWait(ctx) {
		return -1, ErrWouldWait
	}
	w, i := q.join(claims, r)
	if w == nil {
		return i, nil
	}
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	err := ctx.Err()
	if err != nil {
		q.leave(w)
	}
	copy(claims, w.claims)
	return w.result, err
}

// anyoneWaits tells whether taking the claims now would overtake someone.
func anyoneWaits(claims []Claim) bool {
	for i := range claims {
		if claims[i].line() != nil {
			return true
		}
	}
	return false
}

// join lets a request wait. It returns no waiter but the answer where there is
// one at once.
func (q *Queue) join(claims []Claim, r request) (*waiter, int) {
	q.mu.Lock()
	defer q.unlock()
	now := q.clock.Now()
	if q.closed {
		return nil, TakeAll(now, claims)
	}
	if anyoneWaits(claims) {
		PeekAll(now, claims)
	} else if i := takeAll(now, claims); i < 0 {
		return nil, i
	}
	at, ok := q.forecast(now, claims, &r)
	if !ok || q.Waiting() >= q.options.Total || q.full(claims[at].Limiter) {
		claims[at].Limiter.countRefused()
		return nil, at
	}
	q.ticket++
	r.ticket = q.ticket
	w := &waiter{request: r, claims: slices.Clone(claims), done: make(chan struct{})}
	q.waiting.Add(1)
	q.stand(now, w, at)
	return w, -1
}

func (q *Queue) full(l *Limiter) bool { return l.Waiting() >= q.options.PerLimiter }

// leave ends the wait of one whose caller is gone. What it may have got in the
// same moment goes back.
func (q *Queue) leave(w *waiter) {
	q.mu.Lock()
	ln := w.line
	if ln != nil {
		first := ln.waiters[0] == w
		q.end(w, w.at)
		if first {
			q.timeFirst(q.clock.Now(), ln)
		}
		q.settle(ln)
	}
	q.unlock()
	if w.result >= 0 {
		return
	}
	w.result = w.at
	for i := range w.claims {
		if c := &w.claims[i]; c.N > 0 && c.Decision.Allowed {
			c.Limiter.Refund(w.taken, c.N)
			c.Limiter.admitted.Add(-1)
			c.Decision.Allowed = false
		}
	}
}

// elapsed is the time by which turns are set.
func (q *Queue) elapsed() time.Duration { return time.Since(q.start) }

// deadline returns the last moment that is before the deadline of ctx.
func (q *Queue) deadline(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return d.Sub(q.start) - 1
	}
	return forever
}
