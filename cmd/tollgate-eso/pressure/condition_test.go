package pressure_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/pressure"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// TestK14Transitions: which condition is written in which state, and when none
// is.
func TestK14Transitions(t *testing.T) {
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	state := func(s upstreams.State, until time.Time) *allowance.State {
		u := &allowance.State{Upstream: admin.Upstream{ID: "keeper", State: s, Reason: "403 throttled", Violations: 1}}
		if !until.IsZero() {
			u.Until = &until
		}
		return u
	}
	frozen := state(upstreams.Frozen, now.Add(time.Minute))
	has := func(status metav1.ConditionStatus) *eso.Condition {
		return &eso.Condition{Type: pressure.Throttled, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}
	}
	written := pressure.Want(frozen, 0, nil, now)
	for _, c := range []struct {
		name  string
		state *allowance.State
		lost  time.Duration
		has   *eso.Condition
		want  metav1.ConditionStatus // empty: nothing is written
		since time.Time
	}{
		{"open and never under pressure", state(upstreams.Open, time.Time{}), 0, nil, "", now},
		{"a queue is no pressure to tell of", state(upstreams.Held, time.Time{}), 0, nil, "", now},
		{"a pause begins", frozen, 0, nil, metav1.ConditionTrue, now},
		{"a pause begins again", frozen, 0, has(metav1.ConditionFalse), metav1.ConditionTrue, now},
		{"told already", frozen, 0, written, "", now},
		{"another pause, told as it was", frozen, 0, has(metav1.ConditionTrue), metav1.ConditionTrue, now.Add(-time.Hour)},
		{"one call asks", state(upstreams.Probing, time.Time{}), 0, has(metav1.ConditionTrue), "", now},
		{"over", state(upstreams.Open, time.Time{}), 0, has(metav1.ConditionTrue), metav1.ConditionFalse, now},
		{"over, with a queue", state(upstreams.Held, time.Time{}), 0, has(metav1.ConditionTrue), metav1.ConditionFalse, now},
		{"over, told already", state(upstreams.Open, time.Time{}), 0, has(metav1.ConditionFalse), "", now},
		{"nothing known", nil, 0, has(metav1.ConditionTrue), "", now},
		{"Tollgate restarts", nil, 10 * time.Second, has(metav1.ConditionTrue), "", now},
		{"Tollgate is away", nil, 2 * time.Minute, has(metav1.ConditionTrue), metav1.ConditionUnknown, now},
		{"Tollgate is away in a pause", frozen, 2 * time.Minute, has(metav1.ConditionTrue), "", now},
		{"Tollgate is away, and nothing was wrong", nil, 2 * time.Minute, has(metav1.ConditionFalse), "", now},
		{"Tollgate is back", state(upstreams.Open, time.Time{}), 0, has(metav1.ConditionUnknown), metav1.ConditionFalse, now},
	} {
		got := pressure.Want(c.state, c.lost, c.has, now)
		switch {
		case c.want == "" && got != nil:
			t.Errorf("%s: writes %+v, want nothing", c.name, got)
		case c.want != "" && (got == nil || got.Status != c.want || !got.LastTransitionTime.Time.Equal(c.since)):
			t.Errorf("%s: writes %+v, want %s since %v", c.name, got, c.want, c.since)
		}
	}
}
