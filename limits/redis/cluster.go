package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/tollgate-dev/tollgate/limits"
)

// Cluster is this instance's part in limits that many instances share. Make one
// with [Open]. All methods are safe for concurrent use.
type Cluster struct {
	o       Options
	id      string // of this instance, anew with each start
	scripts scripts
	client  atomic.Pointer[rueidis.Client] // nil until the first connection
	sharded atomic.Bool                    // Redis is a cluster: keys of a call must share a slot
	links   [numLinks]link
	offset  atomic.Int64 // Redis' clock less ours, in nanoseconds
	seen    atomic.Int64 // instances
	most    atomic.Int64 // of which there were so many
	mostAt  atomic.Int64 // at that instant
	warned  atomic.Int64 // when Corrupt was last told
	session atomic.Int64 // the last that was begun
	stats   counters

	dialing sync.Mutex // one connects, the others wait
	closed  atomic.Bool

	told sync.Mutex // guards away
	away int        // links that are down

	mu      sync.Mutex // guards what follows
	pending []*limit
	active  map[*limit]struct{} // that hold something, or have something to report
	windows map[*limit]struct{} // in much use, of which each tick is reported by itself

	signal  chan struct{}
	ending  context.Context // of what runs in the background
	stop    context.CancelFunc
	running sync.WaitGroup
	closing sync.Once
}

type counters struct{ calls, errors, corrupt, waits, granted, returned atomic.Int64 }

// Stats are what there is to show about a Cluster.
type Stats struct {
	Up        bool
	Instances int   // last seen, this one included
	Leases    int   // limiters that hold something
	Calls     int64 // to Redis
	Errors    int64 // calls that failed
	Corrupt   int64 // values that could not be meant
	Waits     int64 // requests that waited for Redis
	Granted   int64 // requests taken in hand
	Returned  int64 // and given back unused
}

// Stats reads the numbers.
func (c *Cluster) Stats() Stats {
	c.told.Lock()
	up := c.away == 0
	c.told.Unlock()
	c.mu.Lock()
	leases := len(c.active)
	c.mu.Unlock()
	return Stats{
		Up: up, Instances: int(c.seen.Load()), Leases: leases, Calls: c.stats.calls.Load(), Errors: c.stats.errors.Load(),
		Corrupt: c.stats.corrupt.Load(), Waits: c.stats.waits.Load(), Granted: c.stats.granted.Load(), Returned: c.stats.returned.Load(),
	}
}

const (
	tick = 10 * time.Millisecond
	// renewEvery is small beside renewAfter, and seldom enough for many leases.
	renewEvery = 100 * time.Millisecond
	beatEvery  = time.Second
	beatLasts  = 5 * time.Second
)

// Open starts to share. It does not fail because Redis is away: decisions are
// then made as OnError says until it is there.
func Open(ctx context.Context, o Options) (*Cluster, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	var id [9]byte
	_, _ = rand.Read(id[:]) // never fails
	c := &Cluster{o: o, id: base64.RawURLEncoding.EncodeToString(id[:]), scripts: newScripts(),
		active: map[*limit]struct{}{}, windows: map[*limit]struct{}{}, signal: make(chan struct{}, 1)}
	c.counted(int64(o.Instances))
	c.session.Store(time.Now().UnixNano() / 1000)
	if err := c.dial(); err != nil {
		c.fail(&c.links[0], c.o.Prefix+"{probe}", err)
	} else {
		c.beat(ctx, false)
	}
	run, stop := context.WithCancel(context.Background())
	c.ending, c.stop = run, stop
	c.running.Go(func() { c.work(run) })
	c.running.Go(func() { c.watch(run) })
	return c, nil
}

// dial connects, once.
func (c *Cluster) dial() error {
	client, err := connect(&c.o)
	if err != nil {
		return err
	}
	c.sharded.Store(client.Mode() == rueidis.ClientModeCluster)
	c.client.Store(&client)
	return nil
}

// answers reports whether Redis can be written to in the slot of a key.
func (c *Cluster) answers(key string) bool {
	c.dialing.Lock()
	absent := c.client.Load() == nil
	if absent && c.dial() == nil {
		absent = false
	}
	c.dialing.Unlock()
	return !absent && c.tell(context.Background(), c.beatKey(key), false) == nil
}

// beatKey is where instances are counted; on a cluster another one, in the slot
// of the key that a link failed at, tells whether that can be written to.
func (c *Cluster) beatKey(key string) string {
	i, j := strings.IndexByte(key, '{'), strings.IndexByte(key, '}')
	if !c.sharded.Load() || i < 0 || j < i {
		return c.o.Prefix + "{instances}"
	}
	return c.o.Prefix + key[i:j+1] + "~probe"
}

// watch beats, probes and looks after leases, until ctx ends.
func (c *Cluster) watch(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	beaten, renewed := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		c.probe()
		c.slice(c.now())
		if time.Since(renewed) >= renewEvery {
			renewed = time.Now()
			c.renew(c.now())
		}
		if time.Since(beaten) >= beatEvery {
			beaten = time.Now()
			c.running.Go(func() { c.beat(ctx, false) })
		}
	}
}

// beat says that this instance is there, or with gone set that it leaves.
func (c *Cluster) beat(ctx context.Context, gone bool) {
	key := c.o.Prefix + "{instances}"
	if c.link(key).down.Load() {
		return
	}
	if err := c.tell(ctx, key, gone); err != nil && ctx.Err() == nil {
		c.fault(err, key)
	}
}

func (c *Cluster) tell(ctx context.Context, key string, gone bool) error {
	a := c.run(ctx, []call{{c.scripts.beat, []string{key}, []string{c.id, num(beatLasts.Milliseconds()), bit(gone)}}})[0]
	if a.err != nil || len(a.values) != 1 {
		return a.err
	}
	if n, err := a.values[0].AsInt64(); err == nil && n > 0 && key == c.o.Prefix+"{instances}" {
		c.counted(min(n, 1_000_000))
	}
	return nil
}

// counted notes how many instances Redis knows of. One that has been flushed, or
// begins anew, does not know all at once: fewer count only after a while.
func (c *Cluster) counted(n int64) {
	c.seen.Store(n)
	now := int64(c.now())
	if n >= c.most.Load() || !within(limits.Time(now), c.mostAt.Load(), c.mostAt.Load()+int64(beatLasts)) {
		c.most.Store(n)
		c.mostAt.Store(now)
	}
}

// instances is among how many a limit is divided while Redis is away.
func (c *Cluster) instances() int { return int(c.most.Load()) }

// now is the time by which leases are kept.
func (c *Cluster) now() limits.Time {
	if c.o.fake != nil {
		return c.o.fake()
	}
	return c.o.Clock.Now()
}

// clockText is the first argument of every script: empty, for Redis' own clock.
func (c *Cluster) clockText() string {
	if c.o.fake != nil {
		return formatTime(c.o.fake())
	}
	return ""
}

// learnClock notes what Redis' clock says.
func (c *Cluster) learnClock(text string) {
	if at, err := parseTime(text); err == nil {
		c.offset.Store(int64(at - c.now()))
	}
}

// Share gives the limiter of a consumer, fresh and used by nobody yet, a lease
// from Redis. All limiters of one group lie in one slot.
func (c *Cluster) Share(now limits.Time, group, key string, l *limits.Limiter) {
	c.share(c.o.Prefix+"{"+url.PathEscape(group)+"}"+url.PathEscape(key), l)
}

// ShareKey is Share for a limiter with an arbitrary key, as descriptors have.
func (c *Cluster) ShareKey(now limits.Time, key string, l *limits.Limiter) {
	sum := sha256.Sum256([]byte(key))
	c.share(c.o.Prefix+"{"+base64.RawURLEncoding.EncodeToString(sum[:16])+"}", l)
}

func (c *Cluster) share(key string, limiter *limits.Limiter) {
	if !shareable(limiter.Spec()) {
		return
	}
	l := &limit{cluster: c, key: key, holder: c.id, known: noteOf(limiter.State())}
	l.account.session = c.session.Add(1)
	limiter.Lend(&l.lease, l)
	l.spec, l.specText = limiter.Spec(), specText(limiter.Spec())
}

// Close gives back what this instance holds and disconnects.
func (c *Cluster) Close() error {
	c.closing.Do(func() {
		c.stop()
		c.running.Wait()
		c.mu.Lock()
		all := c.pending
		c.pending = nil
		for l := range c.active {
			all = append(all, l)
		}
		c.mu.Unlock()
		now := c.now()
		for len(all) > 0 {
			n := min(len(all), batch)
			for _, l := range all[:n] {
				l.closing.Store(true)
			}
			c.exchange(context.Background(), now, all[:n])
			all = all[n:]
		}
		c.closed.Store(true)
		c.beat(context.Background(), true)
		if client := c.client.Load(); client != nil {
			(*client).Close()
		}
	})
	return nil
}
