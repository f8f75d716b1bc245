package redis

import (
	"context"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// asksAbout reports whether Redis decides about one of the claims.
func (c *Cluster) asksAbout(now limits.Time, claims []limits.Claim) bool {
	for i := range claims {
		if c.decides(now, claims[i].Limiter) {
			return true
		}
	}
	return false
}

// decides reports whether Redis decides about l, in strict mode.
func (c *Cluster) decides(now limits.Time, limiter *limits.Limiter) bool {
	l := limitOf(limiter)
	return l != nil && !l.apart(now) && limiter.Spec().Capacity() > 0 && !l.lease.Closed()
}

// takeStrict decides in Redis about all claims that are there, and here about
// those that are not: all are taken, or none.
func (c *Cluster) takeStrict(ctx context.Context, now limits.Time, claims []limits.Claim, look bool) int {
	c.reportAlone(ctx, now, claims)
	if c.asksAbout(now, claims) {
		c.stats.waits.Add(1)
	}
	for range rounds {
		bundles, here := c.divide(now, claims)
		if len(bundles) == 0 {
			break
		}
		if len(here) > 0 {
			if refused := limits.PeekAll(now, here); refused >= 0 {
				return c.merge(claims, here)
			}
		}
		refused, ok := c.ask(ctx, now, claims, bundles, look)
		switch {
		case !ok:
			continue // what failed is decided here now
		case refused >= 0 || look:
			c.merge(claims, here)
			return refused
		}
		if len(here) > 0 && limits.Try(now, here) >= 0 {
			c.giveBack(ctx, now, claims, bundles)
			return c.merge(claims, here)
		}
		c.merge(claims, here)
		for _, b := range bundles {
			for _, i := range b.claims {
				if claims[i].N > 0 {
					claims[i].Limiter.Tally(claims[i].Decision.Allowed)
				}
			}
		}
		return -1
	}
	if look {
		return limits.PeekAll(now, claims)
	}
	return limits.Try(now, claims)
}

// reportAlone has Redis told what was admitted while it was away, before it decides again.
func (c *Cluster) reportAlone(ctx context.Context, now limits.Time, claims []limits.Claim) {
	for i := range claims {
		l := limitOf(claims[i].Limiter)
		if l == nil || l.local.limiter.Load() == nil || l.away(now) {
			continue
		}
		patience := time.NewTimer(2 * c.o.Timeout)
		select {
		case <-l.ticket(0):
		case <-ctx.Done():
		case <-patience.C:
		}
		patience.Stop()
	}
}

// divide sorts claims by where they are decided.
func (c *Cluster) divide(now limits.Time, claims []limits.Claim) (bundles []bundle, here []limits.Claim) {
	sharded := c.sharded.Load()
next:
	for i := range claims {
		if !c.decides(now, claims[i].Limiter) {
			here = append(here, claims[i])
			continue
		}
		slot := uint16(0)
		if sharded {
			slot = slotOf(limitOf(claims[i].Limiter).key)
		}
		for j := range bundles {
			if bundles[j].slot == slot {
				bundles[j].claims = append(bundles[j].claims, i)
				continue next
			}
		}
		bundles = append(bundles, bundle{slot, []int{i}})
	}
	return bundles, here
}

// merge writes the decisions made here back, and returns which claim refuses.
func (c *Cluster) merge(claims, here []limits.Claim) int {
	refused, j := -1, 0
	for i := range claims {
		if j < len(here) && claims[i].Limiter == here[j].Limiter {
			claims[i] = here[j]
			j++
			if d := claims[i].Decision; !d.Allowed && !shadow(&claims[i]) && (refused < 0 || d.Wait > claims[refused].Decision.Wait) {
				refused = i
			}
		}
	}
	return refused
}

// ask has Redis decide. It is not ok if some of it could not, which is then out
// of use; nothing was taken then.
func (c *Cluster) ask(ctx context.Context, now limits.Time, claims []limits.Claim, bundles []bundle, look bool) (refused int, ok bool) {
	calls := make([]call, len(bundles))
	for i, b := range bundles {
		calls[i] = c.takeCall(now, claims, b, look, 1)
	}
	answers := c.run(context.WithoutCancel(ctx), calls)
	refused, ok = -1, true
	var taken []bundle
	for i := range answers {
		if at, other := otherClock(answers[i].err); other {
			c.learnClock(at)
			answers[i] = c.run(context.WithoutCancel(ctx), []call{c.takeCall(now, claims, bundles[i], look, 1)})[0]
		}
		admitted, err := c.read(claims, bundles[i], answers[i])
		if err != nil {
			c.blameBundle(claims, bundles[i], now, err)
			ok = false
			continue
		}
		if admitted {
			taken = append(taken, bundles[i])
		}
	}
	limits.Relieve(claims)
	for i := range claims {
		if d := claims[i].Decision; ok && asked(bundles, i) && !d.Allowed && !shadow(&claims[i]) && (refused < 0 || d.Wait > claims[refused].Decision.Wait) {
			refused = i
		}
	}
	// Where a slot refused what another one's group stands in for, ask again without it.
	ok = ok && (refused >= 0 || look || len(taken) == len(bundles))
	if (!ok || refused >= 0) && !look && len(taken) > 0 {
		c.giveBack(ctx, now, claims, taken)
	}
	return refused, ok
}

func asked(bundles []bundle, claim int) bool {
	return slices.ContainsFunc(bundles, func(b bundle) bool { return slices.Contains(b.claims, claim) })
}

// giveBack undoes what Redis took, where other claims refused.
func (c *Cluster) giveBack(ctx context.Context, now limits.Time, claims []limits.Claim, bundles []bundle) {
	calls := make([]call, len(bundles))
	for i, b := range bundles {
		calls[i] = c.takeCall(now, claims, b, false, -1)
	}
	for i, a := range c.run(context.WithoutCancel(ctx), calls) {
		if a.err != nil {
			c.blameBundle(claims, bundles[i], now, a.err) // it stays used: the careful side
		}
	}
}
