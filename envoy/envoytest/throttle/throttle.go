// Package throttle is an upstream that throttles those who call it too often,
// as such APIs do: it counts by one of three models, and whoever goes on calling
// while refused waits longer. It is for tests and examples; it speaks no API's
// protocol.
package throttle

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// Model is how calls are counted.
type Model string

// The models.
const (
	IdleReset Model = "idle-reset" // the count is cleared by a silence of the window's length, and by nothing else
	Fixed     Model = "fixed"      // the count is cleared at the end of each window
	Sliding   Model = "sliding"    // never more than N in any window
)

// Options of an upstream.
type Options struct {
	Model  Model
	N      int           // calls that it takes in a window
	Window time.Duration // also the first penalty
	Most   time.Duration // the longest penalty; 0: sixteen windows
}

// Throttle counts calls. It is safe for concurrent use.
type Throttle struct {
	o Options

	mu      sync.Mutex
	calls   []time.Time // that were taken in this window
	last    time.Time   // call, taken or not
	blocked time.Time   // until when nothing is taken
	penalty time.Duration
	grown   time.Time // when the penalty was lengthened last
	log     []Call
}

// Call is one call that reached the upstream.
type Call struct {
	At    time.Time
	Taken bool
}

// New returns an upstream that nobody has called.
func New(o Options) *Throttle {
	if o.Most == 0 {
		o.Most = 16 * o.Window
	}
	return &Throttle{o: o}
}

// Take counts a call and reports whether it is taken. One that is refused
// prolongs the penalty; one that comes a window after the last lengthening
// doubles it.
func (t *Throttle) Take(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := !now.Before(t.blocked) && t.count(now) < t.o.N
	t.last = now
	t.log = append(t.log, Call{now, taken})
	if taken {
		t.calls = append(t.calls, now)
		return true
	}
	switch {
	case t.penalty == 0 || now.Sub(t.blocked) > t.o.Most:
		t.penalty, t.grown = t.o.Window, now
	case now.Sub(t.grown) >= t.o.Window:
		t.penalty, t.grown = min(2*t.penalty, t.o.Most), now
	}
	t.blocked = now.Add(t.penalty)
	return false
}

// count forgets what does not count any more and returns how many calls do.
func (t *Throttle) count(now time.Time) int {
	switch t.o.Model {
	case IdleReset:
		if now.Sub(t.last) >= t.o.Window {
			t.calls = t.calls[:0]
		}
	case Fixed:
		if len(t.calls) > 0 && t.calls[0].Truncate(t.o.Window) != now.Truncate(t.o.Window) {
			t.calls = t.calls[:0]
		}
	case Sliding:
		t.calls = slices.DeleteFunc(t.calls, func(at time.Time) bool { return now.Sub(at) >= t.o.Window })
	}
	return len(t.calls)
}

// Calls returns all calls so far, in order.
func (t *Throttle) Calls() []Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.log)
}

// Throttled returns how many of all calls were refused.
func (t *Throttle) Throttled() int {
	n := 0
	for _, c := range t.Calls() {
		if !c.Taken {
			n++
		}
	}
	return n
}

// ServeHTTP answers 200 or, as Keeper's API does, 403 with a JSON body.
func (t *Throttle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if t.Take(time.Now()) {
		_, _ = w.Write([]byte("taken\n")) // a client that is gone needs no answer
		return
	}
	Refuse(w, r)
}

// Refuse answers as Keeper's API does when it throttles.
func Refuse(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write([]byte(`{"path":"https://` + r.Host + r.URL.Path + `, POST","additional_info":"throttled","location":"","error":"throttled","message":"get_secret"}`))
}
