package upstreams_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
	"github.com/tollgate-dev/tollgate/limits/redis"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// instance is one of several that share an upstream through a real Redis.
type instance struct {
	*upstreamstest.Bench
	cluster *redis.Cluster
}

// instances starts n that share c, and for Redis have the patience that a busy
// machine asks for.
func instances(t *testing.T, s *redistest.Server, n int, c *upstreams.Config, mode redis.Mode) []instance {
	t.Helper()
	return within(t, time.Minute, s, n, c, mode)
}

// within is instances of which each call to Redis may take so long.
func within(t *testing.T, timeout time.Duration, s *redistest.Server, n int, c *upstreams.Config, mode redis.Mode) []instance {
	t.Helper()
	var all []instance
	for range n {
		cluster, err := redis.Open(t.Context(), redis.Options{Addresses: []string{s.Addr}, Mode: mode, Instances: n, Clock: limits.NewClock(), Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		shared := cluster.Pressure()
		b := upstreamstest.NewBench(t, c, nil, upstreams.Options{Shared: shared})
		shared.Run(b.Registry)
		all = append(all, instance{b, cluster})
		t.Cleanup(func() { b.End(); cluster.Close() })
	}
	eventually(t, 5*time.Second, func() bool { return all[0].cluster.Stats().Instances == n }, "the instances do not see each other")
	return all
}

// eventually polls for what comes within that time, but may not on a machine that
// is busy.
func eventually(t *testing.T, within time.Duration, f func() bool, why string) {
	t.Helper()
	within = max(within, time.Minute)
	for end := time.Now().Add(within); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, why)
		}
	}
}

func (i instance) state(s upstreams.State) func() bool {
	return func() bool { return i.Status().State == s }
}

// told reports whether it knows of a refusal, which it does after the pause too.
func (i instance) told() bool { return i.Status().Violations == 1 }

var modes = []redis.Mode{redis.Leased, redis.Strict}

// TestLimitsAreShared: what an upstream allows, and its budget, are used up by
// three instances together, by one whose limits let nobody wait too.
func TestLimitsAreShared(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			s := redistest.Start(t)
			c := config(limit(limits.Window, 10, time.Hour, 0), limit(limits.IdleReset, 1000, time.Minute, 0))
			all := instances(t, s, 3, c, mode)
			passed := map[int]int{}
			for i := range 40 {
				if admit(t, all[i%3].Upstream, upstreams.Request{}) == "" {
					passed[i%3]++
				}
			}
			if n := passed[0] + passed[1] + passed[2]; n != 9 {
				t.Errorf("%v passed, want 9 together, which is ten less the margin", passed)
			}
			if got := admit(t, all[1].Upstream, upstreams.Request{}); got != upstreams.Limited {
				t.Errorf("one more: %q, want limited", got)
			}
			eventually(t, 3*time.Second, func() bool { return all[2].Status().Limits[0].Remaining == 0 }, "an instance does not know that nothing remains")
		})
	}
}

// TestBudgetIsShared: classes leave to those before them what is in reserve, on
// whatever instance, and each instance tells what all have used.
func TestBudgetIsShared(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			s := redistest.Start(t)
			c := budget(upstreams.Budget{
				Periods: []upstreams.Period{{Calls: 100, Calendar: limits.Month}, {Calls: 1000, Calendar: limits.Month}},
				Classes: []upstreams.Class{{Name: "webhook", Reserve: 0.1}, {Name: "periodic", Reserve: 0.05}, {Name: "retry"}},
			})
			c.Budget.Periods = c.Budget.Periods[:1]
			all := instances(t, s, 3, c, mode)
			for _, want := range []struct {
				class string
				n     int
			}{{"retry", 85}, {"periodic", 5}, {"webhook", 10}, {"webhook", 0}} {
				passed := 0
				try := func() bool {
					for _, i := range all {
						if admit(t, i.Upstream, upstreams.Request{Class: want.class}) == "" {
							passed++
						}
					}
					return passed >= want.n
				}
				eventually(t, 3*time.Second, try, want.class+" does not get what is left to it")
				for range 30 { // nor does more come
					try()
				}
				if passed != want.n {
					t.Errorf("%s: %d passed, want %d", want.class, passed, want.n)
				}
			}
			for n, i := range all {
				eventually(t, 3*time.Second, func() bool { return i.Status().Budget[0].Used == 100 }, "instance "+string(rune('0'+n))+" does not know what is used")
			}
			if got := admit(t, all[2].Upstream, upstreams.Request{Class: "webhook"}); got != upstreams.Spent {
				t.Errorf("one more: %q, want spent", got)
			}
		})
	}
}

// TestSoftBudgetIsShared: it stops nobody, and counts beyond its end.
func TestSoftBudgetIsShared(t *testing.T) {
	s := redistest.Start(t)
	all := instances(t, s, 2, budget(upstreams.Budget{Periods: []upstreams.Period{{Calls: 3, Calendar: limits.Day}}, Soft: true}), redis.Leased)
	for i := range 10 {
		if got := admit(t, all[i%2].Upstream, upstreams.Request{}); got != "" {
			t.Errorf("request %d: %s", i, got)
		}
	}
	eventually(t, 3*time.Second, func() bool { return all[0].Status().Budget[0].Used == 10 }, "not all are counted")
}

// TestPauseIsShared: a refusal that one instance sees stops what the others hold;
// one probe goes out for all, traffic comes back for all, and what was learned
// counts for all.
func TestPauseIsShared(t *testing.T) {
	s := redistest.Start(t)
	c := config(limit(limits.Window, 1000, time.Minute, 10*time.Minute))
	c.Pressure = pressure.Policy{Initial: 3 * time.Second, Ramp: 300 * time.Millisecond, Probe: time.Hour}
	all := instances(t, s, 3, c, redis.Leased)
	for range 40 { // what the upstream took of the others' requests
		all[1].Upstream.Observe(all[1].Clock.Now(), upstreams.Answer{Status: 200})
		all[0].Upstream.Observe(all[0].Clock.Now(), upstreams.Answer{Status: 200})
	}
	refused := time.Now()
	all[0].Upstream.Observe(all[0].Clock.Now(), upstreamstest.Throttled(0))
	for _, i := range all[1:] {
		eventually(t, time.Second, i.told, "not told")
		if st := i.Status(); st.Source != "peer" {
			t.Errorf("status %+v", st)
		}
	}
	eventually(t, time.Second, func() bool { return all[0].Status().Observed == 80 }, "not known what the upstream took of two instances")
	for _, i := range all[1:] {
		eventually(t, time.Second, func() bool { return i.Status().Share == all[0].Status().Share && i.Status().Share < 1 }, "not learned")
	}
	for _, i := range all {
		for range 10 {
			i.Start(upstreams.Request{})
		}
	}
	passed := func() (n int) {
		for _, i := range all {
			n += i.Passed()
		}
		return n
	}
	eventually(t, 5*time.Second, func() bool { return passed() > 0 }, "no probe")
	if pause := time.Since(refused); pause < c.Pressure.Initial {
		t.Errorf("a request passed after %v, during the pause", pause)
	}
	time.Sleep(300 * time.Millisecond)
	if n := passed(); n != 1 {
		t.Fatalf("%d probes", n)
	}
	for _, i := range all {
		if i.Passed() == 1 {
			i.Upstream.Observe(i.Clock.Now(), upstreams.Answer{Status: 200})
		}
	}
	for _, i := range all {
		eventually(t, 5*time.Second, func() bool { return i.Passed() >= 10 }, "traffic does not come back")
	}
}

// TestAProbeThatIsGone kills the instance that probes: another one does, once the
// answer is overdue.
func TestAProbeThatIsGone(t *testing.T) {
	s := redistest.Start(t)
	c := config(limit(limits.Window, 1000, time.Second, 30*time.Second))
	c.Pressure = pressure.Policy{Initial: 300 * time.Millisecond, Probe: time.Second}
	all := instances(t, s, 2, c, redis.Leased)
	all[0].Upstream.Observe(all[0].Clock.Now(), upstreamstest.Throttled(0))
	eventually(t, time.Second, all[1].told, "not told")
	eventually(t, 2*time.Second, func() bool { return all[0].Status().State == upstreams.Probing }, "no end of the pause")
	began := time.Now()
	all[0].Start(upstreams.Request{})
	eventually(t, time.Second, func() bool { return all[0].Passed() == 1 }, "no probe")
	all[1].Start(upstreams.Request{})
	eventually(t, 3*time.Second, func() bool { return all[1].Passed() == 1 }, "no probe after one that is lost")
	if took := time.Since(began); took < 950*time.Millisecond {
		t.Errorf("the second probe %v after the first, want a second", took)
	}
}

// TestAnEndByHandReachesAll ends the pause at one instance.
func TestAnEndByHandReachesAll(t *testing.T) {
	s := redistest.Start(t)
	all := instances(t, s, 3, config(limit(limits.Window, 100, time.Second, time.Minute)), redis.Leased)
	all[0].Upstream.Observe(all[0].Clock.Now(), upstreamstest.Throttled(time.Hour))
	for _, i := range all {
		eventually(t, time.Second, i.state(upstreams.Frozen), "not frozen")
	}
	all[2].Start(upstreams.Request{})
	all[1].Upstream.Reset(all[1].Clock.Now())
	for _, i := range all {
		eventually(t, time.Second, func() bool {
			st := i.Status()
			return st.State == upstreams.Open && st.Share == 1 && st.Violations == 0
		}, "the pressure was not ended")
	}
	time.Sleep(300 * time.Millisecond)
	for _, i := range all {
		if st := i.Status(); st.State != upstreams.Open {
			t.Errorf("it came back: %+v", st)
		}
	}
}

// TestWithoutTheStore stalls and kills Redis: requests are decided all the same,
// each instance keeps to its share, pauses for itself and probes for itself, and
// they agree again once it is back.
func TestWithoutTheStore(t *testing.T) {
	for name, f := range map[string]struct {
		begin, end func(*redistest.Server)
	}{
		"dies":   {(*redistest.Server).Kill, (*redistest.Server).Up},
		"stalls": {(*redistest.Server).Stall, (*redistest.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			c := config(upstreams.Limit{Limit: limits.Limit{Kind: limits.Quota, N: 18, Calendar: limits.Month}})
			c.Budget = &upstreams.Budget{Periods: []upstreams.Period{{Calls: 30, Calendar: limits.Month}}}
			c.Pressure = pressure.Policy{Initial: 300 * time.Millisecond, Ramp: 100 * time.Millisecond, Probe: time.Second}
			all := within(t, 500*time.Millisecond, s, 2, c, redis.Leased)
			spend := func(i instance, n int) (passed int) {
				for range n {
					if admit(t, i.Upstream, upstreams.Request{}) == "" {
						passed++
					}
				}
				return passed
			}
			for first := 4; first > 0; { // where the machine is busy, not at once
				first -= spend(all[0], first)
			}
			eventually(t, 3*time.Second, func() bool { return all[1].Status().Limits[0].Remaining == 14 }, "the other instance does not know what is left")
			f.begin(s)
			began := time.Now()
			total := 4
			for _, i := range all {
				n := spend(i, 30)
				total += n
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("30 decisions without Redis took %v", took)
				}
				if n < 5 || n > 9 {
					t.Errorf("%d passed without Redis, want this instance's share, half of 18, less what the others are known to have used", n)
				}
			}
			all[0].Upstream.Observe(all[0].Clock.Now(), upstreamstest.Throttled(0))
			if got := admit(t, all[0].Upstream, upstreams.Request{}); got != upstreams.Paused && got != upstreams.Limited {
				t.Errorf("after a refusal: %q, want it paused", got)
			}
			if all[1].Status().State == upstreams.Frozen {
				t.Error("the other instance heard of it without Redis")
			}
			all[0].Upstream.Observe(all[0].Clock.Now(), upstreamstest.Throttled(20*time.Second))
			f.end(s)
			eventually(t, 5*time.Second, all[1].state(upstreams.Frozen), "the pause is not told once Redis is back")
			for _, i := range all {
				i.Upstream.Reset(i.Clock.Now())
				eventually(t, 3*time.Second, i.state(upstreams.Open), "not open")
			}
			eventually(t, 3*time.Second, func() bool { return all[0].cluster.Stats().Up && all[1].cluster.Stats().Up }, "Redis is not used")
			eventually(t, 6*time.Second, func() bool {
				a, b := all[0].Status(), all[1].Status()
				known := func(s upstreams.Status) bool {
					return s.Budget[0].Used == int64(total) && s.Limits[0].Remaining == int64(18-total)
				}
				return known(a) && known(b)
			}, "what was used meanwhile is not known to all")
			if n := spend(all[0], 20) + spend(all[1], 20); total+n > 18 {
				t.Errorf("%d passed afterwards, %d in all, of a quota of 18", n, total+n)
			}
		})
	}
}

// TestOneProbeWithoutTheStore: where Redis is away at the end of a pause, no
// request waits for it longer than a call may take.
func TestOneProbeWithoutTheStore(t *testing.T) {
	s := redistest.Start(t)
	c := config(limit(limits.Window, 1000, time.Second, 30*time.Second))
	c.Pressure = pressure.Policy{Initial: 300 * time.Millisecond, Probe: 5 * time.Second}
	all := within(t, 500*time.Millisecond, s, 2, c, redis.Leased)
	all[0].Upstream.Observe(all[0].Clock.Now(), upstreamstest.Throttled(0))
	eventually(t, time.Second, all[1].told, "not told")
	s.Stall()
	defer s.Resume()
	var wg sync.WaitGroup
	began := time.Now()
	for _, i := range all {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if v, err := i.Upstream.Admit(ctx, upstreams.Request{Cost: 1}); err != nil || v.Reason != "" {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the probes went out after %v", took)
	}
}
