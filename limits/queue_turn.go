package limits

import (
	"container/heap"
	"slices"
	"time"
)

// serve is the timer: it gives their turn to all whose time has come.
func (q *Queue) serve() {
	q.mu.Lock()
	defer q.unlock()
	q.armed = forever
	for len(q.due) > 0 && q.due[0].due <= q.elapsed() {
		q.serveFirst(q.due[0])
	}
}

// retryAfter bounds how soon a turn is tried again that came to nothing, so
// that a forecast of 0 which does not come true cannot make the timer spin.
const retryAfter = 100 * time.Microsecond

// catchUp bounds how far back a turn counts when the timer was late. Without
// it a bucket that holds little would lose, at every turn, what came in
// meanwhile, and those who wait would get less than the rate. All turns that
// have come in the meantime are handed out at once, each as of its own instant.
const catchUp = 10 * time.Millisecond

// takeTurn lets the first of ln take what it wants, if it can, as of its turn.
func (q *Queue) takeTurn(now Time, ln *line) bool {
	w := ln.waiters[0]
	w.taken = now
	if w.spaced() {
		w.taken = now.Add(-min(q.elapsed()-ln.due, catchUp))
	}
	if takeAll(w.taken, w.claims) < 0 {
		return true
	}
	if w.taken == now {
		return false
	}
	w.taken = now
	return takeAll(now, w.claims) < 0
}

// serveFirst lets the first of a line take what it wants. If it cannot, it
// waits on, here or in another line, or is refused.
func (q *Queue) serveFirst(ln *line) {
	now := q.clock.Now()
	w := ln.waiters[0]
	if w.overtakes() {
		PeekAll(now, w.claims)
	} else if q.takeTurn(now, ln) {
		q.end(w, -1)
		q.timeFirst(w.taken, ln)
		ln.due -= now.Sub(w.taken) // the next turn too counts from this one, not from when it was handed out
		q.settle(ln)
		return
	}
	at, ok := q.forecast(now, w.claims, &w.request)
	switch {
	case !ok || at != w.at && q.full(w.claims[at].Limiter):
		q.refuse(w, at)
		q.timeFirst(now, ln)
	case at == w.at:
		wait := w.claim().Decision.Wait
		q.timeAll(now, ln)
		ln.due = max(ln.due, q.elapsed()+max(wait, retryAfter))
	default:
		ln.remove(w)
		q.timeFirst(now, ln)
		q.stand(now, w, at)
	}
	q.settle(ln)
}

// forecast finds where a request that cannot be admitted now has to wait: at
// the claim with the longest wait. It fills the decisions of the claims that
// are in the way, for which takeAll or PeekAll has filled those decisions that
// do not depend on others who wait. It is not ok when a turn lies beyond what
// the request may wait; at then still tells which claim refuses.
func (q *Queue) forecast(now Time, claims []Claim, r *request) (at int, ok bool) {
	at, ok = -1, true
	elapsed := q.elapsed()
	for i := range claims {
		c := &claims[i]
		if !c.enforced() {
			continue
		}
		if ln := c.line(); ln != nil {
			if ahead, found := ln.ahead(r.ticket); found {
				c.Decision.Allowed = false
				c.Decision.Wait = c.Limiter.WaitFor(now, ahead, c.N)
			}
		}
		if c.Decision.Allowed {
			continue
		}
		ok = ok && r.waits(c, elapsed)
		if at < 0 || c.Decision.Wait > claims[at].Decision.Wait {
			at = i
		}
	}
	return at, ok
}

// stand puts w in the line of its claim at, before all who came later.
func (q *Queue) stand(now Time, w *waiter, at int) {
	l := w.claims[at].Limiter
	ln := l.line()
	if ln == nil {
		ln = &line{queue: q, limiter: l}
		heap.Push(&q.due, ln)
		l.first.extra().line.Store(ln)
	}
	ln.add(w, at)
	if len(ln.waiters) == 1 || ln.waiters[len(ln.waiters)-1] != w {
		q.timeAll(now, ln)
	}
	q.settle(ln)
}

// timeFirst sets when the first of a line is due.
func (q *Queue) timeFirst(now Time, ln *line) {
	if len(ln.waiters) > 0 {
		ln.due = q.elapsed() + ln.limiter.WaitFor(now, 0, ln.waiters[0].claim().N)
	}
}

// timeAll does so too, and refuses all whose turn lies too far off.
func (q *Queue) timeAll(now Time, ln *line) {
	elapsed := q.elapsed()
	var ahead int64
	for _, w := range slices.Clone(ln.waiters) {
		c := w.claim()
		c.Decision.Allowed = false
		c.Decision.Wait = ln.limiter.WaitFor(now, ahead, c.N)
		if !w.waits(c, elapsed) {
			q.refuse(w, w.at)
			continue
		}
		if ahead == 0 {
			ln.due = elapsed + c.Decision.Wait
		}
		ahead += c.N
	}
}

// refuse ends the wait of one whom the claim at refuses after all.
func (q *Queue) refuse(w *waiter, at int) {
	w.claims[at].Limiter.countRefused()
	q.end(w, at)
}

// end takes w out of its line and tells it how it ended: -1 when it got what it
// wanted, else the claim that was in the way.
func (q *Queue) end(w *waiter, result int) {
	w.line.remove(w)
	w.result = result
	q.waiting.Add(-1)
	close(w.done)
}

// settle puts a line in its place among the others after a change, and drops
// it when nobody is left in it.
func (q *Queue) settle(ln *line) {
	if len(ln.waiters) > 0 {
		heap.Fix(&q.due, ln.index)
		return
	}
	heap.Remove(&q.due, ln.index)
	ln.limiter.first.extra().line.Store(nil)
}

// retime gives everyone who waits for l a new turn, or refuses those who would
// have to wait too long now. SetSpec, Reset, Refund and Close end with it: what
// was promised before no longer holds. It costs one atomic load when nobody
// waits.
func (l *Limiter) retime() {
	ln := l.line()
	if ln == nil {
		return
	}
	q := ln.queue
	q.staleMu.Lock()
	q.stale = append(q.stale, ln)
	q.staleMu.Unlock()
	// The lock may be held by this very goroutine: the queue itself takes from
	// limiters under it. Who holds it looks after the stale lines.
	if q.mu.TryLock() {
		q.unlock()
	}
}

// unlock brings all that follows from a change up to date, and unlocks.
func (q *Queue) unlock() {
	for {
		for ln := q.nextStale(); ln != nil; ln = q.nextStale() {
			if ln.limiter.line() == ln {
				q.timeAll(q.clock.Now(), ln)
				q.settle(ln)
			}
		}
		q.arm()
		q.mu.Unlock()
		// Lines that went stale since then found the lock held.
		q.staleMu.Lock()
		none := len(q.stale) == 0
		q.staleMu.Unlock()
		if none || !q.mu.TryLock() {
			return
		}
	}
}

func (q *Queue) nextStale() *line {
	q.staleMu.Lock()
	defer q.staleMu.Unlock()
	if len(q.stale) == 0 {
		return nil
	}
	ln := q.stale[0]
	q.stale = slices.Delete(q.stale, 0, 1)
	return ln
}

// arm sets the timer to the first who is due.
func (q *Queue) arm() {
	next := forever
	if len(q.due) > 0 {
		next = q.due[0].due
	}
	if next == q.armed {
		return
	}
	q.armed = next
	if next == forever {
		q.timer.Stop()
		return
	}
	q.timer.Reset(next - q.elapsed())
}
