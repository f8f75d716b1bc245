package limits

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// request is what decides how long one may wait, and before whom.
type request struct {
	patience          patience
	ticket            uint64        // the order of arrival
	arrived, deadline time.Duration // since the queue's start
}

// waits tells whether the request waits as long as c says.
func (r *request) waits(c *Claim, elapsed time.Duration) bool {
	until := r.deadline
	switch {
	case c.Decision.Wait == Never:
		return false
	case c.N < 1: // a look is not held
		until = r.arrived
	case r.patience == asConfigured:
		until = min(until, r.arrived+min(c.Limiter.Spec().limit.MaxWait, forever-r.arrived))
	}
	return c.Decision.Wait <= until-elapsed
}

// newest is the ticket of a request that has not joined a line.
const newest = math.MaxUint64

// waiter is a request that is held.
type waiter struct {
	request
	claims []Claim // a copy: the caller's need not escape to the heap
	line   *line   // where it stands; nil once it has ended
	at     int     // the claim whose limiter it waits for
	done   chan struct{}
	result int  // of TakeAll, once done is closed
	taken  Time // the instant it took at
}

func (w *waiter) claim() *Claim { return &w.claims[w.at] }

// overtakes tells whether w would overtake someone who came before it and
// waits for another of its limiters.
func (w *waiter) overtakes() bool {
	for i := range w.claims {
		if ln := w.claims[i].line(); ln != nil && ln != w.line && ln.waiters[0].ticket < w.ticket {
			return true
		}
	}
	return false
}

// spaced tells whether all limits of w are of a kind that only spaces requests.
// The others promise something of the very moment, as never more than N in any
// window.
func (w *waiter) spaced() bool {
	for i := range w.claims {
		switch w.claims[i].Limiter.Spec().limit.Kind {
		case Rate, Pace, SmoothBursty, SmoothWarmingUp:
		default:
			return false
		}
	}
	return true
}

// line returns who waits for the claim's limiter, nil if nobody does or the
// claim has not to stand behind them: in shadow, or a look.
func (c *Claim) line() *line {
	ln := c.Limiter.line()
	if ln == nil || c.N < 1 || !c.enforced() {
		return nil
	}
	return ln
}

// line returns who waits for l, nil while nobody does.
func (l *Limiter) line() *line {
	if m := l.first.more(); m != nil {
		return m.line.Load()
	}
	return nil
}

// line is who waits for one limiter. The queue's mutex guards it but for the
// two counts, which may be read at any time.
type line struct {
	queue   *Queue
	limiter *Limiter
	waiters []*waiter // by ticket; never empty for long
	due     time.Duration
	index   int // in the heap

	len  atomic.Int64
	cost atomic.Int64 // what those who wait want together
}

func (ln *line) place(ticket uint64) int {
	i, _ := slices.BinarySearchFunc(ln.waiters, ticket, func(w *waiter, t uint64) int {
		return cmp.Compare(w.ticket, t)
	})
	return i
}

func (ln *line) add(w *waiter, at int) {
	w.line, w.at = ln, at
	ln.waiters = slices.Insert(ln.waiters, ln.place(w.ticket), w)
	ln.count(1, w.claim().N)
}

func (ln *line) remove(w *waiter) {
	i := ln.place(w.ticket)
	ln.waiters = slices.Delete(ln.waiters, i, i+1)
	ln.count(-1, -w.claim().N)
	w.line = nil
}

func (ln *line) count(n, cost int64) {
	ln.len.Add(n)
	ln.cost.Add(cost)
}

// ahead returns what those want together who came before the ticket, and
// whether there are any. For one who is newer than all it needs no lock.
func (ln *line) ahead(ticket uint64) (cost int64, found bool) {
	if ticket == newest {
		return ln.cost.Load(), ln.len.Load() > 0
	}
	for _, w := range ln.waiters {
		if w.ticket >= ticket {
			break
		}
		cost += w.claim().N
		found = true
	}
	return cost, found
}

// lineHeap is a container/heap of lines by due time.
type lineHeap []*line

func (h lineHeap) Len() int           { return len(h) }
func (h lineHeap) Less(i, j int) bool { return h[i].due < h[j].due }

func (h lineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is heap.Interface's.
func (h *lineHeap) Push(x any) {
	ln := x.(*line)
	ln.index = len(*h)
	*h = append(*h, ln)
}

// Pop is heap.Interface's.
func (h *lineHeap) Pop() any {
	old := *h
	ln := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return ln
}
