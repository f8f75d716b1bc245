package plan

import (
	"fmt"
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Report is what objects cost, and whether the upstream allows it.
type Report struct {
	Allowance     Allowance
	Objects       []Object
	Batch         int64         // calls that may come together
	Pitch         time.Duration // between batches
	CallsPerDay   float64
	CallsPerMonth float64 // of 31 days
	Cost          float64 // of a month; 0: no price is known
	Peak          int64   // calls when all refresh at the same time, as after all were made
	PeakLasts     time.Duration
	PlannedPeak   int64         // calls in the fullest batch of the plan
	Smallest      time.Duration // the least interval that all could have; 0: there is none
	Waves         []Wave        // without those that windows, or nobody, refresh
	Failing       []Object
	FailingPerDay float64  // calls of objects that fail for ever
	Problems      []string // why it does not fit; none: it does
	Notes         []string
}

// Fits reports whether the upstream allows what the objects ask for.
func (r *Report) Fits() bool { return len(r.Problems) == 0 }

// Make holds objects against what is allowed.
func Make(objects []Object, a Allowance) *Report {
	r := &Report{Allowance: a, Objects: objects}
	r.Batch, r.Pitch = a.Batch()
	var periodic, windowed []Object
	for _, o := range objects {
		r.Peak += int64(o.Calls)
		r.CallsPerDay += perDay(o) * float64(o.Calls)
		switch {
		case o.Every > 0 && o.Windows != nil && len(o.Windows.Windows) > 0:
			windowed = append(windowed, o)
		case o.Every > 0:
			periodic = append(periodic, o)
		}
		if o.Failing != "" {
			r.Failing = append(r.Failing, o)
			r.FailingPerDay += math.Ceil(float64(day)/float64(eso.LongestRetry)) * float64(o.Calls)
		}
	}
	r.CallsPerMonth = r.CallsPerDay * float64(month/day)
	r.Cost = r.CallsPerMonth * a.Price
	if r.Batch > 0 {
		r.PeakLasts = time.Duration((r.Peak+r.Batch-1)/r.Batch) * r.Pitch
	}
	r.checkBudgets()
	r.spread(periodic, windowed)
	r.note(len(objects)-len(periodic)-len(windowed), windowed)
	return r
}

func (r *Report) checkBudgets() {
	for _, b := range r.Allowance.Budgets {
		period := longest[b.Calendar]
		if asked := r.CallsPerDay * float64(period) / float64(day); asked > float64(b.Calls) {
			r.problem("%.0f calls per %s are more than the budget of %d", math.Ceil(asked), b.Calendar, b.Calls)
		}
	}
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// spread makes the plan. Objects with windows refresh when those open, all at
// once and at any time: their calls are left free in every batch.
func (r *Report) spread(periodic, windowed []Object) {
	batch := r.Batch
	var together int64
	for _, o := range windowed {
		together += int64(o.Calls)
	}
	if together > batch {
		r.problem("objects with syncWindows make %d calls when the windows open, and no more than %d may come at once: give them different windows, or leave the windows out", together, batch)
		together = 0
	}
	var err error
	if r.Smallest, err = smallest(append(periodic, windowed...), r.Allowance); err != nil {
		r.problem("%v", err)
		return
	}
	var full []Object
	r.Waves, full = schedule(periodic, batch-together, r.Pitch)
	if len(full) > 0 {
		r.problem("%d of %d objects find no place between the others, as %s every %v: no more than %d calls may come every %v", len(full), len(periodic), full[0], full[0].Every, batch-together, r.Pitch.Round(time.Millisecond))
	}
	for _, w := range r.Waves {
		r.PlannedPeak = max(r.PlannedPeak, w.Calls+together)
	}
}

func (r *Report) note(never int, windowed []Object) {
	add := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	if r.Peak > r.Batch {
		add("all at once, as after a restore, they make %d calls, which takes %v: Tollgate's egress holds them, without it the plan must be followed", r.Peak, r.PeakLasts.Round(time.Second))
	}
	if never > 0 {
		add("%d objects are read once, and not again by themselves", never)
	}
	if len(windowed) > 0 {
		add("%d objects have syncWindows, which decide when they refresh: they are not in the plan", len(windowed))
	}
	if len(r.Failing) > 0 {
		add("%d objects fail: External Secrets tries each again every %v, whatever its interval, up to %.0f calls a day for nothing", len(r.Failing), eso.LongestRetry, r.FailingPerDay)
	}
}
