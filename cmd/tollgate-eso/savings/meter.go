// Package savings measures what webhooks save.
//
// A [Meter] is told of every change of an external secret and counts the
// refreshes that it sees by status.refreshTime, each as many calls as the
// external secret reads: so it counts what External Secrets did, whatever made it
// do so. Beside that stands what the same external secrets would have called in
// the same time by polling.
package savings

import (
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Meter counts since it was made. Its methods are safe for concurrent use.
type Meter struct {
	was   time.Duration
	since time.Time

	mu        sync.Mutex
	at        time.Time // until when polled is reckoned
	perPoll   int       // calls of one round of polling all that there is
	polled    float64
	calls     int64
	refreshes int64
}

// New returns a meter that compares with polling every `was`.
func New(now time.Time, was time.Duration) *Meter {
	return &Meter{was: was, since: now, at: now}
}

// Changed takes in a change of an external secret; before is nil for one that is
// new, after for one that is gone.
func (m *Meter) Changed(now time.Time, before, after *eso.ExternalSecret) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reckon(now)
	if before != nil {
		m.perPoll -= before.Calls()
	}
	if after == nil {
		return
	}
	m.perPoll += after.Calls()
	if t := after.Status.RefreshTime; before != nil && !t.IsZero() && !t.Equal(&before.Status.RefreshTime) {
		m.refreshes++
		m.calls += int64(after.Calls())
	}
}

// reckon adds what polling would have called since it was reckoned last.
func (m *Meter) reckon(now time.Time) {
	if d := now.Sub(m.at); d > 0 {
		m.polled += float64(m.perPoll) * float64(d) / float64(m.was)
		m.at = now
	}
}

// Report is what was measured.
type Report struct {
	Since     time.Time `json:"since"`
	Refreshes int64     `json:"refreshes"`    // seen
	Calls     int64     `json:"calls"`        // that they made
	Polling   int64     `json:"polling"`      // calls that polling would have made in that time
	Every     string    `json:"polled_every"` // how often that is
	Saved     float64   `json:"saved"`        // part of them; below 0: polling would have been less
	PerDay    int64     `json:"calls_per_day"`
}

// Report returns what was measured until now.
func (m *Meter) Report(now time.Time) Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reckon(now)
	r := Report{Since: m.since.UTC(), Refreshes: m.refreshes, Calls: m.calls, Polling: int64(m.polled), Every: m.was.String()}
	if m.polled >= 1 {
		r.Saved = 1 - float64(m.calls)/m.polled
	}
	if d := now.Sub(m.since); d > 0 {
		r.PerDay = int64(float64(m.calls) * float64(24*time.Hour) / float64(d))
	}
	return r
}
