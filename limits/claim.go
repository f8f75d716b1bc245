package limits

import "runtime"

// Claim is one limiter's part in a request. The same limiter may stand in
// several claims.
type Claim struct {
	Limiter  *Limiter
	N        int64    // below 1: a look, which refuses as a claim of 1 would and takes nothing
	Shadow   bool     // never refuses, whatever the spec says
	Group    int      // above 0: refuses only if all groups do; a Taker minds it, TakeAll does not
	Decision Decision // filled by TakeAll; of a shadow claim Allowed says whether it would have refused

	from *bucket // what it was taken from
	held bool    // while the other claims are not taken yet
}

func (c *Claim) enforced() bool { return !c.Shadow && !c.Limiter.Spec().limit.Shadow }

// TakeAll takes every claim or none: a refusal uses up nothing. It returns the
// index of the claim that refused, the one with the longest wait if several
// do, or -1 when all were taken. Claims in shadow take if they can and never
// refuse. All decisions are filled in either case.
func TakeAll(now Time, claims []Claim) int {
	refused := takeAll(now, claims)
	if refused >= 0 {
		claims[refused].Limiter.countRefused()
	}
	return refused
}

// attempts bounds how often a request tries again that looks as if it could be
// taken and then cannot.
const attempts = 1000

// takeAll is TakeAll without counting a refusal in Usage: the queue may still
// hold the request, and counts once the end is known (Limiter.countRefused).
func takeAll(now Time, claims []Claim) int { return attempt(now, claims, false) }

// attempt is takeAll, or with asks set Try.
func attempt(now Time, claims []Claim, asks bool) int {
	if len(claims) == 1 && claims[0].N > 0 {
		return takeOne(now, &claims[0], asks)
	}
	refused := -1
	for range attempts {
		// Looking first costs little and keeps a refused request from holding,
		// for a moment, what others could have.
		if r := peekAll(now, claims, asks); r >= 0 {
			return r
		}
		if refused = tryAll(now, claims, asks); refused < 0 {
			for i := range claims {
				if c := &claims[i]; c.N > 0 {
					c.Limiter.count(c.Decision.Allowed)
				}
			}
			return -1
		}
		runtime.Gosched() // another was faster: let it end
	}
	return refused
}

func takeOne(now Time, c *Claim, asks bool) int {
	c.Decision, _ = c.Limiter.take(now, c.N)
	if !c.Decision.Allowed && (asks && c.Decision.Pending || c.enforced()) {
		return 0
	}
	c.Limiter.count(c.Decision.Allowed)
	return -1
}

// tryAll takes the claims, those last of which nothing can be given back
// without a trace. At the first that refuses it gives back what it took and
// returns that claim's index.
func tryAll(now Time, claims []Claim, asks bool) int {
	left := 0
	for i := range claims {
		if claims[i].from = nil; claims[i].N > 0 {
			left++
		}
	}
	refused := -1
	for _, all := range [2]bool{false, true} {
		for i := 0; i < len(claims) && left > 0 && refused < 0; i++ {
			c := &claims[i]
			if c.N < 1 || c.from != nil || !all && !c.Limiter.current().traceless() {
				continue
			}
			// The last one settles the matter, and so need not be held.
			if left--; left > 0 {
				c.Limiter.holds.begin()
			}
			c.Decision, c.from = c.Limiter.ask(now, c.N)
			c.held = left > 0
			if !c.Decision.Allowed && (asks && c.Decision.Pending || c.enforced()) {
				refused = i
			}
		}
	}
	for i := range claims {
		if c := &claims[i]; c.from != nil && c.held {
			c.end(now, refused < 0)
		}
	}
	return refused
}

// end ends the hold of what was taken, if anything was.
func (c *Claim) end(now Time, kept bool) {
	back := !kept && c.Decision.Allowed
	if back {
		c.Limiter.refundTo(c.from, now, c.N)
	}
	c.Limiter.holds.end(back)
	if back {
		c.Limiter.retime()
	}
}

// PeekAll fills the decisions as TakeAll would and takes nothing.
func PeekAll(now Time, claims []Claim) int { return peekAll(now, claims, false) }

func peekAll(now Time, claims []Claim, asks bool) int {
	refused := -1
	for i := range claims {
		c := &claims[i]
		c.Decision = c.Limiter.peek(now, before(claims[:i], c.Limiter), max(c.N, 1))
		if c.Decision.Allowed || !(asks && c.Decision.Pending) && !c.enforced() {
			continue
		}
		if refused < 0 || c.Decision.Wait > claims[refused].Decision.Wait {
			refused = i
		}
	}
	return refused
}

// before returns what claims take from l.
func before(claims []Claim, l *Limiter) int64 {
	var n int64
	for i := range claims {
		if c := &claims[i]; c.Limiter == l && c.N > 0 && c.Decision.Allowed {
			n = min(n+c.N, MaxN)
		}
	}
	return n
}
