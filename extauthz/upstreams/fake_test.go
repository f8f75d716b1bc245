package upstreams_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// fake is an upstream that allows n requests per period, as it counts them, and
// makes each violation wait longer than the one before.
type fake struct {
	model  string // fixed, sliding, idle or bucket
	n      int
	period time.Duration

	mu         sync.Mutex
	taken      []time.Time // in the last period, of sliding; the count of the others
	window     int64
	count      int
	last       time.Time
	penalty    time.Duration // of the first violation; 0: a refusal costs nothing
	blocked    time.Time
	violations int

	passed, refused, early int
}

// ask answers a request as the upstream would.
func (f *fake) ask() upstreams.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Before(f.blocked) {
		f.early++
		f.refused++
		f.violate(now)
		return throttled(f.blocked.Sub(now))
	}
	if !f.takes(now) {
		f.refused++
		f.violate(now)
		return throttled(f.blocked.Sub(now))
	}
	f.passed++
	return upstreams.Answer{Status: 200}
}

func (f *fake) violate(now time.Time) {
	if f.penalty > 0 {
		f.blocked = now.Add(f.penalty << f.violations)
		f.violations++
	}
}

func (f *fake) takes(now time.Time) bool {
	switch f.model {
	case "fixed":
		if w := now.UnixNano() / int64(f.period); w != f.window {
			f.window, f.count = w, 0
		}
	case "sliding":
		for len(f.taken) > 0 && now.Sub(f.taken[0]) >= f.period {
			f.taken = f.taken[1:]
		}
		if f.count = len(f.taken); f.count < f.n {
			f.taken = append(f.taken, now)
		}
	case "idle":
		if now.Sub(f.last) >= f.period {
			f.count = 0
		}
		f.last = now
	}
	f.count++
	return f.count <= f.n
}

// throttled is Keeper's refusal.
func throttled(wait time.Duration) upstreams.Answer {
	body := fmt.Sprintf(`{"error":"throttled","message":"get_secret","retry_after":%s}`, strconv.FormatFloat(wait.Seconds(), 'f', -1, 64))
	return upstreams.Answer{Status: 403, Body: []byte(body)}
}

// header makes an Answer's headers of a map.
func header(h http.Header) func(string) string {
	return func(name string) string { return h.Get(name) }
}

// bench is a registry with one upstream in front of a fake.
type bench struct {
	t        *testing.T
	clock    *limits.Clock
	registry *upstreams.Registry
	up       *upstreams.Upstream
	fake     *fake
	rtt      time.Duration
	running  sync.WaitGroup

	mu      sync.Mutex
	refused []upstreams.Verdict
}

var signals = []upstreams.Signal{{Status: 429}, {Status: 403, Body: "throttled"}, {Status: 503, Header: "retry-after"}}

func window(kind limits.Kind, n int64, period, wait time.Duration, margin float64) upstreams.Limit {
	return upstreams.Limit{Limit: limits.Limit{Kind: kind, N: n, Period: period, MaxWait: wait}, Margin: margin}
}

func newBench(t *testing.T, c upstreams.Config, f *fake, o upstreams.Options) *bench {
	t.Helper()
	c.ID = "keeper"
	if c.Signals == nil {
		c.Signals = signals
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, clock: limits.NewClock(), fake: f, rtt: 20 * time.Millisecond}
	o.Clock = b.clock
	b.registry = upstreams.New(o)
	b.registry.Configure([]*upstreams.Config{&c})
	b.up = b.registry.ByID("keeper")
	t.Cleanup(func() { _ = b.registry.Close() })
	return b
}

// call sends one request the whole way, and reports whether it was let pass.
func (b *bench) call(ctx context.Context, r upstreams.Request) bool {
	if r.Cost == 0 {
		r.Cost = 1
	}
	v, err := b.up.Admit(ctx, r)
	if err != nil || v.Reason != "" {
		b.mu.Lock()
		b.refused = append(b.refused, v)
		b.mu.Unlock()
		return false
	}
	if b.fake == nil {
		return true
	}
	time.Sleep(b.rtt / 2)
	a := b.fake.ask()
	time.Sleep(b.rtt / 2)
	b.up.Observe(b.clock.Now(), a)
	return true
}

// go_ sends it in the background.
func (b *bench) start(r upstreams.Request) {
	b.running.Go(func() { b.call(context.Background(), r) })
}

func (b *bench) status() upstreams.Status { return b.up.Status(b.clock.Now()) }

var _ = pressure.Open
