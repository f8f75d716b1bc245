package upstreamstest

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
)

// Fake is an upstream that allows N requests per Period, as its Model counts
// them. Each request that it refuses makes the next wait longer, as Keeper does.
// Set the fields before the first request.
type Fake struct {
	Model   string // fixed, sliding, idle (cleared by a silence) or bucket
	N       int
	Period  time.Duration
	Penalty time.Duration // after the first refusal, doubled by each further one; 0: none

	Refuse func(wait time.Duration) upstreams.Answer // nil: Throttled

	mu      sync.Mutex
	taken   []time.Time // of sliding, in the last period
	window  int64       // of fixed
	count   int
	tokens  float64 // of bucket
	last    time.Time
	blocked time.Time
	seen    Seen
}

// Seen is what a Fake has seen.
type Seen struct {
	Passed, Refused int
	Early           int // of those refused, while a penalty ran
	Incidents       int // refusals that began a penalty
	At              []time.Time
}

// Seen returns what the upstream has seen so far.
func (f *Fake) Seen() Seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	seen.At = append([]time.Time(nil), f.seen.At...)
	return seen
}

// SetN changes what the upstream allows.
func (f *Fake) SetN(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.N = n
}

// Ask answers a request.
func (f *Fake) Ask() upstreams.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.seen.At = append(f.seen.At, now)
	switch {
	case now.Before(f.blocked):
		f.seen.Early++
	case f.takes(now):
		f.seen.Passed++
		return upstreams.Answer{Status: 200}
	default:
		f.seen.Incidents++
	}
	f.seen.Refused++
	f.blocked = now.Add(f.Penalty << min(f.seen.Refused-1, 4))
	if f.Refuse != nil {
		return f.Refuse(f.blocked.Sub(now))
	}
	return Throttled(f.blocked.Sub(now))
}

// takes counts a request, and reports whether it is one too many.
func (f *Fake) takes(now time.Time) bool {
	switch f.Model {
	case "fixed":
		if w := now.UnixNano() / int64(f.Period); w != f.window {
			f.window, f.count = w, 0
		}
	case "sliding":
		for len(f.taken) > 0 && now.Sub(f.taken[0]) >= f.Period {
			f.taken = f.taken[1:]
		}
		if f.count = len(f.taken); f.count < f.N {
			f.taken = append(f.taken, now)
		}
	case "idle":
		if now.Sub(f.last) >= f.Period {
			f.count = 0
		}
		f.last = now
	case "bucket":
		f.tokens = min(float64(f.N), f.tokens+float64(f.N)*now.Sub(f.last).Seconds()/f.Period.Seconds())
		if f.last.IsZero() {
			f.tokens = float64(f.N)
		}
		f.last = now
		if f.tokens < 1 {
			return false
		}
		f.tokens--
		return true
	}
	f.count++
	return f.count <= f.N
}

// Throttled is Keeper's refusal.
func Throttled(wait time.Duration) upstreams.Answer {
	body := fmt.Sprintf(`{"error":"throttled","message":"get_secret","retry_after":%s}`, strconv.FormatFloat(wait.Seconds(), 'f', -1, 64))
	return upstreams.Answer{Status: 403, Body: []byte(body)}
}
