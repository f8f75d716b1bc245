package upstreams_test

import (
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams/upstreamstest"
	"github.com/tollgate-dev/tollgate/limits"
)

func budget(b upstreams.Budget) *upstreams.Config {
	c := config()
	c.Budget = &b
	return c
}

func admit(t *testing.T, u *upstreams.Upstream, r upstreams.Request) upstreams.Reason {
	t.Helper()
	r.Cost = 1
	v, err := u.Admit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return v.Reason
}

// TestBudgetStops is K-23: the levels are told once each, classes keep what is in
// reserve for them, and the end is hard.
func TestBudgetStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var levels []float64
		o := upstreams.Options{Changed: func(e upstreams.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == upstreams.BudgetReached {
				levels = append(levels, e.Alert.Level)
			}
		}}
		b := upstreamstest.NewBench(t, budget(upstreams.Budget{
			Periods: []upstreams.Period{{Calls: 100, Calendar: limits.Day}, {Calls: 1000, Calendar: limits.Month}},
			Alerts:  []float64{0.5, 0.8, 0.95},
			Classes: []upstreams.Class{{Name: "webhook", Reserve: 0.1}, {Name: "periodic", Reserve: 0.05}, {Name: "retry"}},
		}), nil, o)
		defer b.End()
		passed := map[string]int{}
		for _, class := range []string{"unknown", "retry", "periodic", "webhook"} {
			for range 100 {
				if admit(t, b.Upstream, upstreams.Request{Class: class}) == "" {
					passed[class]++
				}
			}
		}
		if diff := cmp.Diff(map[string]int{"unknown": 85, "periodic": 5, "webhook": 10}, passed); diff != "" {
			t.Errorf("passed by class (-want +got):\n%s", diff)
		}
		mu.Lock()
		if diff := cmp.Diff([]float64{0.5, 0.8, 0.95}, levels); diff != "" {
			t.Errorf("alerts (-want +got):\n%s", diff)
		}
		mu.Unlock()
		s := b.Status()
		if s.Budget[0].Used != 100 || s.Budget[1].Used != 100 || s.Counts.Spent != 300 || s.Budget[0].Alert != 0.95 {
			t.Errorf("status %+v, want 100 used of both, 300 refused", s.Budget)
		}
		if diff := cmp.Diff(map[string]int64{"retry": 85, "periodic": 5, "webhook": 10}, s.Budget[0].Classes); diff != "" {
			t.Errorf("classes (-want +got):\n%s", diff)
		}
		v, _ := b.Upstream.Admit(t.Context(), upstreams.Request{Cost: 1})
		if v.Reason != upstreams.Spent || v.Wait < s.Budget[0].End.Sub(b.Clock.Now()) {
			t.Errorf("Admit = %+v, want spent until the day ends", v)
		}
		time.Sleep(s.Budget[0].End.Sub(b.Clock.Now()))
		if got := admit(t, b.Upstream, upstreams.Request{}); got != "" {
			t.Errorf("the next day: %s, want it let pass", got)
		}
		if s := b.Status(); s.Budget[0].Used != 1 || s.Budget[1].Used != 101 {
			t.Errorf("the next day %+v, want 1 of the day and 101 of the month", s.Budget)
		}
	})
}

// A soft budget tells, and stops nobody.
func TestSoftBudget(t *testing.T) {
	b := upstreamstest.NewBench(t, budget(upstreams.Budget{Periods: []upstreams.Period{{Calls: 1, Calendar: limits.Month}}, Soft: true}), nil, upstreams.Options{})
	defer b.End()
	for range 3 {
		if got := admit(t, b.Upstream, upstreams.Request{}); got != "" {
			t.Errorf("Admit = %s, want it let pass", got)
		}
	}
	if got := b.Status().Budget[0].Used; got != 3 {
		t.Errorf("%d used, want 3", got)
	}
}

// What a kill loses is what came after the last flush, and nothing is counted
// twice; the state goes through JSON as in the store.
func TestBudgetSurvivesKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept []byte
		o := upstreams.Options{Keep: func(_ string, s upstreams.Saved) (err error) {
			kept, err = json.Marshal(s)
			return err
		}}
		c := budget(upstreams.Budget{Periods: []upstreams.Period{{Calls: 1000, Calendar: limits.Month}}, Alerts: []float64{0.01}})
		used := int64(0)
		for life := range 5 {
			b := upstreamstest.NewBench(t, c, nil, o)
			if got := b.Status().Budget[0]; got.Used != used || life > 0 && got.Alert != 0.01 {
				t.Errorf("life %d starts with %+v, want %d used", life, got, used)
			}
			for range 10 {
				admit(t, b.Upstream, upstreams.Request{})
			}
			b.Registry.Flush()
			used += 10
			lost := kept
			for range 3 { // after the flush, lost with the kill
				admit(t, b.Upstream, upstreams.Request{})
			}
			b.End()
			var s upstreams.Saved
			if err := json.Unmarshal(lost, &s); err != nil {
				t.Fatal(err)
			}
			o.Saved = map[string]upstreams.Saved{"keeper": s}
		}
	})
}

// Periods are those of the calendar somewhere, also where clocks change.
func TestBudgetPeriods(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		calendar limits.Calendar
		at, next string
	}{
		{limits.Day, "2026-03-29T00:30:00+01:00", "2026-03-30T00:00:00+02:00"}, // 23 hours
		{limits.Day, "2026-10-25T00:30:00+02:00", "2026-10-26T00:00:00+01:00"}, // 25 hours
		{limits.Month, "2026-02-28T23:59:59+01:00", "2026-03-01T00:00:00+01:00"},
		{limits.Month, "2026-10-31T23:30:00+01:00", "2026-11-01T00:00:00+01:00"},
		{limits.Month, "2026-12-31T23:59:59+01:00", "2027-01-01T00:00:00+01:00"},
	} {
		at, _ := time.Parse(time.RFC3339, c.at)
		next, _ := time.Parse(time.RFC3339, c.next)
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(at))
			b := upstreamstest.NewBench(t, budget(upstreams.Budget{Periods: []upstreams.Period{{Calls: 1, Calendar: c.calendar}}, Location: berlin}), nil, upstreams.Options{})
			defer b.End()
			admit(t, b.Upstream, upstreams.Request{})
			if end := b.Status().Budget[0].End.Std(); !end.Equal(next) {
				t.Errorf("%s of %s ends at %v, want %v", c.calendar, c.at, end, next)
			}
			time.Sleep(time.Until(next) - 1)
			if got := admit(t, b.Upstream, upstreams.Request{}); got != upstreams.Spent {
				t.Errorf("%s: a nanosecond before %s %q, want spent", c.calendar, c.next, got)
			}
			time.Sleep(time.Nanosecond)
			if got := admit(t, b.Upstream, upstreams.Request{}); got != "" {
				t.Errorf("%s: at %s %q, want it let pass", c.calendar, c.next, got)
			}
		})
	}
}

// TestForecast is K-24: on a steady load the forecast is right within 5 % after
// an hour, also where counting began within the period; calls are put down to
// labels, bounded in number.
func TestForecast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(36 * time.Hour) // into the month
		c := budget(upstreams.Budget{Periods: []upstreams.Period{{Calls: 1_000_000, Calendar: limits.Month}}, Price: 0.01})
		b := upstreamstest.NewBench(t, c, nil, upstreams.Options{})
		defer b.End()
		end := b.Status().Budget[0].End
		want := end.Sub(b.Clock.Now()) / (30 * time.Second)
		for i := range 2 * 60 * 24 {
			admit(t, b.Upstream, upstreams.Request{Label: []string{"a", "b", "b"}[i%3]})
			time.Sleep(30 * time.Second)
			if i < 120 {
				continue
			}
			got := b.Status().Budget[0].Forecast
			if float64(got) < 0.95*float64(want) || float64(got) > 1.05*float64(want) {
				t.Fatalf("forecast after %d calls is %d, want %d within 5 %%", i+1, got, want)
			}
		}
		s := b.Status().Budget[0]
		if diff := cmp.Diff(map[string]int64{"a": 960, "b": 1920}, s.Labels); diff != "" {
			t.Errorf("labels (-want +got):\n%s", diff)
		}
		if s.Cost != 28.8 {
			t.Errorf("cost %v of %d calls, want 28.8", s.Cost, s.Used)
		}
		for i := range 500 {
			admit(t, b.Upstream, upstreams.Request{Label: time.Duration(i).String()})
		}
		if got := b.Status().Budget[0].Labels; len(got) > 101 || got["other"] != 402 {
			t.Errorf("%d labels, %d other, want at most 101 and 402", len(got), got["other"])
		}
	})
}
