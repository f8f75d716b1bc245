package upstreams_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// TestSilenceIsCountedFromTheAnswer: a request may be on its way for a while
// before the upstream counts it. A silence that Tollgate counted from when it
// let the request pass would be too short by that.
func TestSilenceIsCountedFromTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := limits.NewClock()
		r := upstreams.New(upstreams.Options{Clock: clock})
		defer func() { _ = r.Close() }()
		r.Configure([]*upstreams.Config{{ID: "keeper", Limits: []upstreams.Limit{
			{Limit: limits.Limit{Kind: limits.IdleReset, N: 3, Period: 10 * time.Second, MaxWait: time.Minute}},
		}}})
		u, began := r.ByID("keeper"), time.Now()
		var passed []time.Duration
		for range 7 {
			v, err := u.Admit(t.Context(), upstreams.Request{Cost: 1})
			if err != nil || v.Reason != "" {
				t.Fatalf("Admit = %+v, %v, want it let pass", v, err)
			}
			passed = append(passed, time.Since(began))
			time.AfterFunc(2*time.Second, func() { u.Observe(clock.Now(), upstreams.Answer{Status: 200}) })
		}
		for i, at := range passed {
			if want := time.Duration(i/3) * 12 * time.Second; at < want || at > want+100*time.Millisecond {
				t.Errorf("request %d passed after %v, want %v", i, at, want)
			}
		}
	})
}
