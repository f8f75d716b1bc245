package redis

import (
	"context"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// TestConformance runs the suite that every algorithm passes on every kind that is
// shared, in both modes.
func TestConformance(t *testing.T) {
	s := redistest.Start(t)
	for _, mode := range []Mode{Strict, Leased} {
		for name, l := range kinds() {
			t.Run(string(mode)+"/"+name, func(t *testing.T) {
				t.Parallel()
				clock := newFake()
				o := Options{Addresses: []string{s.Addr}, Mode: mode, Prefix: "suite/" + string(mode) + "/" + name, fake: clock.now, Timeout: time.Minute}
				c, other := join(t, o), join(t, o)
				keys, made := map[*limits.Limiter]string{}, 0
				limitstest.RunShared(t, limitstest.Shared{
					New: func(s *limits.Spec, _ limits.Time) *limits.Limiter {
						made++
						l := c.limiter(s, "g", itoa(made))
						keys[l] = itoa(made)
						return l
					},
					Again: func(l *limits.Limiter, s *limits.Spec, _ limits.Time) *limits.Limiter {
						return other.limiter(s, "g", keys[l])
					},
					Taker: both{c, other}, Careful: mode == Leased,
					At: func(now limits.Time) { clock.at.Store(int64(now)) },
					Settle: func(l *limits.Limiter) {
						if own := limitOf(l); own != nil {
							own.Ask(context.Background(), 0, 0)
						}
					},
				}, l)
			})
		}
	}
}

// both has limiters decided about by the instance that they are of.
type both [2]*Cluster

func (b both) of(claims []limits.Claim) *Cluster {
	if l := limitOf(claims[0].Limiter); l != nil {
		return l.cluster
	}
	return b[0]
}

func (b both) TakeAll(ctx context.Context, q *limits.Queue, now limits.Time, claims []limits.Claim) (int, error) {
	return b.of(claims).TakeAll(ctx, q, now, claims)
}

func (b both) PeekAll(ctx context.Context, now limits.Time, claims []limits.Claim) (int, error) {
	return b.of(claims).PeekAll(ctx, now, claims)
}
