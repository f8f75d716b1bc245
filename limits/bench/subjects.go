package main

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"go.uber.org/ratelimit"
	"golang.org/x/time/rate"

	"github.com/tollgate-dev/tollgate/limits"
)

// A subject is a limiter under test: take asks for one request of a key and
// returns whether it was admitted. Subjects that know only one key ignore it.
type subject struct {
	name string
	take func(key string) bool

	perKey float64 // bytes in memory for each key
}

// perSecond is what is admitted where all is admitted. uber's limiter sleeps
// when a request comes too early; at one per nanosecond none does.
const perSecond = 1_000_000_000

func spec(l limits.Limit) *limits.Spec {
	s, err := limits.Compile(l)
	if err != nil {
		panic(err)
	}
	return s
}

// tollgate is one limiter of a kind; the clock is read at every decision.
func tollgate(l limits.Limit) subject {
	clock := limits.NewClock()
	lim := limits.New(spec(l), clock.Now())
	return subject{name: "tollgate " + string(l.Kind), take: func(string) bool {
		return lim.Take(clock.Now(), 1).Allowed
	}}
}

func xtime(n rate.Limit, burst int) subject {
	l := rate.NewLimiter(n, burst)
	return subject{name: "x/time/rate", take: func(string) bool { return l.Allow() }}
}

func uber() subject {
	l := ratelimit.New(perSecond)
	return subject{name: "uber-go/ratelimit", take: func(string) bool { l.Take(); return true }}
}

func sethvargo(n uint64, interval time.Duration) subject {
	store, err := memorystore.New(&memorystore.Config{Tokens: n, Interval: interval, SweepInterval: time.Hour})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	return subject{name: "sethvargo/go-limiter", take: func(key string) bool {
		_, _, _, ok, err := store.Take(ctx, key)
		return ok && err == nil
	}}
}

// gcra is throttled's limiter; keys 0 means a map without bound.
func gcra(keys int, r throttled.Rate, burst int) subject {
	store, err := memstore.NewCtx(keys)
	if err != nil {
		panic(err)
	}
	l, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: r, MaxBurst: burst})
	if err != nil {
		panic(err)
	}
	name := "throttled"
	if keys > 0 {
		name += " with LRU"
	}
	ctx := context.Background()
	return subject{name: name, take: func(key string) bool {
		limited, _, err := l.RateLimitCtx(ctx, key, 1)
		return !limited && err == nil
	}}
}

// allAdmitted are the limiters where everything passes.
func allAdmitted() []subject {
	const burst = 1 << 30
	return []subject{
		tollgate(limits.Limit{Kind: limits.Rate, N: perSecond, Period: time.Second, Burst: burst}),
		xtime(perSecond, burst),
		uber(),
		sethvargo(1<<62, time.Hour),
		gcra(0, throttled.PerDuration(perSecond, time.Second), burst),
	}
}

// allRefused are the limiters where nothing passes but the first. uber's has
// no such answer: it sleeps.
func allRefused() []subject {
	return []subject{
		tollgate(limits.Limit{Kind: limits.Rate, N: 1, Period: time.Hour, Burst: 1}),
		xtime(rate.Every(time.Hour), 1),
		sethvargo(1, time.Hour),
		gcra(0, throttled.PerHour(1), 0),
	}
}

// table is Tollgate's table of limiters.
func table(size int) subject {
	clock := limits.NewClock()
	s := spec(limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second, Burst: 100})
	t := limits.NewTable(limits.TableOptions{Size: size})
	return subject{name: "tollgate table", take: func(key string) bool {
		now := clock.Now()
		return t.LimiterString(now, key, s).Take(now, 1).Allowed
	}}
}

// lru is what the table would be with golang-lru: the same limiters in 256
// shards, each under a lock.
func lru(size int) subject {
	clock := limits.NewClock()
	s := spec(limits.Limit{Kind: limits.Rate, N: 100, Period: time.Second, Burst: 100})
	type shard struct {
		sync.Mutex
		lru *simplelru.LRU[string, *limits.Limiter]
	}
	shards := make([]shard, 256)
	for i := range shards {
		shards[i].lru, _ = simplelru.NewLRU[string, *limits.Limiter](max(64, 2*size/len(shards)), nil)
	}
	seed := maphash.MakeSeed()
	return subject{name: "tollgate in golang-lru", take: func(key string) bool {
		now := clock.Now()
		sh := &shards[maphash.String(seed, key)%256]
		sh.Lock()
		l, ok := sh.lru.Get(key)
		if !ok {
			l = limits.New(s, now)
			sh.lru.Add(key, l)
		}
		sh.Unlock()
		return l.Take(now, 1).Allowed
	}}
}

// xtimeMap is the usual way to give each key an x/time limiter. It never
// forgets one.
func xtimeMap() subject {
	var m sync.Map
	return subject{name: "x/time/rate in sync.Map", take: func(key string) bool {
		l, ok := m.Load(key)
		if !ok {
			l, _ = m.LoadOrStore(key, rate.NewLimiter(100, 100))
		}
		return l.(*rate.Limiter).Allow()
	}}
}
