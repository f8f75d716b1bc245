package upstreams_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
)

// TestBurstOf500 is K-3: five callers with 60 to 140 requests each, all at once.
// Nobody is refused, and while all of them wait they take turns.
func TestBurstOf500(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &upstreamstest.Fake{Model: "idle", N: 100, Period: 10 * time.Second, Penalty: 10 * time.Second}
		b := upstreamstest.NewBench(t, config(limit(limits.IdleReset, 100, 10*time.Second, 2*time.Minute)), f, upstreams.Options{})
		defer b.End()
		// Who comes first is served at once. So that everybody waits, another takes the first batch.
		for range 92 {
			b.Start(upstreams.Request{Caller: "z"})
		}
		synctest.Wait()
		sizes := map[string]int{"a": 60, "b": 80, "c": 100, "d": 120, "e": 140}
		var mu sync.Mutex
		var order []string
		var running sync.WaitGroup
		for name, n := range sizes {
			for range n {
				running.Go(func() {
					if b.Call(context.Background(), upstreams.Request{Caller: name}) {
						mu.Lock()
						order = append(order, name)
						mu.Unlock()
					}
				})
			}
		}
		running.Wait()
		if len(order) != 500 || f.Seen().Refused > 0 {
			t.Fatalf("%d of 500 passed, %d were throttled, want all and none", len(order), f.Seen().Refused)
		}
		// Everybody waited when the next batch began, and 92 passed.
		got := map[string]int{}
		for _, name := range order[:92] {
			got[name]++
		}
		for name, n := range got {
			if part := 92 / float64(len(got)); float64(n) < 0.9*part || float64(n) > 1.1*part {
				t.Errorf("of the second batch %d were %s's: %v, want equal parts, within 10 %%", n, name, got)
			}
		}
	})
}

// A caller that leaves takes nothing, and the one behind it has its turn.
func TestCancelledTakeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstreamstest.NewBench(t, config(upstreams.Limit{Limit: limits.Limit{Kind: limits.Window, N: 10, Period: 10 * time.Second, MaxWait: time.Minute}}), nil, upstreams.Options{})
		defer b.End()
		for range 10 {
			b.Start(upstreams.Request{})
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var left sync.WaitGroup
		for range 50 {
			left.Go(func() { b.Call(ctx, upstreams.Request{}) })
		}
		synctest.Wait()
		start := time.Now()
		for range 10 {
			b.Start(upstreams.Request{})
		}
		synctest.Wait()
		if got := b.Status().Waiting; got != 60 {
			t.Fatalf("%d wait, want 60", got)
		}
		cancel()
		left.Wait()
		b.Wait()
		if got := time.Since(start); got > 10*time.Second {
			t.Errorf("those behind the ones who left passed after %v, want 10s", got)
		}
		if s := b.Status(); s.Counts.Passed != 20 || s.Counts.Left != 50 || s.Waiting != 0 {
			t.Errorf("counts %+v, %d waiting, want 20 passed and 50 left", s.Counts, s.Waiting)
		}
	})
}

// The queue is bounded: what comes on top is refused at once, and a caller that
// fills it does not keep another one out.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(upstreams.Limit{Limit: limits.Limit{Kind: limits.Window, N: 1, Period: time.Second, MaxWait: time.Hour}})
		c.Queue = 20
		b := upstreamstest.NewBench(t, c, nil, upstreams.Options{})
		defer b.End()
		for range 30 {
			b.Start(upstreams.Request{Caller: "greedy"})
		}
		synctest.Wait()
		if s := b.Status(); s.Waiting != 20 || s.Counts.Full != 9 || s.State != upstreams.Held {
			t.Fatalf("%d wait and %d are refused in state %s, want 20 and 9, held", s.Waiting, s.Counts.Full, s.State)
		}
		start := time.Now()
		if !b.Call(t.Context(), upstreams.Request{Caller: "modest"}) {
			t.Fatalf("another caller was refused: %+v", b.Refused()[len(b.Refused())-1])
		}
		if got := time.Since(start); got > 2*time.Second {
			t.Errorf("it waited %v, want its turn after one of the greedy", got)
		}
	})
}

// What cannot pass within max_wait, or before the caller's deadline, is refused
// at once and told when to come back.
func TestRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstreamstest.NewBench(t, config(upstreams.Limit{Limit: limits.Limit{Kind: limits.Window, N: 1, Period: 10 * time.Second, MaxWait: 15 * time.Second}}), nil, upstreams.Options{})
		defer b.End()
		b.Call(t.Context(), upstreams.Request{})
		b.Start(upstreams.Request{})
		synctest.Wait()
		start := time.Now()
		v, err := b.Upstream.Admit(t.Context(), upstreams.Request{Cost: 1})
		if err != nil || v.Reason != upstreams.Limited || v.Wait < 20*time.Second || v.Limit == nil {
			t.Errorf("Admit = %+v, %v, want limited, to come back after 20s", v, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if v, err = b.Upstream.Admit(ctx, upstreams.Request{Cost: 1}); err != nil || v.Reason != upstreams.Limited {
			t.Errorf("with a deadline before its turn Admit = %+v, %v, want limited", v, err)
		}
		if time.Since(start) > 0 {
			t.Errorf("refusing took %v", time.Since(start))
		}
	})
}

// TestTwoHostsOneAccount is K-5.
func TestTwoHostsOneAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(upstreams.Limit{Limit: limits.Limit{Kind: limits.Window, N: 10, Period: time.Minute}})
		c.Hosts = []string{"one.example", "*.two.example"}
		b := upstreamstest.NewBench(t, c, nil, upstreams.Options{})
		defer b.End()
		passed := 0
		for i := range 40 {
			host := []string{"one.example", "a.two.example", "ONE.example.:443", "b.two.example"}[i%4]
			v, err := b.Registry.Find(host, "").Admit(t.Context(), upstreams.Request{Cost: 1})
			if err != nil {
				t.Fatal(err)
			}
			if v.Reason == "" {
				passed++
			}
		}
		if passed != 10 {
			t.Errorf("%d passed through two hosts of one account, want 10", passed)
		}
	})
}

// Any mix of requests, leaving callers and refusals ends with nobody waiting,
// and never lets more pass than the limit.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstreamstest.NewBench(t, config(upstreams.Limit{Limit: limits.Limit{Kind: limits.Window, N: 20, Period: time.Second, MaxWait: 3 * time.Second}}),
			&upstreamstest.Fake{Model: "sliding", N: 20, Period: time.Second, Penalty: time.Second}, upstreams.Options{})
		defer b.End()
		var running sync.WaitGroup
		for i := range 600 {
			running.Go(func() {
				time.Sleep(time.Duration(i%100) * 37 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7+1)*700*time.Millisecond)
				defer cancel()
				b.Call(ctx, upstreams.Request{Caller: fmt.Sprint(i % 11)})
			})
		}
		running.Wait()
		if s := b.Status(); s.Waiting != 0 {
			t.Errorf("%d wait", s.Waiting)
		}
		if b.Passed() == 0 || b.Passed()+len(b.Refused()) != 600 {
			t.Errorf("%d passed and %d were refused, want 600 in all", b.Passed(), len(b.Refused()))
		}
	})
}
