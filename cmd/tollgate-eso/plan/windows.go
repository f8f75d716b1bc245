package plan

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// windows are sync windows that can be asked.
type windows struct {
	allow bool
	all   []window
}

type window struct {
	schedule cron.Schedule
	duration time.Duration
}

// parseWindows reads the windows of an object; nil: there are none.
func parseWindows(w *eso.SyncWindows) (*windows, error) {
	if w == nil || len(w.Windows) == 0 {
		return nil, nil
	}
	if w.Kind != "allow" && w.Kind != "deny" {
		return nil, fmt.Errorf("kind %q: want allow or deny", w.Kind)
	}
	p := &windows{allow: w.Kind == "allow"}
	for _, one := range w.Windows {
		s, err := cron.ParseStandard(one.Schedule)
		if err != nil {
			return nil, fmt.Errorf("schedule %q: %w", one.Schedule, err)
		}
		if one.Duration.Duration <= 0 {
			return nil, fmt.Errorf("duration %v of schedule %q: want one above 0", one.Duration.Duration, one.Schedule)
		}
		p.all = append(p.all, window{s, one.Duration.Duration})
	}
	return p, nil
}

// open reports whether a periodic refresh may happen at t.
func (w *windows) open(t time.Time) bool {
	for _, one := range w.all {
		if start := one.schedule.Next(t.Add(-one.duration)); !start.After(t) {
			return w.allow
		}
	}
	return !w.allow
}

// measured is how long refreshes are counted for: four weeks, so that weekdays
// count as often as they come.
const measured = 28 * day

// perDay returns how often an object refreshes on the average of days. Outside of
// its windows it waits for the next minute that is in one.
func perDay(o Object) float64 {
	w, _ := parseWindows(o.Windows) // they were checked when they were read; a cluster's by its own admission
	switch {
	case o.Every <= 0:
		return 0
	case w == nil:
		return float64(day) / float64(o.Every)
	}
	const step = time.Minute
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) // a Monday
	n, due := 0, start
	for t := start; t.Sub(start) < measured; {
		if !t.Before(due) && w.open(t) {
			n++
			due = t.Add(o.Every)
			if o.Every > step {
				t = due.Truncate(step)
				continue
			}
		}
		t = t.Add(step)
	}
	if o.Every < step { // several in each minute that is open
		return float64(n) * float64(step) / float64(o.Every) * float64(day) / float64(measured)
	}
	return float64(n) * float64(day) / float64(measured)
}
