package extauthz

import (
	"math"
	"strconv"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// maxInteger is the largest integer of a structured field (RFC 9651 section 3.3.1).
const maxInteger = 999_999_999_999_999

// shown is a limit that headers tell of, and what it said.
type shown struct {
	spec     *limits.Spec
	decision *limits.Decision
}

// limitHeaders appends the rate-limit headers of a decision: one item for every
// limit that was asked, shadows left out, or for the limit of an upstream that
// refused.
func (a *answer) limitHeaders(to []ReplyHeader, d *Verdict) []ReplyHeader {
	a.shown = a.shown[:0]
	for i := range d.Claims {
		if c := &d.Claims[i]; shows(c) {
			a.shown = append(a.shown, shown{c.Limiter.Spec(), &c.Decision})
		}
	}
	if d.why != "" && d.Limit != nil {
		a.shown = append(a.shown, shown{d.Limit, &d.Decision})
	}
	if len(a.shown) == 0 {
		return to
	}
	switch d.Headers {
	case HeadersIETF:
		to = a.list(to, "ratelimit-policy", appendPolicy)
		return a.list(to, "ratelimit", appendState)
	case HeadersDraft03:
		return a.draft03(to)
	}
	return to
}

// list appends a structured field with one item for each limit.
func (a *answer) list(to []ReplyHeader, name string, item func([]byte, shown) []byte) []ReplyHeader {
	start := len(a.text)
	for i, s := range a.shown {
		if i > 0 {
			a.text = append(a.text, ", "...)
		}
		a.text = item(a.text, s)
	}
	return a.take(to, name, start)
}

// appendPolicy writes an item of RateLimit-Policy: "NAME";q=N;w=SECONDS.
func appendPolicy(b []byte, s shown) []byte {
	l := s.spec.Limit()
	n, seconds := perSeconds(&l)
	b = appendName(b, l.Name)
	b = append(b, ";q="...)
	b = strconv.AppendInt(b, n, 10)
	b = append(b, ";w="...)
	return strconv.AppendInt(b, seconds, 10)
}

// appendState writes an item of RateLimit: "NAME";r=REMAINING;t=SECONDS.
func appendState(b []byte, s shown) []byte {
	b = appendName(b, s.spec.Limit().Name)
	b = append(b, ";r="...)
	b = strconv.AppendInt(b, remaining(s.decision), 10)
	b = append(b, ";t="...)
	return strconv.AppendInt(b, reset(s.decision), 10)
}

// draft03 writes the three headers as Envoy's DRAFT_VERSION_03: the numbers are
// those of the limit with the least left, followed by all policies.
func (a *answer) draft03(to []ReplyHeader) []ReplyHeader {
	least := a.shown[0]
	for _, s := range a.shown[1:] {
		if s.decision.Remaining < least.decision.Remaining {
			least = s
		}
	}
	l := least.spec.Limit()
	n, _ := perSeconds(&l)
	start := len(a.text)
	a.text = strconv.AppendInt(a.text, n, 10)
	for _, s := range a.shown {
		l := s.spec.Limit()
		n, seconds := perSeconds(&l)
		a.text = append(a.text, ", "...)
		a.text = strconv.AppendInt(a.text, n, 10)
		a.text = append(a.text, ";w="...)
		a.text = strconv.AppendInt(a.text, seconds, 10)
		a.text = append(a.text, ";name="...)
		a.text = appendName(a.text, l.Name)
	}
	to = a.take(to, "x-ratelimit-limit", start)
	start = len(a.text)
	a.text = strconv.AppendInt(a.text, remaining(least.decision), 10)
	to = a.take(to, "x-ratelimit-remaining", start)
	start = len(a.text)
	a.text = strconv.AppendInt(a.text, reset(least.decision), 10)
	return a.take(to, "x-ratelimit-reset", start)
}

func remaining(d *limits.Decision) int64 {
	return min(max(0, d.Remaining), maxInteger)
}

// reset returns the seconds until a limit is whole again, or for one that
// refused until it would admit: Retry-After is never earlier than that.
func reset(d *limits.Decision) int64 {
	if !d.Allowed && d.Wait != limits.Never {
		return ceilSeconds(d.Wait)
	}
	return max(0, ceilSeconds(d.Reset))
}

// wholeEnough is from which period on a part of a second matters little.
const wholeEnough = 10 * time.Second

// perSeconds returns a limit as a number and whole seconds, which is how the
// headers count. A short window that is no whole number of seconds is multiplied until
// it is, and any other rounded up.
func perSeconds(l *limits.Limit) (n, seconds int64) {
	period := l.Period
	if l.Kind == limits.Quota {
		period = calendarLength(l.Calendar)
	}
	n = l.N
	if rest := period % time.Second; rest != 0 {
		k := int64(time.Second / gcd(rest, time.Second))
		switch {
		case k <= 1000 && period < wholeEnough && n < math.MaxInt64/1000:
			n, period = n*k, period*time.Duration(k)
		case period < time.Second:
			n, period = int64(min(float64(n)*float64(time.Second)/float64(period), maxInteger)), time.Second
		}
	}
	return min(n, maxInteger), max(1, ceilSeconds(period))
}

func gcd(a, b time.Duration) time.Duration {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// calendarLength returns the length of a period as Envoy counts it.
func calendarLength(c limits.Calendar) time.Duration {
	const day = 24 * time.Hour
	switch c {
	case limits.Minute:
		return time.Minute
	case limits.Hour:
		return time.Hour
	case limits.Week:
		return 7 * day
	case limits.Month:
		return 30 * day
	case limits.Year:
		return 365 * day
	}
	return day
}

// appendName writes a structured field's string (RFC 9651 section 3.3.3).
func appendName(b []byte, name string) []byte {
	b = append(b, '"')
	for i := range len(name) {
		switch c := name[i]; {
		case c < ' ' || c > '~':
			b = append(b, '?')
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
