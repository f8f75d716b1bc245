package redis

import (
	"context"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// batch is how many limits one pipeline is about at most, and inFlight how many
// pipelines are under way at once.
const (
	batch    = 256
	inFlight = 8
)

// trip is the exchange about one limit that is under way, and who waits for it or
// for the next one. The limit's mu guards it.
type trip struct {
	busy   bool          // one is under way
	again  bool          // another one follows
	flight chan struct{} // closed when the one under way is over
	next   chan struct{} // when one that has not begun yet is; nil: nobody waits for it
	needed int64         // what the one under way asks for at least
	spare  int64         // what it asks for beside what those want who wait for it
}

// depart begins an exchange.
func (t *trip) depart() {
	if t.busy, t.flight, t.next = true, t.next, nil; t.flight == nil {
		t.flight = make(chan struct{})
	}
}

// callOff tells who waits for an exchange that there will be none.
func (t *trip) callOff() {
	if t.next != nil {
		close(t.next)
		t.next = nil
	}
}

// arrive ends an exchange. It returns what to close once all else is done, and
// whether another one follows.
func (t *trip) arrive() (flight chan struct{}, again bool) {
	flight, again = t.flight, t.again
	t.busy, t.again = false, false
	return flight, again
}

// work exchanges with Redis about whatever is enqueued, until ctx ends.
func (c *Cluster) work(ctx context.Context) {
	slots := make(chan struct{}, inFlight)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.signal:
		}
		for {
			c.mu.Lock()
			n := min(len(c.pending), batch)
			some := c.pending[:n:n]
			c.pending = c.pending[n:]
			c.mu.Unlock()
			if n == 0 {
				break
			}
			slots <- struct{}{}
			c.running.Go(func() {
				c.exchange(context.WithoutCancel(ctx), c.now(), some)
				<-slots
			})
		}
	}
}

// exchange reports to Redis and takes what it gives, for each of some limits.
func (c *Cluster) exchange(ctx context.Context, now limits.Time, some []*limit) {
	var asked []*limit
	var calls []call
	clock, offset := c.clockText(), time.Duration(c.offset.Load())
	for _, l := range some {
		l.queued.Store(false)
		l.mu.Lock()
		switch spec := l.lease.Limiter().Spec(); {
		case l.trip.busy:
			l.trip.again = true
		case l.away(now) || spec.Capacity() == 0 || !shareable(spec):
			l.trip.callOff()
		default:
			l.trip.depart()
			l.askedAt.Store(int64(now))
			calls = append(calls, call{c.scripts.lease, []string{l.key}, l.report(now, clock, offset)})
			asked = append(asked, l)
		}
		l.mu.Unlock()
	}
	if len(calls) == 0 {
		return
	}
	for i, a := range c.run(ctx, calls) {
		if at, ok := otherClock(a.err); ok {
			c.learnClock(at)
			calls[i].args[boundsAt] = boundsText(asked[i].spec, now.Add(time.Duration(c.offset.Load())))
			a = c.run(ctx, calls[i:i+1])[0]
		}
		asked[i].settle(now, a)
	}
}

// settle takes what an exchange brought.
func (l *limit) settle(now limits.Time, a answer) {
	c, err := l.cluster, a.err
	l.mu.Lock()
	if err == nil {
		err = l.accept(now, a.values)
	}
	flight, again := l.trip.arrive()
	sliced := l.sliced()
	l.mu.Unlock()
	if err == nil {
		c.link(l.key).slow.Store(0)
		c.release(l)
	} else {
		c.blame(l, now, err)
		c.holds(l)
	}
	c.mu.Lock()
	if sliced {
		c.windows[l] = struct{}{}
	} else {
		delete(c.windows, l)
	}
	c.mu.Unlock()
	close(flight)
	if again {
		l.enqueue()
	}
}

// ticket returns what is closed when Redis has been asked for n.
func (l *limit) ticket(n int64) <-chan struct{} {
	l.mu.Lock()
	t := &l.trip
	l.demand.put(n, n)
	if t.busy && n > 0 && t.needed >= n && t.spare >= n {
		t.spare -= n // what is under way asks for so many already
		l.demand.wish.Add(-n)
		flight := t.flight
		l.mu.Unlock()
		return flight
	}
	if t.next == nil {
		t.next = make(chan struct{})
	}
	next := t.next
	l.mu.Unlock()
	l.enqueue()
	return next
}
