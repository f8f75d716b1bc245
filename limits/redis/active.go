package redis

import (
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// How long after an exchange the next one is due, whatever happens.
const (
	renewAfter = 500 * time.Millisecond  // about what lies idle
	renewSlack = 200 * time.Millisecond  // about a window of which more is kept than is used
	renewLater = 1500 * time.Millisecond // about what is in use
	renewKept  = 2400 * time.Millisecond // about a window that is kept
)

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

// owes reports whether Redis does not know yet how things stand with l.
func (l *limit) owes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.account.owes(l.lease.Left()) || l.grace.passed.Load() > 0 || l.local.owes()
}

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
		if l.due(now) {
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

// due reports whether Redis must be told of l now. Only renew calls it.
func (l *limit) due(now limits.Time) bool {
	limiter, left, g := l.lease.Limiter(), l.lease.Left(), &l.glance
	later := renewLater
	if g.keeping.Load() > 0 {
		later = renewKept
	}
	slack := g.slack(now, limiter, left)
	d := now.Sub(limits.Time(l.askedAt.Load()))
	return d >= later || d < -clockSet || d >= renewAfter && g.idle(limiter, left) || d >= renewSlack && slack
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
func (c *Cluster) fault(err error, key string) { c.fail(c.link(key), key, err) }
