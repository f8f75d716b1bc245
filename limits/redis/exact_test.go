package redis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// wire is what lies between instances and Redis. Each call goes through, or is
// lost, or is made but its answer is lost, or is made later, out of order.
type wire struct {
	rng    *rand.Rand
	faults []string // of which each call suffers one, if it suffers any
	often  int      // one call in so many; 0: none
	late   []func() []answer
}

var errLost = errors.New("lost")

func (w *wire) carry(calls []call, send func() []answer) []answer {
	if w.often == 0 || w.rng.IntN(w.often) > 0 {
		return send()
	}
	switch w.faults[w.rng.IntN(len(w.faults))] {
	case "not sent":
	case "answer lost":
		send()
	case "late":
		w.late = append(w.late, send)
	}
	lost := make([]answer, len(calls))
	for i := range lost {
		lost[i].err = errLost
	}
	return lost
}

// deliver makes some of the calls that are late.
func (w *wire) deliver() {
	for len(w.late) > 0 && w.rng.IntN(3) > 0 {
		i := w.rng.IntN(len(w.late))
		send := w.late[i]
		w.late = append(w.late[:i], w.late[i+1:]...)
		send()
	}
}

// TestSpendingIsAccountedFor has three instances take from one limit while calls
// to Redis suffer one thing or another, and Redis itself. Once all is over, it
// knows exactly what was admitted, with it and without it; never less. Where it
// loses data and answers at a time, or data and a lease is over, it may know of more.
func TestSpendingIsAccountedFor(t *testing.T) {
	s := redistest.Start(t)
	type loss func(key, old string)
	flush := func(key, _ string) { s.CLI("del", key) }
	older := func(key, old string) {
		if old != "" {
			s.CLI("set", key, old)
		}
	}
	for name, c := range map[string]struct {
		faults []string
		silent time.Duration // how long an instance that cannot reach Redis waits
		loses  loss
		over   bool // more may be counted than was used
	}{
		"all goes well":           {},
		"not sent":                {faults: []string{"not sent"}},
		"answer lost":             {faults: []string{"answer lost"}},
		"late":                    {faults: []string{"late"}},
		"all three":               {faults: []string{"not sent", "answer lost", "late"}},
		"all three for long":      {faults: []string{"not sent", "answer lost", "late"}, silent: 4 * time.Second},
		"beyond a lease":          {faults: []string{"not sent", "answer lost", "late"}, silent: 7 * time.Second, over: true},
		"flushed":                 {loses: flush},
		"older data":              {loses: older},
		"flushed while not sent":  {loses: flush, faults: []string{"not sent"}},
		"older while not sent":    {loses: older, faults: []string{"not sent"}},
		"flushed while all three": {loses: flush, faults: []string{"not sent", "answer lost", "late"}, over: true},
		"older while all three":   {loses: older, faults: []string{"not sent", "answer lost", "late"}, over: true},
		"flushed, beyond a lease": {loses: flush, faults: []string{"not sent"}, silent: 7 * time.Second, over: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				w := &wire{rng: rand.New(rand.NewPCG(seed, 7)), faults: c.faults}
				clock := newFake()
				o := Options{Addresses: []string{s.Addr}, fake: clock.now, wire: w.carry, Prefix: fmt.Sprintf("exact/%s/%d", strings.ReplaceAll(name, " ", ""), seed), Instances: 3, Timeout: time.Minute}
				all, own := threeByHand(t, compile(t, limits.Limit{Kind: limits.Quota, N: 3000, Calendar: limits.Day}), o)
				key := limitOf(own[0]).key
				used, old := int64(0), ""
				if len(c.faults) > 0 {
					w.often = 3
				}
				for i := range 600 {
					clock.advance(time.Duration(w.rng.IntN(30)) * time.Millisecond)
					who := w.rng.IntN(3)
					n := int64(1 + w.rng.IntN(3))
					claims := []limits.Claim{{Limiter: own[who], N: n}}
					refused := limits.Try(clock.now(), claims)
					for range 3 {
						if claims[0].Decision.Pending {
							step(all)
							refused = limits.Try(clock.now(), claims)
						}
					}
					if refused < 0 && !claims[0].Decision.Pending {
						if used += n; w.rng.IntN(10) == 0 {
							own[who].Refund(clock.now(), n)
							used -= n
						}
					}
					step(all)
					w.deliver()
					if i%97 == 50 && c.loses != nil {
						c.loses(key, old)
					}
					if i%97 == 20 {
						old = s.CLI("get", key)
					}
					if down := &all[who].links[0]; down.down.Load() && w.rng.IntN(4) == 0 {
						clock.advance(c.silent)
						all[who].heal(down)
					}
				}
				w.often = 0
				for len(w.late) > 0 {
					w.deliver()
				}
				for _, i := range all {
					i.heal(&i.links[0])
				}
				for range 100 { // all is told, and what lies in hand goes back
					clock.advance(100 * time.Millisecond)
					step(all)
				}
				counted, err := strconv.ParseInt(strings.Fields(s.CLI("get", key))[6], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				if counted < used || counted > used && !c.over {
					t.Errorf("seed %d: Redis counts %d of %d that were admitted: %s", seed, counted, used, s.CLI("get", key))
				}
				if counted > used+used/2 {
					t.Errorf("seed %d: Redis counts %d of %d that were admitted: far too much", seed, counted, used)
				}
				for _, i := range all {
					if i.Stats().Corrupt > 0 || i.Stats().Leases > 0 {
						t.Errorf("seed %d: %+v", seed, i.Stats())
					}
				}
			}
		})
	}
}
