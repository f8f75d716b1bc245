package upstreams_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
)

// TestFreeze is K-7: from a refusal until the pause is over nothing reaches the
// upstream, neither what was held before nor what comes; then one request does.
func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &upstreamstest.Fake{Model: "idle", N: 100, Period: 10 * time.Second}
		b := upstreamstest.NewBench(t, config(limit(limits.IdleReset, 100, 10*time.Second, time.Minute)), f, upstreams.Options{})
		defer b.End()
		for range 300 { // 92 pass, the rest is held
			b.Start(upstreams.Request{})
		}
		time.Sleep(time.Second)
		frozen := time.Now()
		b.Upstream.Observe(b.Clock.Now(), upstreamstest.Throttled(30*time.Second))
		for range 20 {
			b.Start(upstreams.Request{})
		}
		time.Sleep(30*time.Second - 1)
		if got := f.Seen().At; got[len(got)-1].After(frozen) {
			t.Fatalf("the upstream was asked %v after it refused", got[len(got)-1].Sub(frozen))
		}
		if s := b.Status(); s.State != upstreams.Frozen || s.Until.Std().Sub(frozen) != 30*time.Second || s.Waiting != 228 || s.Violations != 1 {
			t.Fatalf("status %+v, want frozen for 30s with 228 waiting", s)
		}
		time.Sleep(15 * time.Millisecond)
		if got := len(f.Seen().At); got != 93 {
			t.Errorf("%d requests reached the upstream at the pause's end, want one probe after 92", got)
		}
		if s := b.Status(); s.State != upstreams.Probing {
			t.Errorf("state %s, want probing", s.State)
		}
		time.Sleep(time.Second)
		if got := len(f.Seen().At); got < 95 || got > 100 {
			t.Errorf("%d requests a second after the probe, want a few of 92: traffic comes back gradually", got)
		}
		b.Wait()
		if got := f.Seen(); got.Passed != 320 || got.Refused > 0 {
			t.Errorf("%d passed and %d were refused in the end, want all and none", got.Passed, got.Refused)
		}
	})
}

// A pause that is longer than a request may wait is told to it at once, also to
// those who wait already.
func TestLongPauseRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstreamstest.NewBench(t, config(limit(limits.Window, 10, 10*time.Second, 20*time.Second)), nil, upstreams.Options{})
		defer b.End()
		for range 15 {
			b.Start(upstreams.Request{})
		}
		synctest.Wait()
		start := time.Now()
		b.Upstream.Observe(b.Clock.Now(), upstreams.Answer{Status: 429, Header: func(name string) string { return map[string]string{"retry-after": "60"}[name] }})
		b.Wait()
		v, err := b.Upstream.Admit(t.Context(), upstreams.Request{Cost: 1})
		if err != nil || v.Reason != upstreams.Paused || time.Since(start) > 0 {
			t.Fatalf("Admit = %+v, %v after %v, want paused at once", v, err, time.Since(start))
		}
		if len(b.Refused()) != 6 {
			t.Errorf("%d of those who waited were refused, want 6 of 6", len(b.Refused()))
		}
		for _, v := range append(b.Refused(), v) {
			if v.Reason != upstreams.Paused || v.Wait < time.Minute || v.Wait > 90*time.Second {
				t.Errorf("verdict %+v, want paused, to come back after 60s to 90s", v)
			}
		}
	})
}

// TestLengtheningPenalty is K-8: an upstream that makes each violation wait
// longer sees one violation per incident, and takes the first probe.
func TestLengtheningPenalty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &upstreamstest.Fake{Model: "sliding", N: 100, Period: 10 * time.Second, Penalty: 11 * time.Second}
		c := config(limit(limits.Window, 100, 10*time.Second, 5*time.Minute))
		c.Pressure.Initial = 11 * time.Second
		b := upstreamstest.NewBench(t, c, f, upstreams.Options{})
		defer b.End()
		for incident := range 2 {
			f.SetN(40) // somebody else uses the account
			for range 60 {
				b.Start(upstreams.Request{})
				time.Sleep(50 * time.Millisecond)
			}
			time.Sleep(2 * time.Second)
			f.SetN(100)
			before := f.Seen()
			if before.Incidents != incident+1 || before.Early > 2*(incident+1) {
				t.Errorf("incident %d: %d violations, %d on the way", incident, before.Incidents, before.Early)
			}
			b.Wait()
			if got := f.Seen(); got.Refused != before.Refused {
				t.Errorf("incident %d: %d more refused after the pause, want the first probe taken", incident, got.Refused-before.Refused)
			}
			time.Sleep(time.Minute)
		}
		if s := b.Status(); s.Violations != 2 || s.State != upstreams.Open {
			t.Errorf("status %+v, want open after two violations", s)
		}
		time.Sleep(15 * time.Minute)
		if s := b.Status(); s.Violations != 0 {
			t.Errorf("%d violations after 15 quiet minutes, want 0", s.Violations)
		}
	})
}

// TestLearnsTheLimit is K-9: an upstream that allows 60 where 100 are configured
// is found out in at most three incidents, and is used to 85 % from then on.
func TestLearnsTheLimit(t *testing.T) {
	for model, kind := range map[string]limits.Kind{"fixed": limits.Window, "sliding": limits.Window, "idle": limits.IdleReset} {
		t.Run(model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &upstreamstest.Fake{Model: model, N: 60, Period: 10 * time.Second, Penalty: 10 * time.Second}
				b := upstreamstest.NewBench(t, config(limit(kind, 100, 10*time.Second, time.Minute)), f, upstreams.Options{})
				defer b.End()
				load := upstreamstest.Loads(100, 10*time.Second)["burst"]
				load(b, time.Now().Add(4*time.Minute)) // to learn
				before, start := f.Seen(), time.Now()
				load(b, start.Add(8*time.Minute))
				after := f.Seen()
				used := float64(after.Passed-before.Passed) / (60 * time.Since(start).Seconds() / 10)
				s := b.Status()
				t.Logf("%d incidents, then %.1f %% of what is allowed, working limit %d of %d", s.Counts.Violations, 100*used, s.Limits[0].Working, s.Limits[0].Limit)
				if s.Counts.Violations > 3 || after.Refused != before.Refused {
					t.Errorf("%d incidents, %d refusals after the limit was learned, want at most 3 and none", s.Counts.Violations, after.Refused-before.Refused)
				}
				if used < 0.85 || s.Limits[0].Limit != 100 || s.Limits[0].Working > 60 {
					t.Errorf("%.1f %% used, limits %+v, want at least 85 %% of 60 and both told", 100*used, s.Limits)
				}
			})
		})
	}
}

// The working limit comes back, slowly and never above the configured one.
func TestWorkingLimitComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstreamstest.NewBench(t, config(limit(limits.Window, 100, 10*time.Second, 0)), nil, upstreams.Options{})
		defer b.End()
		b.Upstream.Observe(b.Clock.Now(), upstreamstest.Throttled(0))
		last := b.Status().Limits[0].Working
		if last >= 92 {
			t.Fatalf("working limit %d after a refusal, want less than 92", last)
		}
		for range 60 {
			time.Sleep(time.Minute)
			b.Call(t.Context(), upstreams.Request{})
			now := b.Status().Limits[0].Working
			if now < last || now > last+2 {
				t.Fatalf("working limit %d after %d, want a little more each minute", now, last)
			}
			last = now
		}
		if last != 92 {
			t.Errorf("working limit %d after an hour, want 92", last)
		}
	})
}

// TestPauseSurvives is K-10: an instance that goes on from what another had kept
// when it was killed asks no earlier than that one would have.
func TestPauseSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		kept := map[string]upstreams.Saved{}
		keep := func(id string, s upstreams.Saved) error {
			mu.Lock()
			defer mu.Unlock()
			kept[id] = s
			return nil
		}
		c := config(limit(limits.Window, 100, 10*time.Second, time.Minute))
		f := &upstreamstest.Fake{Model: "sliding", N: 100, Period: 10 * time.Second}
		b := upstreamstest.NewBench(t, c, f, upstreams.Options{Keep: keep})
		b.Start(upstreams.Request{})
		b.Wait()
		refused := time.Now()
		b.Upstream.Observe(b.Clock.Now(), upstreamstest.Throttled(40*time.Second))
		b.Upstream.Observe(b.Clock.Now(), upstreamstest.Throttled(0))
		mu.Lock()
		saved := map[string]upstreams.Saved{"keeper": kept["keeper"]}
		mu.Unlock()
		time.Sleep(5 * time.Second) // killed here, without Close

		again := upstreamstest.NewBench(t, c, f, upstreams.Options{Saved: saved, Keep: keep})
		if s := again.Status(); s.State != upstreams.Frozen || s.Violations != 1 || s.Until.Std().Sub(refused) < 40*time.Second || s.Limits[0].Working >= 92 {
			t.Errorf("status after the restart %+v, want frozen until 40s after the refusal, with a lower working limit", s)
		}
		for range 50 {
			again.Start(upstreams.Request{})
		}
		again.Wait()
		if got := f.Seen().At[1]; got.Sub(refused) < 40*time.Second {
			t.Errorf("the upstream was asked %v after it refused, want 40s", got.Sub(refused))
		}
		b.End()
		again.End()
	})
}

// What passed just before a kill and was not kept counts as much as can have.
func TestKillForgetsNoWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := map[string]upstreams.Saved{}
		o := upstreams.Options{Keep: func(id string, s upstreams.Saved) error { kept[id] = s; return nil }}
		f := &upstreamstest.Fake{Model: "sliding", N: 100, Period: 10 * time.Second, Penalty: time.Second}
		c := config(limit(limits.Window, 100, 10*time.Second, time.Minute))
		b := upstreamstest.NewBench(t, c, f, o)
		for range 92 {
			b.Start(upstreams.Request{})
		}
		b.Wait()
		again := upstreamstest.NewBench(t, c, f, upstreams.Options{Saved: kept})
		for range 92 {
			again.Start(upstreams.Request{})
		}
		again.Wait()
		if got := f.Seen(); got.Passed != 184 || got.Refused > 0 {
			t.Errorf("%d passed and %d were throttled, want 184 and 0", got.Passed, got.Refused)
		}
		b.End()
		again.End()
	})
}

// TestRefusedComeBackApart is K-11: a thousand who are refused and come back as
// they were told come apart, and none too early.
func TestRefusedComeBackApart(t *testing.T) {
	for name, c := range map[string]*upstreams.Config{
		"window":    config(limit(limits.Window, 100, 10*time.Second, 0)),
		"rate":      config(limit(limits.Rate, 40, time.Second, 0)),
		"no limits": config(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := upstreamstest.NewBench(t, c, nil, upstreams.Options{})
				defer b.End()
				pause := 40 * time.Second
				b.Upstream.Observe(b.Clock.Now(), upstreamstest.Throttled(pause))
				arrivals := map[int]int{}
				first, last := math.MaxInt, 0
				for range 1000 {
					v, err := b.Upstream.Admit(t.Context(), upstreams.Request{Cost: 1})
					if err != nil || v.Wait < pause {
						t.Fatalf("Admit = %+v, %v, want refused for at least %v", v, err, pause)
					}
					at := int(math.Ceil(v.Wait.Seconds())) // as Retry-After says it
					arrivals[at]++
					first, last = min(first, at), max(last, at)
				}
				mean := 1000 / float64(last-first+1)
				peak := 0
				for _, n := range arrivals {
					peak = max(peak, n)
				}
				t.Logf("back from %d s to %d s, %.1f a second on average, %d at most", first, last, mean, peak)
				if float64(peak) > 2*mean {
					t.Errorf("%d come in the same second, want at most twice the mean of %.1f", peak, mean)
				}
			})
		})
	}
}

// A probe that is never answered blocks nobody for ever.
func TestLostProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstreamstest.NewBench(t, config(limit(limits.Window, 100, 10*time.Second, 5*time.Minute)), nil, upstreams.Options{})
		defer b.End()
		b.Upstream.Observe(b.Clock.Now(), upstreamstest.Throttled(10*time.Second))
		for range 50 {
			b.Start(upstreams.Request{})
		}
		for _, step := range []struct {
			wait   time.Duration
			passed int64
		}{{10*time.Second + time.Millisecond, 1}, {9 * time.Second, 1}, {time.Second, 2}, {9 * time.Second, 2}, {time.Second, 3}, {5 * time.Second, 50}} {
			time.Sleep(step.wait)
			if got := b.Status().Counts.Passed; got != step.passed {
				t.Errorf("%d passed, want %d", got, step.passed)
			}
		}
	})
}

// A probe whose caller leaves before it went out is another's.
func TestMonotonicUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstreamstest.NewBench(t, config(), nil, upstreams.Options{})
		defer b.End()
		random := rand.New(rand.NewPCG(1, 2))
		var last limits.Time
		for range 2000 {
			b.Upstream.Observe(b.Clock.Now(), upstreamstest.Throttled(time.Duration(random.IntN(30))*time.Second))
			s := b.Status()
			if s.State != upstreams.Frozen || s.Until < last || s.Until <= b.Clock.Now() {
				t.Fatalf("frozen until %v after %v", s.Until.Std(), last.Std())
			}
			last = s.Until
			time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
		}
		if s := b.Status(); s.Violations != 1 {
			t.Errorf("%d violations, want one incident", s.Violations)
		}
	})
}

// TestEvents is K-13: each change of state is told once, in order.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []upstreams.State
		o := upstreams.Options{Changed: func(e upstreams.Event) {
			mu.Lock()
			defer mu.Unlock()
			if len(told) > 0 && e.Was != told[len(told)-1] {
				t.Errorf("from %s, want from %s", e.Was, told[len(told)-1])
			}
			told = append(told, e.Status.State)
		}}
		f := &upstreamstest.Fake{Model: "sliding", N: 2, Period: 10 * time.Second, Penalty: 10 * time.Second}
		b := upstreamstest.NewBench(t, config(upstreams.Limit{Limit: limits.Limit{Kind: limits.Window, N: 3, Period: 10 * time.Second, MaxWait: time.Minute}}), f, o)
		defer b.End()
		for range 4 {
			b.Start(upstreams.Request{})
		}
		b.Wait()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		want := []upstreams.State{upstreams.Held, upstreams.Frozen, upstreams.Probing, upstreams.Open}
		if len(told) != len(want) {
			t.Fatalf("told %v, want %v", told, want)
		}
		for i := range want {
			if told[i] != want[i] {
				t.Fatalf("told %v, want %v", told, want)
			}
		}
	})
}

// Reset opens at once, and a reload keeps pause and queue.
func TestResetAndReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(limit(limits.Window, 10, 10*time.Second, time.Minute))
		b := upstreamstest.NewBench(t, c, nil, upstreams.Options{})
		defer b.End()
		b.Upstream.Observe(b.Clock.Now(), upstreamstest.Throttled(50*time.Second))
		b.Start(upstreams.Request{})
		synctest.Wait()
		next := *c
		next.Limits = []upstreams.Limit{limit(limits.Window, 5, 10*time.Second, time.Minute)}
		b.Registry.Configure([]*upstreams.Config{&next})
		if b.Registry.ByID("keeper") != b.Upstream {
			t.Fatal("a reload made another upstream")
		}
		if s := b.Status(); s.State != upstreams.Frozen || s.Waiting != 1 || s.Limits[0].Limit != 5 {
			t.Fatalf("status after the reload %+v, want frozen, one waiting, limit 5", s)
		}
		b.Upstream.Reset(b.Clock.Now())
		b.Wait()
		if s := b.Status(); s.State != upstreams.Open || s.Violations != 0 || s.Until != 0 || s.Share != 1 || b.Passed() != 1 {
			t.Errorf("status after the reset %+v, want open with nothing learned", s)
		}
		b.Registry.Configure(nil)
		if v, err := b.Upstream.Admit(t.Context(), upstreams.Request{Cost: 1}); err != nil || v.Reason != "" {
			t.Errorf("Admit to one that is gone = %+v, %v, want it let pass within its limits", v, err)
		}
	})
}
