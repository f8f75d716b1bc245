package redis

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/redis/rueidis"

	"github.com/tollgate-dev/tollgate/limits"
)

// batch is how many limits one pipeline is about at most, and inFlight how many
// pipelines are under way at once.
const (
	batch    = 256
	inFlight = 8
)

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
		switch {
		case l.busy:
			l.again = true
		case l.away(now) || l.lease.Limiter().Spec().Capacity() == 0 || !shareable(l.lease.Limiter().Spec()):
			l.wake()
		default:
			if l.busy, l.flight, l.next = true, l.next, nil; l.flight == nil {
				l.flight = make(chan struct{})
			}
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
			calls[i].args[2] = boundsText(asked[i].spec, now.Add(time.Duration(c.offset.Load())))
			a = c.run(ctx, calls[i:i+1])[0]
		}
		asked[i].settle(now, a)
	}
}

// wake tells who waits for an exchange that there will be none.
func (l *limit) wake() {
	if l.next != nil {
		close(l.next)
		l.next = nil
	}
}

// settle takes what an exchange brought.
func (l *limit) settle(now limits.Time, a answer) {
	c := l.cluster
	err := a.err
	l.mu.Lock()
	if err == nil {
		err = l.accept(now, a.values)
	}
	l.busy = false
	again := l.again
	l.again = false
	sliced := l.keeps || l.spec.Limit().Kind == limits.Window && l.use >= sliceFrom
	flight := l.flight
	l.mu.Unlock()
	if err != nil {
		c.blame(l, now, err)
	}
	if err == nil {
		c.part(l.key).slow.Store(0)
	}
	if err == nil {
		c.release(l)
	} else {
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

// owes reports whether Redis does not know yet how things stand with l.
func (l *limit) owes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.lease.Left()
	return left > 0 || l.granted-l.returned-left != l.acked || l.passed.Load() > 0 || l.outside.Load() != l.told || l.returned != l.backAcked || l.local.Load() != nil
}

// accept reads the answer of the lease script; mu is held.
func (l *limit) accept(now limits.Time, v []rueidis.RedisMessage) error {
	if len(v) != 8 {
		return fmt.Errorf("%w: %d values", errAnswer, len(v))
	}
	at, err := v[0].ToString()
	var n [8]int64
	for _, i := range []int{1, 2, 3, 4, 5, 7} {
		if err == nil {
			n[i], err = v[i].AsInt64()
		}
	}
	granted, rest, wait, full, free := n[1], n[2], n[3], n[4], n[5]
	text := ""
	if err == nil {
		text, err = v[6].ToString()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	note, st, err := parseNote(l.spec.Limit().Kind, text)
	switch {
	case err != nil:
		return err
	case granted < l.granted || granted-l.granted > 2*l.spec.Capacity() || rest < -limits.MaxN || rest > limits.MaxN || wait < -1:
		return fmt.Errorf("%w: granted %d, rest %d", errAnswer, granted, rest)
	}
	c := l.cluster
	l.backAcked = l.backTold
	if l.leaving {
		l.backAcked = 0
		l.session, granted, l.granted, l.used, l.returned, n[7] = c.session.Add(1), 0, 0, 0, 0, 0
		l.forget()
		l.from, l.fromTold = 0, l.telling
	}
	c.learnClock(at)
	if note.reset > l.known.reset && l.keeps {
		l.comeBack(now, len(l.slices), l.noted)
	}
	more := granted - l.granted
	excess := max(0, -rest) // in hand somewhere, and used without Redis meanwhile
	rest = max(0, rest)
	if l.settling(now) {
		excess = max(excess, more) // of a call that Redis has made late: others do not know
	}
	l.known, l.rest = note, rest+l.reserve.Load()
	l.lease.Learn(st)
	l.granted, l.acked, l.since, l.good = granted, n[7], now, now.Add(leaseLasts)
	l.told, l.answers = l.telling, !l.leaving
	if l.reporting != nil && l.outside.Load() == l.told { // else it goes on: what it has admitted since is not in rest
		l.local.CompareAndSwap(l.reporting, nil)
	}
	l.reporting = nil
	c.stats.granted.Add(more)
	if excess > 0 {
		out := min(more, excess)
		more -= out
		out += l.lease.Withdraw(excess - out)
		l.returned += out
		c.stats.returned.Add(out)
		l.again = l.again || out > 0
	}
	chunk, _ := l.chunk(l.lease.Left())
	if l.vain++; l.keeps && more > (l.granted-l.returned-l.used)/16 {
		l.vain = 0
	}
	gap := l.pause()
	ramps := l.spec.Limit().WarmUp != limits.WarmUp{} && st.B != unused && st.B > 0
	if ramps { // more comes in than the limit says
		gap, l.vain = min(gap, inRamp), 0
	}
	l.gap.Store(int64(gap))
	l.lease.Forecast(rest, now.Add(time.Duration(full)), l.low(chunk))
	switch {
	case free > 0:
		l.freed.Store(int64(now))
		l.freeTil.Store(int64(now.Add(min(time.Duration(free), graceSteps))))
		l.dryTill.Store(0)
	case free < 0: // so many go free
		l.freed.Store(int64(now))
		l.capped.Store(-free)
		l.freeTil.Store(int64(now.Add(graceSteps)))
		l.dryTill.Store(0)
	}
	l.dryTill.Store(0)
	if free == 0 && wait > 0 {
		l.drySpec.Store(l.spec)
		l.dryFrom.Store(int64(now))
		l.dryFor.Store(max(1, l.needed))
		dry := time.Duration(wait) // after a change of limit not a moment longer
		switch {
		case l.keeps:
			dry = gap
		case !l.untried && !ramps:
			dry = l.dry(max(dry, gap), more)
		}
		l.dryTill.Store(int64(now.Add(dry)))
	}
	l.untried = l.untried && l.needed == 0
	until := l.good
	if more > 0 && more <= l.needed && !l.keeps {
		// Redis counts as used what a request waits for: it must not lie about.
		until = c.now().Add(atOnce)
	}
	l.lease.Grant(l.spec, more, now, until)
	l.left.Store(l.lease.Left())
	l.keeping.Store(0)
	if l.keeps {
		l.keeping.Store(int64(l.spec.Limit().Period))
	}
	return nil
}

// dry is how long not to ask for what is used up, given how long at least. A
// bucket saves up what nobody asks for: those who came in vain, since others were
// faster, may ask less often, as long as it cannot overflow.
func (l *limit) dry(wait time.Duration, more int64) time.Duration {
	if more > 0 || l.needed == 0 {
		l.vain = 0
	}
	if l.spec.Interval() == 0 {
		return wait
	}
	most := l.fill() / 2
	if n := l.cluster.instances(); n > 4 { // of many one asks soon enough
		most = max(most, min(most*time.Duration(n)/4, maxKept))
	}
	return max(wait, min(wait<<min(l.vain, 5), most))
}

// pause is how long after an exchange the next may be that brings more: so long
// that a call to Redis serves many decisions, but not so long that what comes in
// meanwhile has no room.
func (l *limit) pause() time.Duration {
	if l.keeps {
		return l.rests()
	}
	fill := l.fill()
	gap, room := maxGap, fill/20
	window, size := l.spec.Limit().Kind == limits.Window, l.spec.Capacity()
	switch {
	case l.spec.Interval() > 0, window && l.rest > size/16:
		room = fill / 3
	case window && size < keepN:
		room = fill / 100
	case window && l.use > 0: // who uses most takes soonest what goes free
		share := l.use * fill.Seconds() / float64(size)
		room = time.Duration(min(float64(fill)/10, float64(fill)/30/math.Sqrt(share)))
	}
	if l.rate > 0 {
		gap = min(gap, time.Duration(decisions/l.rate*1e9))
	}
	if room > 0 {
		gap = min(gap, room)
	}
	return gap
}

// fill is how long it takes until all that the limit holds has come back; 0 for a quota.
func (l *limit) fill() time.Duration {
	if i := l.spec.Interval(); i > 0 {
		return time.Duration(min(float64(i)*float64(l.spec.Capacity()), 1e18))
	}
	return l.spec.Limit().Period
}

// holds keeps l in mind until Redis knows how things stand with it.
func (c *Cluster) holds(l *limit) {
	if l.listed.Load() {
		return
	}
	c.mu.Lock()
	c.active[l] = struct{}{}
	l.listed.Store(true)
	c.mu.Unlock()
}

// decided is about how many requests a limiter has decided.
func decided(l *limits.Limiter) int64 { return l.Usage().Admitted + l.Usage().Refused }

// release keeps l in mind only where Redis does not know all of it.
func (c *Cluster) release(l *limit) {
	if l.owes() {
		c.holds(l)
		return
	}
	c.mu.Lock()
	delete(c.active, l)
	l.listed.Store(false)
	c.mu.Unlock()
	if l.owes() { // by now
		c.holds(l)
	}
}

// renew enqueues what must be told to Redis before its lease is over, or has lain idle.
func (c *Cluster) renew(now limits.Time) {
	c.mu.Lock()
	var due []*limit
	for l := range c.active {
		asked := limits.Time(l.askedAt.Load())
		idle := l.lease.Left() == l.left.Load() && decided(l.lease.Limiter()) == l.decided.Load()
		slack, later := l.slack(now), renewLater
		if l.keeping.Load() > 0 {
			later = keptLater
		}
		if d := now.Sub(asked); d >= later || d < -clockSet || d >= renewAfter && idle || slack && d >= renewSlack {
			due = append(due, l)
		}
	}
	c.mu.Unlock()
	for _, l := range due {
		if c.release(l); l.listed.Load() {
			l.ask(now)
		}
	}
}

// blame takes the key out of use for a while whose value cannot be meant, or else the link.
func (c *Cluster) blame(l *limit, now limits.Time, err error) {
	if !isCorrupt(err) {
		c.fault(err, l.key)
		return
	}
	l.broken.Store(int64(now))
	c.stats.corrupt.Add(1)
	last := c.warned.Load()
	if t := time.Now().Unix(); c.o.Corrupt != nil && t-last >= 60 && c.warned.CompareAndSwap(last, t) {
		c.o.Corrupt(l.key, err)
	}
}

// fault takes the link of a key down.
func (c *Cluster) fault(err error, key string) { c.fail(c.part(key), key, err) }
