package descriptors

import (
	"strings"
	"time"
)

// Unit is the length of a rule's window. Its numbers are those of Envoy's
// RateLimitResponse.RateLimit.Unit, and of envoy.type.v3.RateLimitUnit as far
// as that goes, so that a conversion is a cast.
type Unit int32

// The units. Month and year are calendar months and years in UTC.
const (
	UnitUnset Unit = iota
	Second
	Minute
	Hour
	Day
	Month
	Year
	Week
)

const unitNames = "second, minute, hour, day, week, month, year"

// String returns the unit in lower case, as rule files write it.
func (u Unit) String() string {
	switch u {
	case Second:
		return "second"
	case Minute:
		return "minute"
	case Hour:
		return "hour"
	case Day:
		return "day"
	case Week:
		return "week"
	case Month:
		return "month"
	case Year:
		return "year"
	}
	return "unknown"
}

// ParseUnit reads a unit's name in any letter case.
func ParseUnit(s string) (u Unit, ok bool) {
	for u := Second; u <= Week; u++ {
		if strings.EqualFold(s, u.String()) {
			return u, true
		}
	}
	return UnitUnset, false
}

// length returns how long a unit lasts: of a month and a year, 30 and 365 days.
// It is 0 where there is no such unit.
func (u Unit) length() time.Duration {
	const day = 24 * time.Hour
	switch u {
	case Second:
		return time.Second
	case Minute:
		return time.Minute
	case Hour:
		return time.Hour
	case Day:
		return day
	case Week:
		return 7 * day
	case Month:
		return 30 * day
	case Year:
		return 365 * day
	}
	return 0
}
