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

// pausesEvery is how often the pauses of others are asked for.
const pausesEvery = 50 * time.Millisecond

// longestPause bounds what is believed of a pause in Redis.
const longestPause = 366 * 24 * time.Hour

// Pauses shares the pauses of upstreams. Make it with [Cluster.Pauses]. Its
// methods are safe for concurrent use.
type Pauses struct {
	cluster *Cluster
	ids     func() []string
	heard   func(id string, st pressure.State)
	signal  chan struct{}

	mu     sync.Mutex // guards what follows
	told   map[string]pressure.State
	known  map[string]string // by id, which write was heard last
	broken map[string]bool   // whose value cannot be meant
}

// Pauses begins to share the pauses of the upstreams that ids names. heard is
// given what another instance has seen. It ends with the Cluster.
func (c *Cluster) Pauses(ids func() []string, heard func(id string, st pressure.State)) *Pauses {
	p := &Pauses{cluster: c, ids: ids, heard: heard, signal: make(chan struct{}, 1),
		told: map[string]pressure.State{}, known: map[string]string{}, broken: map[string]bool{}}
	c.running.Go(func() { p.work(c.ending) })
	return p
}

// Tell hands a pause to the other instances. It does not wait.
func (p *Pauses) Tell(id string, st pressure.State) {
	p.mu.Lock()
	p.told[id] = st
	p.mu.Unlock()
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

func (p *Pauses) work(ctx context.Context) {
	t := time.NewTicker(pausesEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.signal:
		case <-t.C:
		}
		p.exchange(ctx)
	}
}

// exchange tells what is to be told, again until Redis has it, and asks for the rest.
func (p *Pauses) exchange(ctx context.Context) {
	c, ids := p.cluster, p.ids()
	key := func(id string) string { return c.o.Prefix + "{upstreams}" + url.PathEscape(id) }
	if len(ids) == 0 || c.part(key("")).down.Load() {
		return
	}
	now := c.now()
	calls := make([]call, len(ids))
	sent := make([]pressure.State, len(ids))
	p.mu.Lock()
	for i, id := range ids {
		st := p.told[id]
		sent[i] = st
		// Rounded up: a pause may be longer elsewhere, never shorter.
		more := max(0, (st.Until.Sub(now)+time.Millisecond-1)/time.Millisecond)
		ago := max(0, now.Sub(st.Last)/time.Millisecond)
		if st.Last == 0 {
			more, ago = 0, 0
		}
		reason := url.QueryEscape(st.Reason)
		calls[i] = call{c.scripts.pause, []string{key(id)}, []string{c.id, strconv.FormatInt(int64(more), 10), strconv.FormatInt(int64(ago), 10), strconv.Itoa(min(st.Violations, 999_999)), reason[:min(len(reason), 300)]}}
	}
	p.mu.Unlock()
	for i, a := range c.run(ctx, calls) {
		if a.err != nil && !isCorrupt(a.err) {
			if ctx.Err() == nil {
				c.fault(a.err, key(ids[i]))
			}
			return
		}
		p.take(ids[i], calls[i].keys[0], now, sent[i], a)
	}
}

// take reads an answer, and hands on what is new.
func (p *Pauses) take(id, key string, now limits.Time, sent pressure.State, a answer) {
	st, write, err := readPause(now, a)
	p.mu.Lock()
	if p.told[id] == sent && sent.Until <= now {
		delete(p.told, id) // over; until then a store that forgets is reminded
	}
	tell := err != nil && !p.broken[id]
	p.broken[id] = err != nil
	fresh := st.Last != 0 && write != p.known[id]
	if fresh {
		p.known[id] = write
	}
	p.mu.Unlock()
	c := p.cluster
	if tell {
		c.stats.corrupt.Add(1)
		if c.o.Corrupt != nil {
			c.o.Corrupt(key, err)
		}
	}
	if by, err := a.text(1); fresh && err == nil && by != c.id {
		p.heard(id, st)
	}
}

func (a answer) text(i int) (string, error) {
	if i >= len(a.values) {
		return "", errAnswer
	}
	return a.values[i].ToString()
}

// readPause returns the pause in an answer, and which write it was.
func readPause(now limits.Time, a answer) (st pressure.State, write string, err error) {
	if a.err != nil || len(a.values) == 0 {
		return st, "", errors.Join(errAnswer, a.err)
	}
	if bad, err := a.values[0].AsInt64(); err != nil || bad != 0 {
		return st, "", fmt.Errorf("%w: not a pause", errAnswer)
	}
	if len(a.values) == 1 {
		return st, "", nil
	}
	var s [7]string
	for i := 1; i < len(s); i++ {
		if s[i], err = a.text(i); err != nil {
			return st, "", err
		}
	}
	more, err1 := strconv.ParseInt(s[3], 10, 64)
	ago, err2 := strconv.ParseInt(s[4], 10, 64)
	n, err3 := strconv.Atoi(s[5])
	reason, err4 := url.QueryUnescape(s[6])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return st, "", fmt.Errorf("%w: %w", errAnswer, err)
	}
	if more > longestPause.Milliseconds() || ago < 0 || ago > longestPause.Milliseconds() {
		return st, "", fmt.Errorf("%w: a pause of %d ms", errAnswer, more)
	}
	last := now.Add(-time.Duration(ago) * time.Millisecond)
	return pressure.State{Until: now.Add(time.Duration(more) * time.Millisecond), Since: last, Last: last, Violations: n, Reason: reason}, s[1] + " " + s[2], nil
}
