package config_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/internal/config"
)

// loadPreset reads an upstream of a preset.
func loadPreset(t *testing.T, name string) *upstreams.Config {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/tollgate.yaml", fmt.Sprintf("upstreams: [{preset: %s}]\n", name))
	loaded, _, err := config.Load(dir+"/tollgate.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	return loaded.Config.Upstreams[0]
}

// TestPresetsKeepTheirUpstreams is K-28: what holds for Keeper holds for the
// others, which are nothing but data. Each is sent bursts, a trickle and both
// before an upstream of its own model; then one that allows three fifths.
func TestPresetsKeepTheirUpstreams(t *testing.T) {
	for _, c := range []struct {
		preset, model string
		n             int
		period        time.Duration
		penalty       time.Duration
	}{
		{"keeper", "idle", 100, 10 * time.Second, 10 * time.Second},
		{"aws-ssm", "bucket", 40, time.Second, 0},
	} {
		for name, load := range upstreamstest.Loads(c.n, c.period) {
			t.Run(c.preset+"/"+name, func(t *testing.T) {
				u := loadPreset(t, c.preset)
				synctest.Test(t, func(t *testing.T) {
					f := &upstreamstest.Fake{Model: c.model, N: c.n, Period: c.period, Penalty: c.penalty}
					b := upstreamstest.NewBench(t, u, f, upstreams.Options{})
					defer b.End()
					start := time.Now()
					load(b, start.Add(60*c.period))
					seen, offered := f.Seen(), b.Passed()+len(b.Refused())+b.Status().Waiting
					best := min(float64(offered), float64(c.n)*float64(time.Since(start))/float64(c.period))
					t.Logf("%d passed, %.1f %% of the optimum, %d throttled", seen.Passed, 100*float64(seen.Passed)/best, seen.Refused)
					if seen.Refused > 0 || float64(seen.Passed) < 0.9*best {
						t.Errorf("%d throttled, %d of %.0f passed, want none and 90 %%", seen.Refused, seen.Passed, best)
					}
				})
			})
		}
		t.Run(c.preset+"/learns", func(t *testing.T) {
			u := loadPreset(t, c.preset)
			synctest.Test(t, func(t *testing.T) {
				f := &upstreamstest.Fake{Model: c.model, N: c.n * 3 / 5, Period: c.period, Penalty: c.penalty, Refuse: refusals[c.preset]}
				b := upstreamstest.NewBench(t, u, f, upstreams.Options{})
				defer b.End()
				load := upstreamstest.Loads(c.n, c.period)["burst"]
				load(b, time.Now().Add(5*time.Minute))
				before, start := f.Seen(), time.Now()
				load(b, start.Add(40*c.period))
				after, s := f.Seen(), b.Status()
				used := float64(after.Passed-before.Passed) / (float64(f.N) * float64(time.Since(start)) / float64(c.period))
				t.Logf("%d incidents, then %.1f %% used", s.Counts.Violations, 100*used)
				if s.Counts.Violations == 0 || s.Counts.Violations > 3 || after.Refused > before.Refused || used < 0.85 {
					t.Errorf("%d incidents, %d refusals afterwards, %.1f %% used, want 1 to 3, none, and 85 %%", s.Counts.Violations, after.Refused-before.Refused, 100*used)
				}
			})
		})
	}
}

// refusals are the ways in which upstreams refuse that are not Keeper's.
var refusals = map[string]func(time.Duration) upstreams.Answer{
	"aws-ssm": func(time.Duration) upstreams.Answer {
		return upstreams.Answer{Status: 400, Body: []byte(`{"__type":"ThrottlingException","message":"Rate exceeded"}`)}
	},
	"1password": func(time.Duration) upstreams.Answer { return upstreams.Answer{Status: 429} },
}

// The third counts by the day. Nothing beyond its quota goes out, and nobody
// waits for tomorrow.
func TestPresetOfAQuota(t *testing.T) {
	u := loadPreset(t, "1password")
	synctest.Test(t, func(t *testing.T) {
		f := &upstreamstest.Fake{Model: "sliding", N: 1000, Period: time.Hour, Refuse: refusals["1password"]}
		b := upstreamstest.NewBench(t, u, f, upstreams.Options{})
		defer b.End()
		for range 3000 {
			b.Start(upstreams.Request{})
			time.Sleep(20 * time.Second)
		}
		b.Wait()
		if seen := f.Seen(); seen.Passed < 990 || seen.Passed > 1000 || seen.Refused > 0 {
			t.Errorf("%d passed and %d were throttled in 17 hours, want 990 and 0", seen.Passed, seen.Refused)
		}
	})
}
