package upstreams_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// loads are offered for as long as they say, in bursts and trickles.
var loads = map[string]func(b *bench, until time.Time){
	"burst": func(b *bench, until time.Time) { // 450 at once, again and again
		for time.Now().Before(until) {
			for range 450 {
				b.start(upstreams.Request{})
			}
			time.Sleep(40 * time.Second)
		}
	},
	"trickle": func(b *bench, until time.Time) { // 7/s
		for time.Now().Before(until) {
			b.start(upstreams.Request{})
			time.Sleep(time.Second / 7)
		}
	},
	"mixed": func(b *bench, until time.Time) {
		for i := 0; time.Now().Before(until); i++ {
			if i%200 == 0 {
				for range 150 {
					b.start(upstreams.Request{})
				}
			}
			b.start(upstreams.Request{})
			time.Sleep(time.Second / 5)
		}
	},
}

// TestModels is K-1 and K-2: ten minutes of any load against each model of an
// upstream that allows 100 per 10 s throttle nobody, and use at least 90 % of
// what could be used.
func TestModels(t *testing.T) {
	for model, kind := range map[string]limits.Kind{"fixed": limits.Window, "sliding": limits.Window, "idle": limits.IdleReset} {
		for name, load := range loads {
			t.Run(model+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const minutes = 10
					f := &fake{model: model, n: 100, period: 10 * time.Second}
					b := newBench(t, upstreams.Config{Limits: []upstreams.Limit{window(kind, 100, 10*time.Second, time.Minute, 0.1)}}, f, upstreams.Options{})
					start := time.Now()
					load(b, start.Add(minutes*time.Minute))
					elapsed := time.Since(start)
					f.mu.Lock()
					passed, refused := f.passed, f.refused
					f.mu.Unlock()
					offered := passed + len(b.refused) + b.status().Waiting
					best := min(float64(offered), 100*elapsed.Seconds()/10)
					fmt.Printf("%s/%s: offered %d, %d passed, %.1f %% of the optimum, %d throttled\n", model, name, offered, passed, 100*float64(passed)/best, refused)
					if refused > 0 {
						t.Errorf("the upstream throttled %d requests, want 0", refused)
					}
					if float64(passed) < 0.9*best {
						t.Errorf("%d passed, want at least 90 %% of %.0f", passed, best)
					}
					_ = b.registry.Close()
					b.running.Wait()
				})
			})
		}
	}
}
