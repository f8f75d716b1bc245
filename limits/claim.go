package limits

// Claim is one limiter's part in a request. The same limiter may stand in
// several claims.
type Claim struct {
	Limiter  *Limiter
	N        int64    // below 1: a look, which refuses as a claim of 1 would and takes nothing
	Shadow   bool     // never refuses, whatever the spec says
	Decision Decision // filled by TakeAll; of a shadow claim Allowed says whether it would have refused

	from *bucket // what the claim was taken from
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

// attempts bounds how often a request that others overtake tries again.
const attempts = 16

// takeAll is TakeAll without counting a refusal in Usage: the queue may still
// hold the request, and counts once the end is known (Limiter.countRefused).
func takeAll(now Time, claims []Claim) int {
	if len(claims) == 1 && claims[0].N > 0 {
		return takeOne(now, &claims[0])
	}
	refused := -1
	for range attempts {
		// Looking first costs little and keeps a refused request from holding,
		// for a moment, what others could have.
		if r := PeekAll(now, claims); r >= 0 {
			return r
		}
		if refused = tryAll(now, claims); refused < 0 {
			for i := range claims {
				if c := &claims[i]; c.N > 0 {
					c.Limiter.count(c.Decision.Allowed)
				}
			}
			return -1
		}
	}
	return refused
}

func takeOne(now Time, c *Claim) int {
	c.Decision, _ = c.Limiter.take(now, c.N)
	if !c.Decision.Allowed && c.enforced() {
		return 0
	}
	c.Limiter.count(c.Decision.Allowed)
	return -1
}

// tryAll takes the claims in their order. At the first that refuses it gives
// back what it took and returns that claim's index.
func tryAll(now Time, claims []Claim) int {
	for i := range claims {
		c := &claims[i]
		if c.N < 1 {
			continue
		}
		c.Decision, c.from = c.Limiter.take(now, c.N)
		if c.Decision.Allowed || !c.enforced() {
			continue
		}
		for j := i - 1; j >= 0; j-- {
			if t := &claims[j]; t.N > 0 && t.Decision.Allowed {
				t.Limiter.refundTo(t.from, now, t.N)
				t.Limiter.retime()
			}
		}
		return i
	}
	return -1
}

// PeekAll fills the decisions as TakeAll would and takes nothing.
func PeekAll(now Time, claims []Claim) int {
	refused := -1
	for i := range claims {
		c := &claims[i]
		c.Decision = c.Limiter.peek(now, before(claims[:i], c.Limiter), max(c.N, 1))
		if c.Decision.Allowed || !c.enforced() {
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
