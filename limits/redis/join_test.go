package redis

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// patience is how long a test waits for what should come much sooner. A sentinel
// alone does nothing for half a minute after it was not heard of for two seconds.
const patience = 2 * time.Minute

// eventually polls for what another process does.
func eventually(t testing.TB, within time.Duration, f func() bool, why func() string) {
	t.Helper()
	within = max(within, patience)
	for end := time.Now().Add(within); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, why())
		}
	}
}

// fakeClock is the time of decisions and of Redis.
type fakeClock struct{ at atomic.Int64 }

func newFake() *fakeClock {
	c := new(fakeClock)
	c.at.Store(1_699_920_000_000_000_000)
	return c
}

func (c *fakeClock) now() limits.Time        { return limits.Time(c.at.Load()) }
func (c *fakeClock) advance(d time.Duration) { c.at.Add(int64(d)) }

// join makes an instance; what o leaves open is set up for a test.
func join(t *testing.T, o Options) *Cluster {
	t.Helper()
	if o.Clock == nil {
		o.Clock = limits.NewClock()
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute // a test machine may be busy, and a quarter of that is all that a decision waits for
	}
	c, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func compile(t testing.TB, l limits.Limit) *limits.Spec {
	t.Helper()
	s, err := limits.Compile(l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// limiter returns the limiter of a key on an instance.
func (c *Cluster) limiter(s *limits.Spec, group, key string) *limits.Limiter {
	l := limits.New(s, c.now())
	c.Share(c.now(), group, key, l)
	return l
}

// take takes n of one limiter.
func (c *Cluster) take(l *limits.Limiter, n int64) limits.Decision {
	claims := []limits.Claim{{Limiter: l, N: n}}
	_, _ = c.TakeAll(context.Background(), nil, c.now(), claims)
	return claims[0].Decision
}

func itoa(n int) string { return strconv.Itoa(n) }
