package redis

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// pressureEvery is how often instances tell each other of upstreams.
const pressureEvery = 50 * time.Millisecond

// longestPause bounds what is believed of a pause in Redis.
const longestPause = 366 * 24 * time.Hour

// Pressure shares what instances know of upstreams: pauses, whose turn it is to
// probe, what was learned, and the upstreams' limits and budgets. Make it with
// [Cluster.Pressure]. Its methods are safe for concurrent use.
type Pressure struct {
	cluster *Cluster
	signal  chan struct{}

	mu     sync.Mutex        // guards what follows
	broken map[string]bool   // whose value cannot be meant
	pauses map[string]moment // when each upstream's ends, as last heard
	heard  moment            // when Redis last answered; the zero moment if it never did
}

// moment is one instant by two clocks.
type moment struct {
	redis int64       // milliseconds
	local limits.Time // the latest that it can be
}

// Upstreams is who knows the upstreams that are shared.
type Upstreams interface {
	// Reports returns what this instance knows of each.
	Reports(now limits.Time) []pressure.Report
	// Hear is told what all instances know, in answer to a report.
	Hear(now limits.Time, sent pressure.Report, h pressure.Heard)
}

// Pressure begins to share upstreams.
func (c *Cluster) Pressure() *Pressure {
	return &Pressure{cluster: c, signal: make(chan struct{}, 1), broken: map[string]bool{}, pauses: map[string]moment{}}
}

// Run exchanges what instances know of u, in the background, until the Cluster
// is closed. Call it once.
func (p *Pressure) Run(u Upstreams) {
	c := p.cluster
	c.running.Go(func() {
		t := time.NewTicker(pressureEvery)
		defer t.Stop()
		for {
			select {
			case <-c.ending.Done():
				return
			case <-p.signal:
			case <-t.C:
			}
			p.exchange(c.ending, u)
		}
	})
}

// Tell has the others told at once that something has changed. It does not wait.
func (p *Pressure) Tell() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

// Lend makes l, which is fresh, one limit of an upstream that all instances share.
func (p *Pressure) Lend(upstream, name string, l *limits.Limiter) {
	c := p.cluster
	c.share(c.o.Prefix+"{upstream/"+url.PathEscape(upstream)+"}"+url.PathEscape(name), l)
	if own := limitOf(l); own != nil {
		own.learned = true
	}
}

// LendClass makes l, which is fresh, take from the same bucket as base, which
// was lent by Lend. class is above 0 and tells the limiters of one base apart.
func (p *Pressure) LendClass(base *limits.Limiter, class int, l *limits.Limiter) {
	of := limitOf(base)
	p.cluster.share(of.key, l)
	own := limitOf(l)
	own.base, own.holder = of, own.holder+"/"+strconv.Itoa(class)
}

// Reserve has l, which was lent, leave so many in its bucket. It is for quotas.
func (p *Pressure) Reserve(l *limits.Limiter, n int64) { limitOf(l).reserve.Store(n) }

// key is where an upstream's state is.
func (p *Pressure) key(id string) string {
	return p.cluster.o.Prefix + "{upstreams}" + url.PathEscape(id)
}

// exchange tells what is known and hears what the others know.
func (p *Pressure) exchange(ctx context.Context, u Upstreams) {
	c := p.cluster
	now := c.now()
	reports := u.Reports(now)
	if len(reports) == 0 || c.link(p.key("")).down.Load() {
		return
	}
	calls := make([]call, len(reports))
	for i := range reports {
		calls[i] = p.call(now, &reports[i], 0)
	}
	for i, a := range c.run(ctx, calls) {
		h, err := p.read(now, &reports[i], a)
		switch {
		case err == nil:
			u.Hear(c.now(), reports[i], h)
		case !isCorrupt(err):
			if ctx.Err() == nil && !isLate(err) {
				c.fault(err, p.key(reports[i].ID))
			}
			return
		}
	}
}

// Claim asks for the right to send the one probe that an upstream gets, for as
// long as its answer is waited for, below 0 to give it back. Heard says whether
// it was granted; an error, that Redis is away.
func (p *Pressure) Claim(ctx context.Context, r pressure.Report, lasts time.Duration) (pressure.Heard, error) {
	c, key := p.cluster, p.key(r.ID)
	if c.link(key).down.Load() {
		return pressure.Heard{}, errAbsent
	}
	now := c.now()
	h, err := p.read(now, &r, c.run(ctx, []call{p.call(now, &r, lasts)})[0])
	if isLate(err) { // only by a clock that was set
		h, err = p.read(now, &r, c.run(ctx, []call{p.call(now, &r, lasts)})[0])
	}
	if err != nil && !isCorrupt(err) && !isLate(err) && ctx.Err() == nil {
		c.fault(err, key)
	}
	return h, err
}

// lateAfter is how much longer than its timeout a call may take, by clocks that
// are not quite known.
const lateAfter = time.Second

// call makes the call that tells r. What it says of instants is how long ago they
// were, and that would be wrong if Redis, once it was stopped, made the call long after
// it was given up: a pause would be ended by hand that came later. So it says until when
// it may be made, as far as Redis' clock is known.
func (p *Pressure) call(now limits.Time, r *pressure.Report, probe time.Duration) call {
	ago := func(t limits.Time) string {
		if t == 0 {
			return "-1"
		}
		return num(max(0, now.Sub(t).Milliseconds()))
	}
	claim := num(min(max(probe.Milliseconds(), 1), time.Hour.Milliseconds()))
	if probe <= 0 {
		claim = map[bool]string{false: "0", true: "-1"}[probe < 0]
	}
	// A pause may be longer elsewhere, by as long as a call takes, never shorter. One
	// that is as it was heard is told as it was heard, so that it grows only once.
	p.mu.Lock()
	till, before := p.pauses[r.ID], int64(0)
	if p.heard.redis != 0 {
		before = p.heard.redis + (now.Sub(p.heard.local) + p.cluster.o.Timeout + lateAfter).Milliseconds()
	}
	p.mu.Unlock()
	if till.local != r.Gate.Until {
		till.redis = 0
	}
	left := int64(0)
	if d := r.Gate.Until.Sub(now); d > 0 {
		left = d.Milliseconds() + 2 // rounded up, since the script's clock is rounded down, to milliseconds
	}
	reason := url.QueryEscape(r.Gate.Reason)
	if reason == "" {
		reason = "-"
	}
	return call{p.cluster.scripts.pressure, []string{p.key(r.ID)}, []string{
		p.cluster.id, num(r.Gate.Stamp), ago(r.Gate.Last), num(left), strconv.Itoa(min(r.Gate.Violations, 999_999)), bit(r.Gate.Proved), reason[:min(len(reason), 300)],
		ago(r.Reset),
		num(max(1, int64(r.Share.Value*1e6+0.5))), strconv.Itoa(min(r.Share.Times, 999)), num(max(0, now.Sub(r.Share.Changed).Milliseconds())), num(r.ShareStamp), bit(r.ShareNew),
		num(r.Seen.Long), num(r.Seen.Short), bit(r.Seen.Whole), num(r.SeenLong / 1e6), claim, num(till.redis), num(before),
	}}
}

// read makes sense of an answer. A value that cannot be meant is told once, and
// counts as none.
func (p *Pressure) read(now limits.Time, r *pressure.Report, a answer) (pressure.Heard, error) {
	h, at, bad, err := readPressure(now, p.cluster.now(), a)
	if isLate(err) { // a clock was set
		p.mu.Lock()
		p.heard = moment{}
		p.mu.Unlock()
	}
	if err != nil && !isCorrupt(err) {
		return h, err
	}
	if bad == nil {
		bad = err
	}
	key := p.key(r.ID)
	p.mu.Lock()
	tell := bad != nil && !p.broken[r.ID]
	p.broken[r.ID] = bad != nil
	if err == nil {
		p.heard = at.now
		h.Gate.Until = p.until(r.ID, at.till)
	}
	p.mu.Unlock()
	if c := p.cluster; tell {
		c.stats.corrupt.Add(1)
		if c.o.Corrupt != nil {
			c.o.Corrupt(key, bad)
		}
	}
	h.Peers = int64(p.cluster.instances())
	return h, err
}

// until returns when a pause ends that ends at till; mu is held. One that ends when it
// did is not heard anew, so that it grows no longer with each time that it is told.
func (p *Pressure) until(id string, till moment) limits.Time {
	if was := p.pauses[id]; was.redis == till.redis && max(was.local, till.local).Sub(min(was.local, till.local)) < clockSet {
		return was.local
	}
	p.pauses[id] = till
	return till.local
}

// instants are what an answer says of its own time and of the end of the pause.
type instants struct{ now, till moment }

// readPressure returns what an answer says to a call that was made at an instant,
// and was read at another, and what was wrong with the value that was there.
// Redis made it in between: what ends is taken to end later by that, not earlier.
func readPressure(made, now limits.Time, a answer) (h pressure.Heard, at instants, bad, err error) {
	if a.err != nil {
		return h, at, nil, a.err
	}
	const texts, numbers = 3, 18
	if len(a.values) != texts+numbers {
		return h, at, nil, fmt.Errorf("%w: %d values", errAnswer, len(a.values))
	}
	var s [texts]string
	var n [numbers]int64
	for i := range a.values {
		text, err := a.values[i].ToString()
		if err == nil && i < texts {
			s[i] = text
		} else if err == nil {
			n[i-texts], err = strconv.ParseInt(text, 10, 64)
		}
		if err != nil {
			return h, at, nil, fmt.Errorf("%w: %w", errAnswer, err)
		}
	}
	if s[0] != "0" {
		bad = errors.New("not the state of an upstream")
	}
	reason, err := url.QueryUnescape(s[2])
	if err != nil || reason == "-" {
		reason = ""
	}
	span := func(ms int64) time.Duration {
		return time.Duration(min(max(ms, 0), longestPause.Milliseconds())) * time.Millisecond
	}
	h = pressure.Heard{Own: n[0], Reset: n[1]}
	if n[2] > 0 {
		last := made.Add(-span(n[4]))
		h.Gate = pressure.State{Stamp: n[2], Until: now.Add(span(n[3])), Since: last, Last: last, Violations: int(min(max(n[5], 0), 999_999)), Proved: n[6] == 1, Reason: reason}
	}
	h.Share = pressure.SavedShare{Value: float64(min(max(n[7], 1), 1_000_000)) / 1e6, Times: int(min(max(n[8], 0), 999)), Changed: made.Add(-span(n[9]))}
	h.ShareStamp = n[10]
	if n[11] > 0 {
		h.Probe, h.OwnProbe = now.Add(span(n[11])), n[12] == 1
	}
	h.Others = pressure.Seen{Long: max(n[13], 0), Short: max(n[14], 0), Whole: n[15] == 1}
	at = instants{now: moment{n[16], now}, till: moment{n[17], h.Gate.Until}}
	return h, at, bad, nil
}
