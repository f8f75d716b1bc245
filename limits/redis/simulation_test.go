package redis

import (
	"context"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/limitstest"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

var (
	simKeys = flag.Int("sim-keys", 2000, "keys of the simulation")
	simRate = flag.Int("sim-rate", 20, "its requests every 5 ms")
	simFor  = flag.Duration("sim-for", 3*time.Second, "the fake time that it lasts, once every key was used")
)

// world is a simulation: instances, keys that are limited, and the models that
// say what each limit admits at most.
type world struct {
	clock     *fakeClock
	rng       *rand.Rand
	spec      *limits.Spec
	instances []*Cluster
	limiters  []map[int]*limits.Limiter // by instance
	keys      []key
	hotCalls  int // about the ten keys in most use
}

// key has what one key admitted, and might have.
type key struct {
	bound, most                 *limitstest.Model
	decided, admitted, possible int64
	beyond                      int64 // admitted though the limit was used up
}

type request struct {
	instance, key int
	claims        []limits.Claim
}

// TestSimulation has 100 instances share the limits of many keys, each 10/s, of
// which a few are in much use. Run it with a million keys:
//
//	go test ./limits/redis -run Simulation -v -timeout 30m -args -sim-keys 1000000 -sim-rate 500
func TestSimulation(t *testing.T) {
	s := redistest.Start(t)
	w := &world{clock: newFake(), rng: rand.New(rand.NewPCG(1, 1)), keys: make([]key, *simKeys),
		spec: compile(t, limits.Limit{Kind: limits.Rate, N: 10, Period: time.Second})}
	for range 100 {
		c := join(t, Options{Addresses: []string{s.Addr}, fake: w.clock.now, Timeout: 30 * time.Second})
		c.stop() // by hand
		c.running.Wait()
		w.instances, w.limiters = append(w.instances, c), append(w.limiters, map[int]*limits.Limiter{})
	}
	for i := range w.keys {
		w.keys[i].bound, w.keys[i].most = limitstest.NewModel(w.spec.Limit()), limitstest.NewModel(w.spec.Limit())
	}
	// Every key is used once; then half of the traffic goes to ten keys.
	const tick = 5 * time.Millisecond
	perTick := *simRate
	for i := 0; i < len(w.keys); i += perTick {
		w.clock.advance(tick)
		w.serve(i, min(i+perTick, len(w.keys)), func(i int) int { return i })
	}
	w.hotCalls = 0
	touched := w.calls()
	hot := func(i int) int {
		if w.rng.IntN(2) == 0 {
			return w.rng.IntN(10)
		}
		return w.rng.IntN(len(w.keys))
	}
	end := w.clock.now().Add(*simFor)
	for w.clock.now() < end {
		w.clock.advance(tick)
		w.serve(0, perTick, hot)
	}
	w.report(t, touched)
}

func (w *world) calls() (n int64) {
	for _, c := range w.instances {
		n += c.stats.calls.Load()
	}
	return n
}

// serve decides about some requests that come at one instant: first here, then,
// where Redis must be asked, after it was.
func (w *world) serve(from, to int, pick func(int) int) {
	var waiting []request
	for i := from; i < to; i++ {
		r := request{instance: w.rng.IntN(len(w.instances)), key: pick(i)}
		c, own := w.instances[r.instance], w.limiters[r.instance]
		l := own[r.key]
		if l == nil {
			l = c.limiter(w.spec, itoa(r.key), "k")
			own[r.key] = l
		}
		r.claims = []limits.Claim{{Limiter: l, N: 1}}
		k := &w.keys[r.key]
		k.decided++
		if k.most.Take(w.clock.now(), 1) {
			k.possible++
		}
		if !w.decide(&r, k) {
			waiting = append(waiting, r)
		}
	}
	for range 3 {
		w.exchange()
		var still []request
		for _, r := range waiting {
			if !w.decide(&r, &w.keys[r.key]) {
				still = append(still, r)
			}
		}
		if waiting = still; len(waiting) == 0 {
			break
		}
	}
	w.exchange()
}

func (w *world) decide(r *request, k *key) bool {
	refused := limits.Try(w.clock.now(), r.claims)
	if r.claims[0].Decision.Pending {
		return false
	}
	if refused < 0 {
		k.admitted++
		if !k.bound.Take(w.clock.now(), 1) {
			k.beyond++
		}
	}
	return true
}

// exchange does what instances do in the background.
func (w *world) exchange() {
	now := w.clock.now()
	for _, c := range w.instances {
		if int64(now)/int64(5*time.Millisecond)%4 == 0 {
			c.slice(now)
		}
		if int64(now)/int64(5*time.Millisecond)%20 == 0 {
			c.renew(now)
		}
		c.mu.Lock()
		some := c.pending
		c.pending = nil
		c.mu.Unlock()
		for _, l := range some {
			if len(l.key) == len("tollgate{0}k") {
				w.hotCalls++
			}
		}
		for len(some) > 0 {
			n := min(len(some), batch)
			c.exchange(context.Background(), now, some[:n])
			some = some[n:]
		}
	}
}

func (w *world) report(t *testing.T, touched int64) {
	var all, hot key
	for i := range w.keys {
		for _, sum := range []*key{&all, &hot} {
			if sum == &hot && i >= 10 {
				continue
			}
			sum.decided += w.keys[i].decided
			sum.admitted += w.keys[i].admitted
			sum.possible += w.keys[i].possible
			sum.beyond += w.keys[i].beyond
		}
	}
	calls := w.calls()
	t.Logf("%d keys, 100 instances, %d decisions", len(w.keys), all.decided)
	t.Logf("beyond the limit: %d; usable: %.2f%% of all, %.2f%% of the ten keys in most use", all.beyond,
		100*float64(all.admitted)/float64(all.possible), 100*float64(hot.admitted)/float64(hot.possible))
	t.Logf("calls per decision: %.3f (%.3f once every key is known)", float64(calls)/float64(all.decided),
		float64(calls-touched)/float64(all.decided-int64(len(w.keys))))
	t.Logf("calls per decision about the ten keys: %.4f", float64(w.hotCalls)/float64(hot.decided-10))
	if all.beyond > 0 {
		t.Errorf("%d were admitted beyond the limit", all.beyond)
	}
	if all.admitted*100 < all.possible*95 || hot.admitted*100 < hot.possible*95 {
		t.Errorf("%+v and %+v: less than 95 %% usable", all, hot)
	}
}
