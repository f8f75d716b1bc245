package upstreams

import (
	"context"
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Request is what is asked of an upstream.
type Request struct {
	Cost   int64  // 0: a look, which is let pass and takes from no limit
	Caller string // whose turn it takes
	Class  string // how important it is, as the budget's classes
	Label  string // to whom it is put down
}

// Reason is why a request does not pass. The empty Reason lets it pass.
type Reason string

// The reasons.
const (
	Paused  Reason = "paused"  // the upstream asked for a pause that is too long to wait for
	Limited Reason = "limited" // its turn is too far off
	Full    Reason = "full"    // too many wait
	Spent   Reason = "spent"   // the budget is used up
	Unknown Reason = "unknown" // the instances' store is away, and its limit is to be denied then
)

// Verdict is what was decided about one request.
type Verdict struct {
	Reason   Reason
	Limit    *limits.Spec    // the limit that was in the way, or nil
	Decision limits.Decision // its decision
	Wait     time.Duration   // when to come back, spread over those who were refused; or limits.Never
	Held     time.Duration   // how long it was held
}

// Admit lets a request pass, now or when its turn has come, or refuses it. The
// error is that of ctx, which ended while the request was held, or
// limits.ErrWouldWait.
func (u *Upstream) Admit(ctx context.Context, r Request) (Verdict, error) {
	now := u.options.Clock.Now()
	w := &waiter{Request: r, arrived: now, deadline: math.MaxInt64}
	if d, ok := ctx.Deadline(); ok {
		w.deadline = now.Add(time.Until(d))
	}
	u.mu.Lock()
	held, err := u.join(now, w, limits.MayWait(ctx))
	u.unlock(now)
	if !held {
		return w.verdict, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		u.leave(w)
		return Verdict{}, err
	}
	return w.verdict, nil
}

// join decides about w at once, or lets it wait if it may. It reports whether w
// waits.
func (u *Upstream) join(now limits.Time, w *waiter, mayWait bool) (bool, error) {
	if u.line.len == 0 && u.pass(now, w) {
		return false, nil
	}
	ahead := u.line.before(w.Caller)
	reason, at, wait := u.obstacle(now, w, ahead)
	switch {
	case reason != "":
		u.refuse(now, w, reason, at, wait)
		return false, nil
	case u.closed:
		u.refuse(now, w, Full, at, wait)
		return false, nil
	case !mayWait:
		return false, limits.ErrWouldWait
	case u.line.len >= u.config.Load().queue():
		last := u.line.crowder(w.Caller)
		if last == nil {
			u.refuse(now, w, Full, at, wait)
			return false, nil
		}
		u.refuse(now, last, Full, at, wait)
	}
	w.done = make(chan struct{})
	u.line.add(w)
	u.expires = min(u.expires, now.Add(w.patience(now, u.patience())))
	u.counts.Held++
	return true, nil
}

// claim makes the claims of a request.
func (u *Upstream) claim(w *waiter) []limits.Claim {
	claims := u.claims[:0]
	for _, l := range u.limiters {
		claims = append(claims, limits.Claim{Limiter: l, N: w.Cost})
	}
	if u.options.Shared != nil {
		claims = u.ledger.claim(claims, w)
	}
	return claims
}

// leastHold is how long at least a working limit that was lowered stays.
const leastHold = 15 * time.Minute

// pass lets w pass if everything allows it now.
func (u *Upstream) pass(now limits.Time, w *waiter) bool {
	if u.share.Raise(now, max(leastHold, u.config.Load().Pressure.Max)) {
		u.learned(now)
	}
	u.peers.lacks = nothing
	if u.gate.Wait(now) > 0 || !u.take(now, w) {
		return false
	}
	u.gate.Pass(now)
	w.passed = now
	w.verdict = Verdict{Held: now.Sub(w.arrived)}
	u.counts.Passed++
	u.counts.HeldFor += w.verdict.Held
	for _, alert := range u.ledger.spend(now, w.Class, w.Label, w.Cost) {
		u.events = append(u.events, Event{At: now, Kind: BudgetReached, Alert: alert, Status: u.status(now)})
	}
	u.dirty = true
	return true
}

// take takes from all limits and from the budget, or from none.
func (u *Upstream) take(now limits.Time, w *waiter) bool {
	if u.options.Shared != nil {
		return u.takeShared(now, w)
	}
	claims := u.claim(w)
	return u.ledger.affords(now, w.Class, w.Cost) && limits.PeekAll(now, claims) < 0 && limits.TakeAll(now, claims) < 0
}

// obstacle returns how long w has to wait behind ahead others, and for which
// claim, -1 for the gate; with a reason where that is longer than it may wait.
func (u *Upstream) obstacle(now limits.Time, w *waiter, ahead int64) (reason Reason, at int, wait time.Duration) {
	if !u.ledger.affords(now, w.Class, w.Cost) {
		return Spent, -1, u.ledger.renewed(now, w.Class, w.Cost).Sub(now)
	}
	c := u.config.Load()
	start := u.gate.WaitBehind(now, ahead)
	wait, at = start, -1
	if start > 0 && start > w.patience(now, c.Longest()) {
		reason = Paused
	}
	for i := range u.limiters {
		d := u.behind(i, now, start, ahead, max(w.Cost, 1))
		behind := d.Wait
		switch {
		case d.Undecided:
			return Unknown, i, d.Wait
		case d.Pending:
			wait = max(wait, askAgain)
			continue
		case behind == 0:
			continue
		}
		total := behind
		if behind != limits.Never {
			total = start + behind
		}
		if total > wait {
			wait, at = total, i
		}
		most := c.Limits[i].MaxWait
		if w.Cost < 1 {
			most = 0
		}
		if (most == 0 || total > w.patience(now, most)) && reason == "" {
			reason = Limited
		}
	}
	if reason == Limited && at < 0 {
		reason = Paused
	}
	return reason, at, wait
}

// refuse ends w, waiting or not, with a reason and the time after which it could pass.
func (u *Upstream) refuse(now limits.Time, w *waiter, reason Reason, at int, wait time.Duration) {
	v := Verdict{Reason: reason, Wait: u.comeBack(now, wait), Held: now.Sub(w.arrived)}
	switch {
	case reason == Spent:
		v.Limit, v.Decision = u.ledger.spent(now, w.Class, w.Cost), limits.Decision{Wait: wait, Reset: wait}
	case at >= 0 && reason != Paused:
		v.Limit, v.Decision = u.limiters[at].Spec(), u.limiters[at].Peek(now, max(w.Cost, 1))
		v.Decision.Allowed, v.Decision.Wait = false, wait
	}
	u.counts.refused(reason)
	u.end(w, v)
}

// end takes w out of the line and tells it the verdict.
func (u *Upstream) end(w *waiter, v Verdict) {
	w.verdict = v
	if w.caller != nil {
		u.line.remove(w)
	}
	if w.done != nil {
		close(w.done)
	}
}

// maxSpread bounds how far apart the refused are sent.
const maxSpread = 15 * time.Minute

// golden is the part of a turn that, added again and again, comes nowhere near
// where it was before for as long as possible.
const golden = 0.6180339887498949

// comeBack returns when one is to come back who could pass after wait: behind
// those who were told before, each at the pace of the limit, and with up to a
// quarter of the wait more, a minute at most, so that those are apart too whom no
// limit spaces.
func (u *Upstream) comeBack(now limits.Time, wait time.Duration) time.Duration {
	if wait == limits.Never {
		return wait
	}
	soonest := now.Add(wait)
	if u.told < soonest || u.told.Sub(soonest) > maxSpread {
		u.told = soonest
	}
	more := time.Duration(u.spread * float64(min(wait/4, time.Minute)))
	_, u.spread = math.Modf(u.spread + golden)
	wait = u.told.Sub(now) + more
	u.told = u.told.Add(u.config.Load().interval(&u.share))
	return wait
}

// serve lets pass whose turn has come, and refuses who has waited too long.
func (u *Upstream) serve(now limits.Time) {
	for w := u.line.first(); w != nil; w = u.line.first() {
		if u.pass(now, w) {
			u.line.served()
			close(w.done)
			continue
		}
		if u.options.Shared == nil && u.ledger.affords(now, w.Class, w.Cost) {
			break
		}
		reason, at, wait := u.obstacle(now, w, 0)
		if reason == "" {
			break
		}
		u.refuse(now, w, reason, at, wait)
	}
}

// retime refuses those who would have to wait too long now.
func (u *Upstream) retime(now limits.Time) {
	u.serve(now)
	var ahead int64
	for w := range u.line.all() {
		if reason, at, wait := u.obstacle(now, w, ahead); reason != "" {
			u.refuse(now, w, reason, at, wait)
			continue
		}
		ahead += w.Cost
	}
}

// turn is the timer.
func (u *Upstream) turn() {
	now := u.options.Clock.Now()
	u.mu.Lock()
	defer u.unlock(now)
	u.serve(now)
	if now >= u.expires {
		u.expire(now)
	}
}

// expire refuses those who have waited as long as they may.
func (u *Upstream) expire(now limits.Time) {
	u.expires = math.MaxInt64
	longest := u.patience()
	for w := range u.line.all() {
		if left := w.patience(now, longest); left > 0 {
			u.expires = min(u.expires, now.Add(left))
			continue
		}
		reason, at, wait := u.obstacle(now, w, 0)
		if reason == "" {
			reason = Limited
		}
		u.refuse(now, w, reason, at, wait)
	}
}

// arm sets the timer to when something happens next: a turn, the end of
// somebody's patience, or a change of the gate's phase that is to be told.
func (u *Upstream) arm(now limits.Time) {
	next := limits.Never
	if phase := u.gate.Next(now); phase >= 0 && !u.closed {
		next = phase
	}
	if w := u.line.first(); w != nil {
		turn := limits.Never // when the store has answered
		if !u.peers.asking {
			_, _, wait := u.obstacle(now, w, 0)
			turn = max(wait, u.gate.Wait(now), u.peers.notBefore.Sub(now), soon)
		}
		next = min(next, turn, u.expires.Sub(now))
	}
	if next == limits.Never {
		u.timer.Stop()
		return
	}
	u.timer.Reset(max(next, 0))
}

// soon bounds how often a turn is tried that came to nothing.
const soon = 100 * time.Microsecond

// leave ends the wait of one whose caller is gone. What it got in the same
// moment goes back.
func (u *Upstream) leave(w *waiter) {
	now := u.options.Clock.Now()
	u.mu.Lock()
	defer u.unlock(now)
	u.counts.Left++
	switch {
	case w.caller != nil:
		u.line.remove(w)
	case w.verdict.Reason == "":
		u.gate.Back(w.passed)
		u.peers.unclaim = u.peers.probed == w.passed
		for _, c := range u.claim(w) {
			c.Limiter.Refund(w.passed, w.Cost)
		}
		u.ledger.back(w.passed, w.Class, w.Label, w.Cost)
		u.counts.Passed--
	}
	u.serve(now)
}
