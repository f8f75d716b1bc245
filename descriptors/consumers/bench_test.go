package consumers_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/limits"
)

// many returns a registry of n consumers with a token and a limit of its own
// each, and their secrets.
func many(tb testing.TB, n int) (*consumers.Registry, []string) {
	tb.Helper()
	secrets := make([]string, n)
	for i := range secrets {
		secrets[i] = consumers.NewToken()
	}
	r := consumers.NewRegistry(consumers.RegistryOptions{Default: list(tb, `"20/s"`)})
	own := make([]consumers.Limits, 1000)
	for i := range own {
		own[i] = list(tb, fmt.Sprintf(`"%d/s"`, i+1))
	}
	err := r.Load(start, nil, func(yield func(consumers.Consumer, error) bool) {
		for i, s := range secrets {
			c := consumers.Consumer{ID: fmt.Sprintf("consumer-%07d", i), Limits: own[i%len(own)], Tokens: []consumers.Token{token("prod", s)}}
			if !yield(c, nil) {
				return
			}
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return r, secrets
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemoryOfConsumers bounds what a consumer costs: before its first request
// a record, after it its limiters too.
func TestMemoryOfConsumers(t *testing.T) {
	const n = 50_000
	secrets := heap()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	objects := m.HeapObjects
	r, tokens := many(t, n)
	idle := heap() - secrets - n*(16+64) // of which the secrets themselves, kept by this test
	for _, s := range tokens {
		r.Resolve(start, s)
	}
	active := heap() - secrets - n*(16+64)
	t.Logf("bytes per consumer: %d idle, %d after its first request", idle/n, active/n)
	if idle/n > 140 || active/n > 240 {
		t.Errorf("a consumer costs %d bytes idle and %d in use, want at most 140 and 240", idle/n, active/n)
	}
	runtime.ReadMemStats(&m)
	if each := float64(m.HeapObjects-objects) / n; each > 1.8 { // 1 is its secret, which this test keeps
		t.Errorf("a consumer in use costs the collector %.2f objects, those of the indexes included, want at most 0.8", each-1)
	}
	runtime.KeepAlive(r)
	runtime.KeepAlive(tokens)
}

// TestMemoryOfGraces bounds what it costs more that a restart must know of each
// token's grace: at once, while it is parked, and after it was looked at again.
func TestMemoryOfGraces(t *testing.T) {
	const n = 20_000
	used := func(grace time.Duration) (each [3]int64) {
		r, secrets := many(t, n)
		r.SetOptions(start, consumers.RegistryOptions{WarmUp: limits.WarmUp{Grace: grace}, Idle: time.Hour})
		before := int64(heap())
		told := 0
		for i, later := range []time.Duration{0, time.Second, 10 * time.Minute} {
			now := start.Add(later)
			for _, s := range secrets {
				take(t, r, now, s, 1)
			}
			if i > 0 {
				told += len(r.Unsaved(now))
			}
			each[i] = (int64(heap()) - before) / n
		}
		want := 0
		if grace > 0 {
			want = 2 * n // when it began, and that it was used since
		}
		if told != want {
			t.Errorf("with a grace of %v %d states were told, want %d", grace, told, want)
		}
		runtime.KeepAlive(r)
		runtime.KeepAlive(secrets)
		return each
	}
	without, with := used(0), used(time.Second)
	for i := range with {
		if more := with[i] - without[i]; more > 80 {
			t.Errorf("look %d: a token with a grace costs %d bytes more, want at most 80", i, more)
		}
	}
	t.Logf("bytes for each token that has called: %d without a grace, %d with one", without, with)
}

// TestMemoryAfterChanges: that the limit of all was changed leaves no more behind
// than of those whose seats are not used again yet, however often it was.
func TestMemoryAfterChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const n = 150_000
	secrets := make([]string, n)
	for i := range secrets {
		secrets[i] = fmt.Sprintf("secret-%07d", i)
	}
	r := consumers.NewRegistry(consumers.RegistryOptions{})
	if err := r.Load(start, map[string]consumers.Plan{"p": {Limits: list(t, `"10/s"`)}}, func(yield func(consumers.Consumer, error) bool) {
		for i, s := range secrets {
			if !yield(consumers.Consumer{ID: fmt.Sprintf("consumer-%07d", i), Plan: "p", Tokens: []consumers.Token{token("prod", s)}}, nil) {
				return
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		take(t, r, start, s, 3)
	}
	change := func(rate string) uint64 {
		if err := r.SetPlans(start, map[string]consumers.Plan{"p": {Limits: list(t, rate)}}); err != nil {
			t.Fatal(err)
		}
		settle(r)
		return heap()
	}
	before := heap()
	once := change(`"20/s"`)
	change(`"30/s"`)
	thrice := change(`"10/s"`)
	held := change(`[{"rate":"10/s","max_wait":"1s"}]`) // which counts as before
	const waiting = 1 << 16 * 300                       // bytes of the seats that wait
	if once > before+waiting || max(thrice, held) > once+once/20 {
		t.Errorf("%d bytes are %d after a change of all limits and %d after three, want at most %d more", before, once, max(thrice, held), waiting)
	}
	t.Logf("%d bytes, %d after a change, %d after three, %d after one that counts alike", before, once, thrice, held)
	for _, s := range secrets[:100] {
		if got := take(t, r, start, s, 100); got != 7 {
			t.Errorf("after changes there and back %d of 10/s were admitted, want the 7 that are left", got)
		}
	}
	runtime.KeepAlive(r)
}

func TestResolveAllocatesNothing(t *testing.T) {
	r, tokens := many(t, 1000)
	for _, s := range tokens {
		r.Resolve(start, s)
	}
	unknown := consumers.NewToken()
	for name, credential := range map[string]string{"known": tokens[7], "unknown": unknown, "malformed": "tg_x", "somebody else's": "sk_live_0123456789012345678901234567890123456789012345678901234567890123456789"} {
		if n := testing.AllocsPerRun(100, func() { r.Resolve(start, credential) }); n != 0 {
			t.Errorf("%s: Resolve allocates %v times", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { r.Consumer(start, "consumer-0000001") }); n != 0 {
		t.Errorf("Consumer allocates %v times", n)
	}
}

func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		r, tokens := many(b, n)
		for _, s := range tokens {
			r.Resolve(start, s)
		}
		b.Run(fmt.Sprintf("hot/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Resolve(start, tokens[n/2])
			}
		})
		b.Run(fmt.Sprintf("cold/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			rng := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				r.Resolve(start, tokens[rng.IntN(n)])
			}
		})
		b.Run(fmt.Sprintf("cold-parallel/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for pb.Next() {
					r.Resolve(start, tokens[rng.IntN(n)])
				}
			})
		})
		b.Run(fmt.Sprintf("unknown/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			guess := consumers.NewToken()
			for b.Loop() {
				r.Resolve(start, guess)
			}
		})
		b.Run(fmt.Sprintf("put/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			c := consumers.Consumer{ID: fmt.Sprintf("consumer-%07d", n/2), Tokens: []consumers.Token{token("prod", tokens[n/2])}}
			own := []consumers.Limits{list(b, `"7/s"`), list(b, `"8/s"`)}
			i := 0
			for b.Loop() {
				c.Limits = own[i%2]
				i++
				if err := r.Put(start.Add(1), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLoad reports what a million consumers cost.
func BenchmarkLoad(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		before := heap()
		r, tokens := many(b, n)
		secrets := uint64(n * (16 + 64))
		b.ReportMetric(float64(heap()-before-secrets)/n, "B/consumer-idle")
		for _, s := range tokens {
			r.Resolve(limits.Time(start), s)
		}
		b.ReportMetric(float64(heap()-before-secrets)/n, "B/consumer-in-use")
		runtime.KeepAlive(r)
		runtime.KeepAlive(tokens)
	}
}
