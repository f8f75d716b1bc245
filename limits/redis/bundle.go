package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// bundle is the claims of a request that lie in one slot, which one call decides about.
type bundle struct {
	slot   uint16
	claims []int
}

// takeCall makes the call for one slot's claims; sign -1 gives them back.
func (c *Cluster) takeCall(now limits.Time, claims []limits.Claim, b bundle, look bool, sign int64) call {
	k := call{script: c.scripts.take, args: []string{c.clockText(), "take"}}
	if look {
		k.args[1] = "look"
	}
	redisNow := now.Add(time.Duration(c.offset.Load()))
	for _, i := range b.claims {
		l, s := limitOf(claims[i].Limiter), claims[i].Limiter.Spec()
		l.mu.Lock()
		l.follow(s)
		text, known := l.specText, l.known.text
		l.mu.Unlock()
		n := max(claims[i].N, 0) * sign
		if sign < 0 && !claims[i].Decision.Allowed {
			n = 0
		}
		watches := bit(shadow(&claims[i]) || sign < 0)
		k.keys = append(k.keys, l.key)
		k.args = append(k.args, text, boundsText(s, redisNow), known, num(n), watches, strconv.Itoa(max(claims[i].Group, 0)))
	}
	return k
}

// read fills the decisions of a slot's claims.
func (c *Cluster) read(claims []limits.Claim, b bundle, a answer) (admitted bool, err error) {
	if a.err != nil {
		return false, a.err
	}
	const each = 5
	if len(a.values) != 2+each*len(b.claims) {
		return false, fmt.Errorf("%w: %d values", errAnswer, len(a.values))
	}
	yes, err := a.values[0].AsInt64()
	if err != nil {
		return false, fmt.Errorf("%w: %w", errAnswer, err)
	}
	if at, err := a.values[1].ToString(); err == nil {
		c.learnClock(at)
	}
	for j, i := range b.claims {
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
	if l.dry.clear(); !d.Allowed && d.Wait != limits.Never {
		l.dry.say(l.spec, now, max(n, 1), d.Wait)
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

// blameBundle finds out what of a slot's claims is at fault.
func (c *Cluster) blameBundle(claims []limits.Claim, b bundle, now limits.Time, err error) {
	if !isCorrupt(err) {
		c.fault(err, limitOf(claims[b.claims[0]].Limiter).key)
		return
	}
	if len(b.claims) == 1 {
		c.blame(limitOf(claims[b.claims[0]].Limiter), now, err)
		return
	}
	for _, i := range b.claims {
		one := bundle{b.slot, []int{i}}
		if a := c.run(context.Background(), []call{c.takeCall(now, claims, one, true, 1)})[0]; a.err != nil && isCorrupt(a.err) {
			c.blame(limitOf(claims[i].Limiter), now, a.err)
		}
	}
}
