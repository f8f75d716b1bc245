package restore

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/allowance"
	"github.com/tollgate-dev/tollgate/limits"
)

// Progress is how far a run is.
type Progress struct {
	Objects, Done, Failed, Flying int // external secrets
	Calls, CallsDone              int
	Wave, Waves, Priority         int           // Wave counts from 1
	Why                           string        // nothing is sent just now; "": it is
	Left                          time.Duration // to go
}

// progress sums up.
func (r *runner) progress(now time.Time) Progress {
	p := Progress{Waves: len(r.waves), Wave: min(r.wave+1, len(r.waves)), Why: r.why}
	if p.Wave > 0 {
		p.Priority = r.waves[p.Wave-1].Priority
	}
	for _, t := range r.targets {
		p.Objects += len(t.Members)
		p.Calls += t.Calls
	}
	p.Done, p.CallsDone = r.done.objects, r.done.calls
	for _, f := range r.flying {
		p.Flying += len(f.target.Members)
	}
	left := p.Calls - p.CallsDone
	for _, f := range r.failed {
		p.Failed += len(f.Target.Members)
		left -= f.Target.Calls
	}
	p.Left = Estimate(now, r.state, left)
	if n := r.sent; int64(n) > 2*max(1, r.state.WorkingLimit) { // measured is better than calculated
		p.Left = time.Duration(float64(now.Sub(r.began)) * float64(left) / float64(n))
	}
	return p
}

// Estimate returns how long calls take at the least, by what an upstream allows.
func Estimate(now time.Time, s allowance.State, calls int) time.Duration {
	longest := time.Duration(0)
	for _, l := range s.Limits {
		n, period, err := limits.ParseRate(l.Working)
		if err != nil || n <= 0 {
			continue // a quota, or nothing is allowed at all
		}
		if later := int64(calls) - l.Remaining; later > 0 {
			longest = max(longest, time.Duration((later+n-1)/n)*period)
		}
	}
	for _, b := range s.Budget {
		if int64(calls) > b.Calls-b.Used {
			longest = max(longest, b.End.Sub(now))
		}
	}
	if s.Paused() && s.Until != nil {
		longest += max(0, s.Until.Sub(now))
	}
	return longest
}

// String is one line.
func (p Progress) String() string {
	s := fmt.Sprintf("%d/%d restored, %d under way", p.Done, p.Objects, p.Flying)
	if p.Failed > 0 {
		s += fmt.Sprintf(", %d failed", p.Failed)
	}
	if p.Waves > 1 {
		s += fmt.Sprintf(", wave %d of %d (priority %d)", p.Wave, p.Waves, p.Priority)
	}
	switch {
	case p.Why != "":
		s += ", waiting: " + p.Why
	case p.Done+p.Failed < p.Objects:
		s += ", " + p.Left.Round(time.Second).String() + " to go"
	}
	return s
}

// Bar returns a function that shows progress on a terminal, in one line.
func Bar(w io.Writer) func(Progress) {
	const width = 24
	return func(p Progress) {
		full := 0
		if p.Objects > 0 {
			full = width * p.Done / p.Objects
		}
		fmt.Fprintf(w, "\r\x1b[K[%s%s] %v", strings.Repeat("#", full), strings.Repeat(".", width-full), p)
	}
}

// Lines returns a function that shows progress as lines: at most one in a time, but
// at once what makes the run wait and what lets it go on.
func Lines(w io.Writer, every time.Duration) func(Progress) {
	var last Progress
	var at time.Time
	return func(p Progress) {
		now := time.Now()
		if p.Why == last.Why && p.Wave == last.Wave && now.Sub(at) < every && p.Done+p.Failed < p.Objects {
			return
		}
		if p.String() != last.String() {
			fmt.Fprintln(w, p)
		}
		last, at = p, now
	}
}
