package upstreamstest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// RTT is how long an answer of the fake takes to come back.
const RTT = 20 * time.Millisecond

// Bench is a registry with one upstream before a fake.
type Bench struct {
	Clock    *limits.Clock
	Registry *upstreams.Registry
	Upstream *upstreams.Upstream
	Fake     *Fake

	running sync.WaitGroup
	mu      sync.Mutex
	refused []upstreams.Verdict
	passed  int
}

// NewBench returns a bench that is closed at the test's end. The clock of the
// options is set.
func NewBench(t testing.TB, c *upstreams.Config, f *Fake, o upstreams.Options) *Bench {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	b := &Bench{Clock: limits.NewClock(), Fake: f}
	o.Clock = b.Clock
	b.Registry = upstreams.New(o)
	b.Registry.Configure([]*upstreams.Config{c})
	b.Upstream = b.Registry.ByID(c.ID)
	return b
}

// End lets nobody wait any longer, and waits for those who are on their way.
func (b *Bench) End() {
	_ = b.Registry.Close()
	b.running.Wait()
}

// Call sends one request the whole way and reports whether it was let pass.
func (b *Bench) Call(ctx context.Context, r upstreams.Request) bool {
	r.Cost = max(r.Cost, 1)
	v, err := b.Upstream.Admit(ctx, r)
	b.mu.Lock()
	if err != nil || v.Reason != "" {
		b.refused = append(b.refused, v)
		b.mu.Unlock()
		return false
	}
	b.passed++
	b.mu.Unlock()
	if b.Fake == nil {
		return true
	}
	time.Sleep(RTT / 2)
	a := b.Fake.Ask()
	time.Sleep(RTT / 2)
	b.Upstream.Observe(b.Clock.Now(), a)
	return true
}

// Start sends one in the background.
func (b *Bench) Start(r upstreams.Request) {
	b.running.Go(func() { b.Call(context.Background(), r) })
}

// Wait waits for all that were started.
func (b *Bench) Wait() { b.running.Wait() }

// Passed returns how many requests were let pass.
func (b *Bench) Passed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.passed
}

// Refused returns the verdicts of those that were not.
func (b *Bench) Refused() []upstreams.Verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]upstreams.Verdict(nil), b.refused...)
}

// Status returns how the upstream stands.
func (b *Bench) Status() upstreams.Status { return b.Upstream.Status(b.Clock.Now()) }

// Load offers requests until a time.
type Load func(b *Bench, until time.Time)

// Loads are for an upstream that allows n per period: bursts of several
// periods' worth, a trickle of 70 % of it, and both together at half of it.
func Loads(n int, period time.Duration) map[string]Load {
	each := period / time.Duration(n)
	return map[string]Load{
		"burst": func(b *Bench, until time.Time) {
			for time.Now().Before(until) {
				for range 9 * n / 2 {
					b.Start(upstreams.Request{})
				}
				time.Sleep(4 * period)
			}
		},
		"trickle": func(b *Bench, until time.Time) {
			for time.Now().Before(until) {
				b.Start(upstreams.Request{})
				time.Sleep(each * 10 / 7)
			}
		},
		"mixed": func(b *Bench, until time.Time) {
			for i := 0; time.Now().Before(until); i++ {
				if i%(2*n) == 0 {
					for range n {
						b.Start(upstreams.Request{})
					}
				}
				b.Start(upstreams.Request{})
				time.Sleep(2 * each)
			}
		},
	}
}
