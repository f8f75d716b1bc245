package restore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/restore"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// The upstream of these tests takes 100 calls in 10 s, of which Tollgate lets 90
// out, and a call takes 50 ms.
const (
	most   = 90
	window = 10 * time.Second
	call   = 50 * time.Millisecond
	guard  = 150 * time.Millisecond // how much longer Tollgate makes a window
)

// world is External Secrets with one worker, before an upstream that throttles, and
// Tollgate's count of what goes out.
type world struct {
	upstream *throttle.Throttle
	model    throttle.Model
	work     chan *restore.Target
	broken   map[string]bool // what the upstream does not know

	mu      sync.Mutex
	out     []time.Time // calls
	frozen  time.Time   // until when
	outcome map[client.ObjectKey]restore.Outcome
	sent    map[client.ObjectKey]int
	order   []*restore.Target
}

func newWorld(ctx context.Context, m throttle.Model) *world {
	w := &world{model: m, upstream: throttle.New(throttle.Options{Model: m, N: 100, Window: window}), work: make(chan *restore.Target, 10_000),
		broken: map[string]bool{}, outcome: map[client.ObjectKey]restore.Outcome{}, sent: map[client.ObjectKey]int{}}
	go w.reconcile(ctx)
	return w
}

func (w *world) reconcile(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-w.work:
			for range t.Calls {
				time.Sleep(call)
				w.mu.Lock()
				w.out = append(w.out, time.Now())
				w.mu.Unlock()
				w.upstream.Take(time.Now())
			}
			w.mu.Lock()
			w.outcome[t.Key] = restore.Synced
			if w.broken[t.Key.Name] {
				w.outcome[t.Key] = restore.Failed
			}
			w.mu.Unlock()
		}
	}
}

func (w *world) Send(_ context.Context, t *restore.Target, _ string, now time.Time) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Sent = now
	w.outcome[t.Key] = restore.Flying
	w.sent[t.Key]++
	w.order = append(w.order, t)
	w.work <- t
	return true, nil
}

func (w *world) Outcome(_ context.Context, t *restore.Target) (restore.Outcome, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outcome[t.Key], "not found", nil
}

func (w *world) Refresh(context.Context) error { return nil }

// State is what Tollgate would say.
func (w *world) State(string) (allowance.State, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := allowance.State{Upstream: admin.Upstream{State: upstreams.Open, WorkingLimit: most}}
	if time.Now().Before(w.frozen) {
		until := w.frozen
		s.State, s.Until = upstreams.Frozen, &until
	}
	used := 0
	for i := len(w.out) - 1; i >= 0; i-- {
		after := time.Now()
		if w.model == throttle.IdleReset && i+1 < len(w.out) {
			after = w.out[i+1]
		}
		if after.Sub(w.out[i]) >= window+guard {
			break
		}
		used++
	}
	s.Limits = []admin.UpstreamLimit{{Working: "90/10s", Remaining: int64(most - used)}}
	return s, true
}

// targets returns n external secrets that make as many calls as calls says.
func targets(n int, calls func(i int) int) []*restore.Target {
	var all []*restore.Target
	for i := range n {
		key := client.ObjectKey{Namespace: "team", Name: fmt.Sprintf("es-%04d", i)}
		all = append(all, &restore.Target{Key: key, Calls: calls(i), Members: []client.ObjectKey{key}})
	}
	return all
}

func one(int) int { return 1 }

// TestK27ColdStart restores 2,000 external secrets before each model of an upstream:
// none of the calls is refused, and it takes no more than a tenth longer than what
// the model allows at best.
func TestK27ColdStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		model throttle.Model
		calls func(int) int
	}{
		{"idle reset", throttle.IdleReset, one},
		{"idle reset, one to three calls", throttle.IdleReset, func(i int) int { return 1 + i%3 }},
		{"sliding window", throttle.Sliding, one},
		{"sliding window, one to three calls", throttle.Sliding, func(i int) int { return 1 + i%3 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w := newWorld(ctx, c.model)
				all, calls := targets(2000, c.calls), 0
				for _, target := range all {
					calls += target.Calls
				}
				began := time.Now()
				failed, err := restore.Run(ctx, restore.Options{Cluster: w, Allowance: w, Upstream: "keeper", Run: "test"}, all)
				if err != nil || len(failed) > 0 {
					t.Fatalf("Run = %d failed, %v", len(failed), err)
				}
				took, batches := time.Since(began), (calls+most-1)/most
				best := time.Duration(batches-1) * window
				if c.model == throttle.IdleReset {
					best += time.Duration(calls) * call // the silence begins when they are through
				}
				t.Logf("%d calls in %v, %.1f %% of %v", calls, took.Round(time.Second), 100*float64(took)/float64(best), best)
				if float64(took) > 1.1*float64(best) {
					t.Errorf("took %v, want at most 110 %% of %v", took, best)
				}
				if n := w.upstream.Throttled(); n != 0 || len(w.out) != calls {
					t.Errorf("%d of %d calls throttled, want none of %d", n, len(w.out), calls)
				}
			})
		})
	}
}

// TestK27Waves: no external secret of a lower priority is sent before all of the
// higher ones have come back, also where some of them fail.
func TestK27Waves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := newWorld(ctx, throttle.IdleReset)
		var all []*restore.Target
		for _, p := range []int{10, 0, -1} {
			wave := targets(40, one)
			for i, target := range wave {
				target.Key.Name = fmt.Sprintf("p%d-%02d", p, i)
				target.Members[0], target.Priority = target.Key, p
			}
			all = append(all, wave...)
		}
		w.broken["p10-07"], w.broken["p10-08"] = true, true
		var shown []restore.Progress
		failed, err := restore.Run(ctx, restore.Options{Cluster: w, Allowance: w, Run: "test", Show: func(p restore.Progress) { shown = append(shown, p) }}, all)
		if err != nil || len(failed) != 2 || failed[0].Target.Key.Name != "p10-07" || failed[0].Why != "not found" {
			t.Fatalf("Run = %v, %v, want two failed", failed, err)
		}
		for i, target := range w.order {
			if want := []int{10, 0, -1}[i/40]; target.Priority != want {
				t.Fatalf("number %d sent is %v, want one of priority %d", i, target, want)
			}
		}
		for _, p := range shown {
			if p.Flying > 0 && p.Priority < 10 && p.Done < 38 {
				t.Fatalf("%v: a wave has begun too early", p)
			}
		}
		if last := shown[len(shown)-1]; last.Done != 118 || last.Failed != 2 || last.Flying != 0 {
			t.Errorf("the last progress is %v", last)
		}
	})
}

// TestK27Pause: nothing is sent while the upstream is paused, and what is under way
// meanwhile does not count as lost.
func TestK27Pause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := newWorld(ctx, throttle.IdleReset)
		began := time.Now()
		w.frozen = began.Add(5 * time.Minute)
		waited := false
		show := func(p restore.Progress) {
			waited = waited || p.Why != ""
			if time.Now().Before(w.frozen) && len(w.order) > 0 {
				t.Fatalf("%v: sent in a pause", p)
			}
		}
		failed, err := restore.Run(ctx, restore.Options{Cluster: w, Allowance: w, Run: "test", Show: show}, targets(100, one))
		if err != nil || len(failed) > 0 || !waited || time.Since(began) < 5*time.Minute {
			t.Errorf("Run = %v, %v after %v", failed, err, time.Since(began))
		}
	})
}

// TestK27Resume: a run that is stopped goes on where it was: what was sent already
// is not sent again.
func TestK27Resume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := newWorld(ctx, throttle.IdleReset)
		all := targets(500, one)
		first, stop := context.WithTimeout(ctx, 30*time.Second)
		defer stop()
		if _, err := restore.Run(first, restore.Options{Cluster: w, Allowance: w, Run: "test"}, all); err == nil || len(w.order) == 0 || len(w.order) == 500 {
			t.Fatalf("Run = %v after %d of 500, want it stopped in the middle", err, len(w.order))
		}
		failed, err := restore.Run(ctx, restore.Options{Cluster: w, Allowance: w, Run: "test"}, all)
		if err != nil || len(failed) > 0 {
			t.Fatalf("Run = %v, %v", failed, err)
		}
		for key, n := range w.sent {
			if n != 1 {
				t.Errorf("%v was sent %d times, want once", key, n)
			}
		}
		if len(w.sent) != 500 || w.upstream.Throttled() != 0 {
			t.Errorf("%d of 500 sent, %d throttled", len(w.sent), w.upstream.Throttled())
		}
	})
}

// TestK27LargerThanTheLimit: what makes more calls than the upstream ever allows at
// once goes alone.
func TestK27LargerThanTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := newWorld(ctx, throttle.Sliding)
		failed, err := restore.Run(ctx, restore.Options{Cluster: w, Allowance: w, Run: "test"},
			targets(3, func(i int) int { return []int{5, 95, 5}[i] }))
		if err != nil || len(failed) > 0 || len(w.order) != 3 {
			t.Errorf("Run = %v, %v with %d sent", failed, err, len(w.order))
		}
		if gap := w.order[2].Sent.Sub(w.order[1].Sent); gap < window {
			t.Errorf("the next one was sent %v after it, want a window", gap)
		}
	})
}
