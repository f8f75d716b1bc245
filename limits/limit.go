package limits

import (
	"strconv"
	"time"
)

// Kind names an algorithm.
type Kind string

// The built-in kinds. The package documentation explains each.
const (
	Rate            Kind = "rate"              // token bucket with burst and warm-up
	Window          Kind = "window"            // never more than N in any window
	Quota           Kind = "quota"             // N per calendar period
	Pace            Kind = "pace"              // evenly spaced
	IdleReset       Kind = "idle_reset"        // N, then a silence
	FixedWindow     Kind = "fixed_window"      // N per epoch-aligned window
	SmoothBursty    Kind = "smooth_bursty"     // Guava's RateLimiter.create(rate)
	SmoothWarmingUp Kind = "smooth_warming_up" // Guava's RateLimiter.create(rate, warmup)
)

// MaxN is the largest N, burst and cost: the largest whole number that JSON
// and YAML readers everywhere agree on.
const MaxN = 1 << 53

// Limit says what is allowed. It is a plain value; [Compile] checks it and
// makes it ready to decide.
type Limit struct {
	Name   string // shown to clients and operators; empty means the kind and value, as rate-100-s
	Kind   Kind
	N      int64         // how many per Period; 0 blocks everything
	Period time.Duration // unused by Quota
	Burst  int64         // Rate: what the bucket holds; 0 means one second's worth, at least 1

	Calendar Calendar       // Quota: the period
	Location *time.Location // Quota: whose midnight; nil means UTC

	WarmUp  WarmUp        // Rate; of SmoothWarmingUp only Ramp, Guava's warm-up period
	MaxWait time.Duration // hold a request this long for its turn; 0 refuses at once
	Shadow  bool          // decide and count, but never refuse
	OnError OnError       // of a limit that instances share: how it decides while their store is away
}

// OnError says how a shared limit decides while its store cannot be asked.
type OnError string

// The ways to go on without the store. The empty one is as the [Lender] is set up.
const (
	OnErrorLocal OnError = "local" // with this instance's share
	OnErrorAllow OnError = "allow"
	OnErrorDeny  OnError = "deny"
)

// WarmUp opens a new limiter gently. The zero value switches it off. A request
// that costs more than the burst is refused all along.
type WarmUp struct {
	Grace      time.Duration // this long nothing is limited
	GraceLimit int64         // so many at most go free in the grace; 0 means no cap
	Ramp       time.Duration // over this time the rate comes down to the limit's
	Idle       time.Duration // a limiter unused for longer warms up anew; 0 means never
}

// Calendar is the length of a quota's period.
type Calendar string

// The calendar periods. Weeks start on Monday (ISO 8601).
const (
	Minute Calendar = "minute"
	Hour   Calendar = "hour"
	Day    Calendar = "day"
	Week   Calendar = "week"
	Month  Calendar = "month"
	Year   Calendar = "year"
)

// length returns how long a period is on average.
func (c Calendar) length() time.Duration {
	switch c {
	case Minute:
		return time.Minute
	case Hour:
		return time.Hour
	case Day:
		return 24 * time.Hour
	case Week:
		return 7 * 24 * time.Hour
	case Month:
		return 365 * 24 * time.Hour / 12
	case Year:
		return 365 * 24 * time.Hour
	}
	return 0
}

// name is what a limit is called that nobody named.
func (l Limit) name() string {
	unit := string(l.Calendar)
	if l.Kind != Quota {
		unit = formatUnit(l.Period)
	}
	return string(l.Kind) + "-" + strconv.FormatInt(l.N, 10) + "-" + unit
}

// perSecond returns the rate that l comes to in the long run.
func (l Limit) perSecond() float64 {
	period := l.Period
	if l.Kind == Quota {
		period = l.Calendar.length()
	}
	return float64(l.N) / period.Seconds()
}
