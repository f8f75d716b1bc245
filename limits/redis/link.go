package redis

import (
	"sync"
	"sync/atomic"
	"time"
)

// link is the breaker of a part of the keys: all of them on one server, those
// of 256 slots on a cluster, of which one master may be away. While it is down
// no decision asks Redis; a probe in the background finds out when that is of use
// again. While it is slow no decision does either, until an answer has come. Once
// it is up again it settles: what limits that are local have admitted is told, and
// nothing is asked for before the others have had the time to tell theirs.
type link struct {
	down    atomic.Bool
	slow    atomic.Int64 // until when it is: a request has waited long enough for an answer, which may still come
	settles atomic.Int64 // until when it does

	mu      sync.Mutex // guards what follows
	key     string     // to probe with
	probed  time.Time
	probing bool
}

const (
	numLinks   = 64
	probeEvery = 200 * time.Millisecond
	settleFor  = 700 * time.Millisecond // twice as long as another's probe, and the report that follows, take
)

// link returns the link that counts for a key: there is one for all unless
// Redis is a cluster.
func (c *Cluster) link(key string) *link {
	if c.sharded.Load() {
		return &c.links[int(slotOf(key))*numLinks/16384]
	}
	return &c.links[0]
}

// fail takes a link down.
func (c *Cluster) fail(k *link, key string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.stats.errors.Add(1)
	k.key = key
	if k.down.Swap(true) {
		return
	}
	k.probed = time.Now()
	c.count(1, err)
}

// heal brings it up again.
func (c *Cluster) heal(k *link) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.slow.Store(0)
	if !k.down.Load() {
		return
	}
	k.settles.Store(int64(c.now().Add(settleFor)))
	k.down.Store(false)
	c.count(-1, nil)
	c.mu.Lock()
	for l := range c.active {
		l.askedAt.Store(0) // they are due
	}
	c.mu.Unlock()
}

// count keeps how many links are down, and tells of the first and the last.
func (c *Cluster) count(by int, err error) {
	c.told.Lock()
	defer c.told.Unlock()
	was := c.away
	c.away += by
	if c.o.Changed != nil && (was == 0) != (c.away == 0) {
		c.o.Changed(err)
	}
}

// probe asks for the key that a link failed at, where it is time.
func (c *Cluster) probe() {
	for i := range c.links {
		k := &c.links[i]
		if !k.down.Load() {
			continue
		}
		k.mu.Lock()
		due := time.Since(k.probed) >= probeEvery && !k.probing
		key := k.key
		if due {
			k.probed, k.probing = time.Now(), true
		}
		k.mu.Unlock()
		if due {
			c.running.Go(func() {
				ok := c.answers(key)
				k.mu.Lock()
				k.probing = false
				k.mu.Unlock()
				if ok {
					c.heal(k)
				}
			})
		}
	}
}
