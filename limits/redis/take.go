package redis

import (
	"context"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// rounds is how often a request asks Redis that others overtake each time.
const rounds = 4

// TakeAll is [limits.TakeAll] for limits that are shared. Where Redis must be
// asked it waits for the answer, within the timeout of a call, or fails with
// [limits.ErrWouldWait] where it must not wait; it fails no request because Redis
// does. Where q is not nil, it holds requests as [limits.Queue.TakeAll] does.
func (c *Cluster) TakeAll(ctx context.Context, q *limits.Queue, now limits.Time, claims []limits.Claim) (int, error) {
	waits := q != nil && anyoneWaits(claims)
	if grouped(claims) && (waits || c.o.Mode != Strict) {
		if _, err := c.PeekAll(ctx, now, claims); err != nil {
			return -1, err
		}
		limits.Relieve(claims)
	}
	if !waits {
		if refused, err := c.takeNow(ctx, now, claims); refused < 0 || q == nil {
			if refused >= 0 {
				claims[refused].Limiter.Tally(false)
			}
			return refused, err
		}
	}
	return q.TakeAll(ctx, claims)
}

// PeekAll is [limits.PeekAll] likewise.
func (c *Cluster) PeekAll(ctx context.Context, now limits.Time, claims []limits.Claim) (int, error) {
	if c.o.Mode == Strict {
		if !limits.MayWait(ctx) && c.asksAbout(now, claims) {
			return -1, limits.ErrWouldWait
		}
		return c.takeStrict(ctx, now, claims, true), nil
	}
	refused := limits.PeekAll(now, claims)
	for range rounds {
		if pending(claims) && !limits.MayWait(ctx) {
			return -1, limits.ErrWouldWait
		}
		if !c.fetch(ctx, claims) {
			break
		}
		refused = limits.PeekAll(now, claims)
	}
	return refused, nil
}

// takeNow takes what need not be held for its turn.
func (c *Cluster) takeNow(ctx context.Context, now limits.Time, claims []limits.Claim) (int, error) {
	if c.o.Mode != Strict {
		return c.takeLeased(ctx, now, claims)
	}
	if !limits.MayWait(ctx) && c.asksAbout(now, claims) {
		return -1, limits.ErrWouldWait
	}
	return c.takeStrict(ctx, now, claims, false), nil
}

func grouped(claims []limits.Claim) bool {
	for i := range claims {
		if claims[i].Group > 0 {
			return true
		}
	}
	return false
}

func pending(claims []limits.Claim) bool {
	for i := range claims {
		if claims[i].Decision.Pending {
			return true
		}
	}
	return false
}

func anyoneWaits(claims []limits.Claim) bool {
	for i := range claims {
		if claims[i].Limiter.Waiting() > 0 {
			return true
		}
	}
	return false
}

// takeLeased decides from what is in hand, and asks Redis where that does not do.
func (c *Cluster) takeLeased(ctx context.Context, now limits.Time, claims []limits.Claim) (int, error) {
	refused := limits.Try(now, claims)
	for range rounds {
		if refused >= 0 && !limits.MayWait(ctx) && pending(claims) {
			return -1, limits.ErrWouldWait
		}
		if refused < 0 || !c.fetch(ctx, claims) {
			return refused, nil
		}
		if c.o.fake == nil {
			now = max(now, c.now())
		}
		refused = limits.Try(now, claims)
	}
	if refused >= 0 && claims[refused].Decision.Pending && shadow(&claims[refused]) {
		return limits.TakeAll(now, claims), nil // a shadow keeps nobody waiting for ever
	}
	return refused, nil
}

func shadow(c *limits.Claim) bool { return c.Shadow || c.Limiter.Spec().Limit().Shadow }

// fetch has Redis asked about every claim that is pending, and waits until it
// has answered. It reports whether there was such a claim.
func (c *Cluster) fetch(ctx context.Context, claims []limits.Claim) bool {
	if !pending(claims) || ctx.Err() != nil {
		return false
	}
	c.stats.waits.Add(1)
	patience := time.NewTimer(c.o.Timeout / 4)
	defer patience.Stop()
	for i := range claims {
		l := limitOf(claims[i].Limiter)
		if l == nil || !claims[i].Decision.Pending {
			continue
		}
		done := l.ticket(max(claims[i].N, 1))
		select {
		case <-done:
		case <-ctx.Done():
			return true
		case <-patience.C:
			c.link(l.key).slow.Store(int64(c.now().Add(c.o.Timeout))) // decided without it, from now on
			return true
		}
	}
	return true
}

// limitOf returns what shares a limiter, nil if nothing does.
func limitOf(l *limits.Limiter) *limit {
	if ls := l.Lease(); ls != nil {
		if own, ok := ls.Lender().(*limit); ok {
			return own
		}
	}
	return nil
}
