package restore_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/restore"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// TestEstimate: how long calls take at the least.
func TestEstimate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	until := now.Add(time.Minute)
	open := admin.Upstream{State: upstreams.Open, Limits: []admin.UpstreamLimit{{Working: "90/10s", Remaining: 90}}}
	frozen, spent, two := open, open, open
	frozen.State, frozen.Until = upstreams.Frozen, &until
	spent.Budget = []admin.UpstreamBudget{{Calls: 1000, Used: 950, End: now.Add(time.Hour)}}
	two.Limits = append([]admin.UpstreamLimit{{Working: "10/1m0s", Remaining: 5}}, open.Limits...)
	for _, c := range []struct {
		name  string
		state admin.Upstream
		calls int
		want  time.Duration
	}{
		{"at once", open, 90, 0},
		{"one more", open, 91, 10 * time.Second},
		{"2,000", open, 2000, 220 * time.Second},
		{"in a pause", frozen, 91, 70 * time.Second},
		{"beyond the budget", spent, 60, time.Hour},
		{"within the budget", spent, 50, 0},
		{"the slower limit", two, 16, 2 * time.Minute},
	} {
		if got := restore.Estimate(now, allowance.State{Upstream: c.state}, c.calls); got != c.want {
			t.Errorf("%s: Estimate = %v, want %v", c.name, got, c.want)
		}
	}
}

// TestBar: one line, which is written over.
func TestBar(t *testing.T) {
	var b strings.Builder
	show := restore.Bar(&b)
	show(restore.Progress{Objects: 200, Done: 50, Flying: 40, Waves: 1, Wave: 1, Left: 90 * time.Second})
	show(restore.Progress{Objects: 200, Done: 199, Failed: 1, Waves: 2, Wave: 2})
	want := "\r\x1b[K[######..................] 50/200 restored, 40 under way, 1m30s to go" +
		"\r\x1b[K[#######################.] 199/200 restored, 0 under way, 1 failed, wave 2 of 2 (priority 0)"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("bar (-want +got):\n%s", diff)
	}
}

// TestLines: a line now and then, and at once what makes the run wait.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		show := restore.Lines(&b, 10*time.Second)
		for i := range 25 {
			p := restore.Progress{Objects: 25, Done: i + 1, Waves: 1, Wave: 1, Left: time.Duration(24-i) * time.Second}
			if i == 15 {
				p.Why = "the upstream is paused"
			}
			show(p)
			time.Sleep(time.Second)
		}
		want := `1/25 restored, 0 under way, 24s to go
11/25 restored, 0 under way, 14s to go
16/25 restored, 0 under way, waiting: the upstream is paused
17/25 restored, 0 under way, 8s to go
25/25 restored, 0 under way
`
		if diff := cmp.Diff(want, b.String()); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
	})
}
