package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
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

func anyoneWaits(claims []limits.Claim) bool {
	for i := range claims {
		if claims[i].Limiter.Waiting() > 0 {
			return true
		}
	}
	return false
}

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
			c.part(l.key).slow.Store(int64(c.now().Add(c.o.Timeout))) // decided without it, from now on
			return true
		}
	}
	return true
}

// ticket returns what is closed when Redis has been asked for n.
func (l *limit) ticket(n int64) <-chan struct{} {
	l.mu.Lock()
	l.wish.Add(n)
	for need := l.need.Load(); need < n && !l.need.CompareAndSwap(need, n); need = l.need.Load() {
	}
	if l.busy && n > 0 && l.needed >= n && l.spare >= n {
		l.spare -= n // what is under way asks for so many already
		l.wish.Add(-n)
		flight := l.flight
		l.mu.Unlock()
		return flight
	}
	if l.next == nil {
		l.next = make(chan struct{})
	}
	next := l.next
	l.mu.Unlock()
	l.enqueue()
	return next
}

func limitOf(l *limits.Limiter) *limit {
	if ls := l.Lease(); ls != nil {
		if own, ok := ls.Lender().(*limit); ok {
			return own
		}
	}
	return nil
}

// part is the claims of a request that lie in one slot.
type part struct {
	slot   uint16
	claims []int
}

// takeStrict decides in Redis about all claims that are there, and here about
// those that are not: all are taken, or none.
func (c *Cluster) takeStrict(ctx context.Context, now limits.Time, claims []limits.Claim, look bool) int {
	c.reportAlone(ctx, now, claims)
	if c.asksAbout(now, claims) {
		c.stats.waits.Add(1)
	}
	for range rounds {
		parts, here := c.divide(now, claims)
		if len(parts) == 0 {
			break
		}
		if len(here) > 0 {
			if refused := limits.PeekAll(now, here); refused >= 0 {
				return c.merge(claims, here)
			}
		}
		refused, ok := c.ask(ctx, now, claims, parts, look)
		switch {
		case !ok:
			continue // what failed is decided here now
		case refused >= 0 || look:
			c.merge(claims, here)
			return refused
		}
		if len(here) > 0 && limits.Try(now, here) >= 0 {
			c.giveBack(ctx, now, claims, parts)
			return c.merge(claims, here)
		}
		c.merge(claims, here)
		for _, p := range parts {
			for _, i := range p.claims {
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
		if l == nil || l.local.Load() == nil || l.away(now) {
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
func (c *Cluster) divide(now limits.Time, claims []limits.Claim) (parts []part, here []limits.Claim) {
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
		for j := range parts {
			if parts[j].slot == slot {
				parts[j].claims = append(parts[j].claims, i)
				continue next
			}
		}
		parts = append(parts, part{slot, []int{i}})
	}
	return parts, here
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
func (c *Cluster) ask(ctx context.Context, now limits.Time, claims []limits.Claim, parts []part, look bool) (refused int, ok bool) {
	calls := make([]call, len(parts))
	for i, p := range parts {
		calls[i] = c.takeCall(now, claims, p, look, 1)
	}
	answers := c.run(context.WithoutCancel(ctx), calls)
	refused, ok = -1, true
	var taken []part
	for i := range answers {
		if at, other := otherClock(answers[i].err); other {
			c.learnClock(at)
			answers[i] = c.run(context.WithoutCancel(ctx), []call{c.takeCall(now, claims, parts[i], look, 1)})[0]
		}
		admitted, err := c.read(claims, parts[i], answers[i])
		if err != nil {
			c.blamePart(claims, parts[i], now, err)
			ok = false
			continue
		}
		if admitted {
			taken = append(taken, parts[i])
		}
	}
	limits.Relieve(claims)
	for i := range claims {
		if d := claims[i].Decision; ok && asked(parts, i) && !d.Allowed && !shadow(&claims[i]) && (refused < 0 || d.Wait > claims[refused].Decision.Wait) {
			refused = i
		}
	}
	// Where a slot refused what another one's group stands in for, ask again without it.
	ok = ok && (refused >= 0 || look || len(taken) == len(parts))
	if (!ok || refused >= 0) && !look && len(taken) > 0 {
		c.giveBack(ctx, now, claims, taken)
	}
	return refused, ok
}

func asked(parts []part, claim int) bool {
	return slices.ContainsFunc(parts, func(p part) bool { return slices.Contains(p.claims, claim) })
}

// giveBack undoes what Redis took, where other claims refused.
func (c *Cluster) giveBack(ctx context.Context, now limits.Time, claims []limits.Claim, parts []part) {
	calls := make([]call, len(parts))
	for i, p := range parts {
		calls[i] = c.takeCall(now, claims, p, false, -1)
	}
	for i, a := range c.run(context.WithoutCancel(ctx), calls) {
		if a.err != nil {
			c.blamePart(claims, parts[i], now, a.err) // it stays used: the careful side
		}
	}
}

// takeCall makes the call for one slot's claims; sign -1 gives them back.
func (c *Cluster) takeCall(now limits.Time, claims []limits.Claim, p part, look bool, sign int64) call {
	k := call{script: c.scripts.take, args: []string{c.clockText(), "take"}}
	if look {
		k.args[1] = "look"
	}
	redisNow := now.Add(time.Duration(c.offset.Load()))
	for _, i := range p.claims {
		l, s := limitOf(claims[i].Limiter), claims[i].Limiter.Spec()
		l.mu.Lock()
		l.follow(s)
		text, known := l.specText, l.known.text
		l.mu.Unlock()
		n := max(claims[i].N, 0) * sign
		if sign < 0 && !claims[i].Decision.Allowed {
			n = 0
		}
		watches := "0"
		if shadow(&claims[i]) || sign < 0 {
			watches = "1"
		}
		k.keys = append(k.keys, l.key)
		k.args = append(k.args, text, boundsText(s, redisNow), known, strconv.FormatInt(n, 10), watches, strconv.Itoa(max(claims[i].Group, 0)))
	}
	return k
}

// read fills the decisions of a slot's claims.
func (c *Cluster) read(claims []limits.Claim, p part, a answer) (admitted bool, err error) {
	if a.err != nil {
		return false, a.err
	}
	const each = 5
	if len(a.values) != 2+each*len(p.claims) {
		return false, fmt.Errorf("%w: %d values", errAnswer, len(a.values))
	}
	yes, err := a.values[0].AsInt64()
	if err != nil {
		return false, fmt.Errorf("%w: %w", errAnswer, err)
	}
	if at, err := a.values[1].ToString(); err == nil {
		c.learnClock(at)
	}
	for j, i := range p.claims {
		v := a.values[2+each*j:]
		var n [4]int64
		for k := range n {
			if n[k], err = v[k].AsInt64(); err != nil {
				return false, fmt.Errorf("%w: %w", errAnswer, err)
			}
		}
		text, err := v[4].ToString()
		if err != nil {
			return false, fmt.Errorf("%w: %w", errAnswer, err)
		}
		d := limits.Decision{Allowed: n[0] == 1, Remaining: min(max(n[1], 0), limits.MaxN), Wait: time.Duration(n[2]), Reset: time.Duration(n[3])}
		if n[2] < 0 {
			d.Wait = limits.Never
		}
		claims[i].Decision = d
		if err := limitOf(claims[i].Limiter).heard(text, d, claims[i].N, c.now()); err != nil {
			return false, err
		}
	}
	return yes == 1, nil
}

// heard remembers what a decision told about the shared limiter.
func (l *limit) heard(text string, d limits.Decision, n int64, now limits.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = d.Remaining
	l.lease.Forecast(d.Remaining, now.Add(d.Reset), 0)
	if !d.Allowed && d.Wait != limits.Never {
		l.drySpec.Store(l.spec)
		l.dryFrom.Store(int64(now))
		l.dryFor.Store(max(n, 1))
		l.dryTill.Store(int64(now.Add(d.Wait)))
	} else {
		l.dryTill.Store(0)
	}
	if text == "" {
		return nil
	}
	to, st, err := parseNote(l.spec.Limit().Kind, text)
	if err != nil {
		return err
	}
	if to.after(&l.known) {
		l.known = to
		l.lease.Learn(st)
	}
	return nil
}

// blamePart finds out what of a slot's claims is at fault.
func (c *Cluster) blamePart(claims []limits.Claim, p part, now limits.Time, err error) {
	if !isCorrupt(err) {
		c.fault(err, limitOf(claims[p.claims[0]].Limiter).key)
		return
	}
	if len(p.claims) == 1 {
		c.blame(limitOf(claims[p.claims[0]].Limiter), now, err)
		return
	}
	for _, i := range p.claims {
		one := part{p.slot, []int{i}}
		if a := c.run(context.Background(), []call{c.takeCall(now, claims, one, true, 1)})[0]; a.err != nil && isCorrupt(a.err) {
			c.blame(limitOf(claims[i].Limiter), now, a.err)
		}
	}
}
