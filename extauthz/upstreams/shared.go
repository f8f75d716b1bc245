package upstreams

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// Shared is the store by which instances share upstreams, as limits/redis is.
// Only Claim may wait.
type Shared interface {
	// Lend makes a fresh limiter one that all instances share, by the upstream
	// and a name; LendClass one that takes from the same bucket. Reserve says how
	// many such a limiter leaves there.
	Lend(upstream, name string, l *limits.Limiter)
	LendClass(base *limits.Limiter, class int, l *limits.Limiter)
	Reserve(l *limits.Limiter, n int64)

	// Tell has the others told soon what [Registry.Reports] says.
	Tell()
	// Claim asks for the right to send the one probe, or, with lasts below 0,
	// gives it back. An error means that nobody can say.
	Claim(ctx context.Context, r pressure.Report, lasts time.Duration) (pressure.Heard, error)
}

// What a request may lack that only the store can give.
type lack int

const (
	nothing  lack = iota
	theProbe      // to be the one that is sent after a pause
	theStore      // a limit has too little in hand
)

// askAgain is how soon the store is asked once more that had nothing to give,
// and askWithin how long a request at least waits for it.
const (
	askAgain  = 5 * time.Millisecond
	askWithin = 300 * time.Millisecond
	lookEvery = 500 * time.Millisecond
)

// peers is what an upstream must remember for the other instances.
type peers struct {
	lacks     lack        // of the request that was tried last
	asking    bool        // the store is being asked
	notBefore limits.Time // for that it must not be asked again
	claimed   limits.Time // until when a probe may be sent
	probed    limits.Time // when one was
	unclaim   bool        // and came back: another may send one
	looked    limits.Time // when it was last asked how the limits stand

	seen       pressure.Seen
	ended      limits.Time // when the pressure was ended by hand, until the others know
	shareStamp int64
	shareNew   bool // the share was changed here, and the others do not know
}

func (p *peers) shift(step time.Duration) {
	for _, t := range []*limits.Time{&p.notBefore, &p.claimed, &p.probed, &p.looked, &p.ended} {
		if *t != 0 {
			*t = t.Add(step)
		}
	}
}

// tell has the others told that something has changed.
func (u *Upstream) tell() {
	if u.options.Shared != nil {
		u.options.Shared.Tell()
	}
}

// lend makes the limiters that are new those of all instances.
func (u *Upstream) lend(now limits.Time) {
	shared := u.options.Shared
	if shared == nil {
		return
	}
	names := map[string]int{}
	for i, l := range u.config.Load().Limits {
		name := string(l.Kind) + "/" + string(l.Calendar)
		names[name]++
		if u.limiters[i].Lease() == nil {
			shared.Lend(u.id, fmt.Sprintf("%s/%d", name, names[name]), u.limiters[i])
		}
	}
	for i := range u.ledger.accounts {
		u.ledger.accounts[i].lend(now, u.id, u.ledger.budget, shared)
	}
}

// patience is how long a request waits at most that no limit lets wait longer.
func (u *Upstream) patience() time.Duration {
	longest := u.config.Load().Longest()
	if u.options.Shared != nil {
		longest = max(longest, askWithin)
	}
	return longest
}

// takeShared takes where instances share the limits: what is in hand here.
func (u *Upstream) takeShared(now limits.Time, w *waiter) bool {
	probes := u.gate.Phase(now) == pressure.Probing
	if probes && now >= u.peers.claimed {
		u.peers.lacks = theProbe
		return false
	}
	claims := u.claim(w)
	if limits.Try(now, claims) >= 0 {
		if slices.ContainsFunc(claims, pending) {
			u.peers.lacks = theStore
		}
		return false
	}
	if probes {
		u.peers.claimed, u.peers.probed = 0, now
	}
	return true
}

func pending(c limits.Claim) bool { return c.Decision.Pending }

// behind answers when n can be taken by one who comes after ahead others, from
// start on. Nobody asks the store while the gate is closed: what was last heard
// of the limit has to do.
func (u *Upstream) behind(i int, now limits.Time, start time.Duration, ahead, n int64) limits.Decision {
	l := u.limiters[i]
	switch lease := l.Lease(); {
	case lease == nil:
		return limits.Decision{Wait: l.WaitFor(now.Add(start), ahead, n)}
	case start > 0:
		return limits.Decision{Wait: limits.Restore(l.Spec(), now, lease.Known()).WaitFor(now.Add(start), ahead, n)}
	}
	return l.Behind(now, ahead, n)
}

// remaining returns what is left of a limit, by what is known here.
func (u *Upstream) remaining(now limits.Time, i int) int64 {
	l := u.limiters[i]
	if lease := l.Lease(); lease != nil {
		return limits.Restore(l.Spec(), now, lease.Known()).Peek(now, 1).Remaining
	}
	return l.Peek(now, 1).Remaining
}

// askIfNeeded asks the store in the background where somebody waits for that.
func (u *Upstream) askIfNeeded(now limits.Time) {
	p := &u.peers
	needed := p.unclaim || p.lacks != nothing && u.line.len > 0 && now >= p.notBefore
	if needed && !p.asking && !u.closed {
		p.asking = true
		u.asks.Go(u.ask)
	}
}

// ask asks the store for what the first in the line lacks.
func (u *Upstream) ask() {
	u.mu.Lock()
	now := u.options.Clock.Now()
	switch w := u.line.first(); {
	case w != nil && u.peers.lacks == theProbe:
		u.claimProbe(now, u.gate.ProbeLasts())
	case u.peers.unclaim:
		u.claimProbe(now, -1)
	case w != nil && u.peers.lacks == theStore:
		u.fetch(now, w)
	}
	now = u.options.Clock.Now()
	u.peers.asking = false
	waiting := u.line.len
	u.serve(now)
	if u.line.len == waiting {
		u.peers.notBefore = now.Add(askAgain)
	}
	u.peers.unclaim = u.peers.unclaim || now < u.peers.claimed // nobody was there to send it
	u.unlock(now)
}

// claimProbe asks for the right to send the probe, or gives it back. Where nobody
// can say, this instance has it. The lock is free meanwhile.
func (u *Upstream) claimProbe(now limits.Time, lasts time.Duration) {
	r := u.report(now)
	u.peers.unclaim, u.peers.claimed = false, 0
	u.mu.Unlock()
	h, err := u.options.Shared.Claim(context.Background(), r, lasts)
	u.mu.Lock()
	now = u.options.Clock.Now()
	if err == nil {
		u.hear(now, r, h)
	}
	if lasts > 0 && (err != nil || h.OwnProbe) {
		u.peers.claimed = now.Add(lasts)
	}
}

// fetch has the store asked about the limits that w lacks, for all who wait. The
// lock is free meanwhile.
func (u *Upstream) fetch(now limits.Time, w *waiter) {
	claims := slices.Clone(u.claim(w))
	limits.PeekAll(now, claims)
	var all int64
	for w := range u.line.all() {
		all += max(w.Cost, 1)
	}
	u.mu.Unlock()
	for i := range claims {
		if claims[i].Decision.Pending {
			claims[i].Limiter.Lease().Lender().Ask(context.Background(), max(claims[i].N, 1), all)
		}
	}
	u.mu.Lock()
}

// report is what the others are told.
func (u *Upstream) report(now limits.Time) pressure.Report {
	u.gate.Phase(now)
	return pressure.Report{
		ID: u.id, Gate: u.gate.State(), Reset: u.peers.ended,
		Share: u.share.State(), ShareStamp: u.peers.shareStamp, ShareNew: u.peers.shareNew,
		Seen: u.gauge.look(&u.accepted, now), SeenLong: int64(u.gauge.period),
	}
}

// Reports returns what the other instances are to be told of each upstream.
func (r *Registry) Reports(now limits.Time) []pressure.Report {
	var all []pressure.Report
	for _, u := range r.All() {
		u.mu.Lock()
		all = append(all, u.report(now))
		u.look(now)
		u.mu.Unlock()
	}
	return all
}

// look has the store asked, now and then, how the limits stand.
func (u *Upstream) look(now limits.Time) {
	if d := now.Sub(u.peers.looked); d >= 0 && d < lookEvery {
		return
	}
	u.peers.looked = now
	for _, l := range u.limiters {
		if lease := l.Lease(); lease != nil { // else its kind is not shared
			lease.Lender().Low(now)
		}
	}
	for i := range u.ledger.accounts {
		u.ledger.accounts[i].lent[0].Lease().Lender().Low(now)
	}
}

// Hear takes over what all instances know of an upstream, in answer to a report.
func (r *Registry) Hear(now limits.Time, sent pressure.Report, h pressure.Heard) {
	if u := r.ByID(sent.ID); u != nil {
		u.mu.Lock()
		defer u.unlock(now)
		u.hear(now, sent, h)
	}
}

func (u *Upstream) hear(now limits.Time, sent pressure.Report, h pressure.Heard) {
	if u.peers.ended != sent.Reset {
		return // ended by hand since then: it is about what was before
	}
	u.peers.ended = 0
	u.ledger.reached(now)
	was, _ := u.gate.Last()
	u.gate.Stamped(now, sent.Gate.Last, h.Own)
	if st := u.gate.State(); st.Stamp != 0 && st.Stamp <= h.Reset {
		u.gate.Reset(now)
	}
	if last, _ := u.gate.Last(); last == 0 && was != 0 {
		u.forget(now)
		u.dirty = true
		u.serve(now)
	}
	probe := h.Probe
	if h.OwnProbe {
		probe = 0
	}
	before := u.gate.Wait(now)
	merged := h.Gate.Last != 0 && u.gate.Merge(now, h.Gate)
	u.gate.Elsewhere(now, probe, h.Peers)
	if last, _ := u.gate.Last(); merged && last != was {
		u.source, u.incident = "peer", incident{}
	}
	u.hearShare(now, sent, h)
	if merged || u.gate.Wait(now) != before {
		u.dirty = u.dirty || merged
		u.retime(now)
	}
	u.peers.seen = h.Others
	if u.incident.at != 0 && u.gate.Phase(now) == pressure.Frozen && h.Others.Long > u.incident.others.Long {
		u.incident.others = h.Others // they were on their way when the refusal came
		u.learn(now)
	}
}

// hearShare takes over what was learned elsewhere.
func (u *Upstream) hearShare(now limits.Time, sent pressure.Report, h pressure.Heard) {
	p := &u.peers
	switch {
	case h.ShareStamp == 0:
		if p.shareStamp != 0 && p.shareStamp <= h.Reset {
			u.forget(now)
		}
	case p.shareNew && u.share.State() != sent.Share:
		// It was changed again, and is told again.
	case h.ShareStamp != p.shareStamp || p.shareNew:
		p.shareStamp, p.shareNew = h.ShareStamp, false
		if u.share.Merge(now, h.Share) {
			u.adjust(now)
			u.retime(now)
		}
	}
}

// lend makes the account one that all instances share: a bucket that counts
// calls and never ends, of which each class leaves in reserve what it may not use.
func (a *account) lend(now limits.Time, upstream string, b *Budget, shared Shared) {
	spec, _ := limits.Compile(limits.Limit{Kind: limits.Quota, N: limits.MaxN, Calendar: a.budget.Calendar, Location: b.Location}) // as the budget's own
	for class := range max(len(b.Classes), 1) {
		if class == len(a.lent) {
			l := limits.Restore(spec, now, limits.State{Kind: limits.Quota, A: int64(max(a.Start, min(now, a.end-1))), B: a.Used})
			a.lent = append(a.lent, l)
			if class == 0 {
				shared.Lend(upstream, "budget/"+string(a.budget.Calendar), l)
			} else {
				shared.LendClass(a.lent[0], class, l)
			}
		}
		a.lent[class].SetSpec(now, spec) // the zone may be another
		reserve := limits.MaxN - b.allowed(a.budget, class)
		if b.Soft {
			reserve = 0
		}
		shared.Reserve(a.lent[class], reserve)
	}
}

// of returns the limiter of a class.
func (a *account) of(class int) *limits.Limiter { return a.lent[min(max(class, 0), len(a.lent)-1)] }

// claim adds what a request takes from the budget.
func (l *ledger) claim(claims []limits.Claim, w *waiter) []limits.Claim {
	for i := range l.accounts {
		claims = append(claims, limits.Claim{Limiter: l.accounts[i].of(l.budget.class(w.Class)), N: w.Cost})
	}
	return claims
}

// away reports whether the store has not been heard of lately.
func (l *ledger) away(now limits.Time) bool { return now.Sub(l.heard) > settled/2 }

// reached notes that the store has answered. If it was away, it does not know what
// was used here.
func (l *ledger) reached(now limits.Time) {
	for i := range l.accounts {
		if l.away(now) {
			l.accounts[i].spent = now
		}
	}
	l.heard = now
}

// settled is how long after a request the store knows of it for sure, while it is there.
const settled = 2 * time.Second

// hear takes over what all instances have used, as far as it is known here. While
// the store may not know all that was used here the larger number counts.
func (l *ledger) hear(now limits.Time, a *account) {
	if a.lent == nil {
		return
	}
	st := a.lent[0].Lease().Known()
	if st.A < int64(a.Start) || st.A >= int64(a.end) {
		return
	}
	a.Used = max(a.Used, st.B)
	if now.Sub(a.spent) > settled && !l.away(now) {
		a.Used = st.B // what was counted twice, since an answer was lost, has been put right
	}
}
