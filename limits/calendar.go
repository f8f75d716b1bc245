package limits

import (
	"sync/atomic"
	"time"
)

// Period returns the period that t lies in, from start up to but not including
// end, where clocks show the time of loc; nil means UTC.
func (c Calendar) Period(t Time, loc *time.Location) (start, end Time) {
	p := newDates(c, loc).find(clamp(t))
	return Time(p.start), Time(p.end)
}

// dates is the periods of a calendar somewhere. A period's index is the second
// it begins at.
type dates struct {
	calendar Calendar
	location *time.Location
	current  atomic.Pointer[period] // the last one asked for
}

func newDates(c Calendar, loc *time.Location) *dates {
	if loc == nil {
		loc = time.UTC
	}
	return &dates{calendar: c, location: loc}
}

func (d *dates) start(index int64) int64 { return index * int64(time.Second) }

func (d *dates) at(t int64) period {
	if p := d.current.Load(); p != nil && p.start <= t && t < p.end {
		return *p
	}
	p := d.find(t)
	d.current.Store(&p)
	return p
}

func (d *dates) find(t int64) period {
	local := time.Unix(0, t).In(d.location)
	var start, end time.Time
	switch d.calendar {
	case Minute:
		start, end = d.clock(local, time.Minute)
	case Hour:
		start, end = d.clock(local, time.Hour)
	default:
		start, end = d.days(local)
	}
	return period{start.Unix(), start.UnixNano(), end.UnixNano()}
}

// clock returns the minute or hour that a local clock shows at t. It is cut
// where the clock is changed in the midst of it; an hour that is shown twice
// is two hours.
func (d *dates) clock(t time.Time, unit time.Duration) (start, end time.Time) {
	_, offset := t.Zone()
	local := t.UnixNano() + int64(offset)*int64(time.Second)
	start = t.Add(-time.Duration(local - grid(unit).at(local).start))
	end = start.Add(unit)
	from, to := t.ZoneBounds()
	if !from.IsZero() && start.Before(from) {
		start = from
	}
	if !to.IsZero() && end.After(to) {
		end = to
	}
	return start, end
}

// days returns the day, week, month or year that t lies in.
func (d *dates) days(t time.Time) (start, end time.Time) {
	year, month, day := t.Date()
	for {
		first, after := d.dates(year, month, day)
		start, end = d.midnight(first), d.midnight(after)
		switch {
		case t.Before(start):
			year, month, day = first.AddDate(0, 0, -1).Date()
		case !t.Before(end):
			year, month, day = after.Date()
		default:
			return start, end
		}
	}
}

// dates returns the first date of a day's period and the first of the next, as
// midnights in UTC.
func (d *dates) dates(year int, month time.Month, day int) (first, after time.Time) {
	date := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }
	switch d.calendar {
	case Week:
		sinceMonday := (int(date(year, month, day).Weekday()) + 6) % 7
		return date(year, month, day-sinceMonday), date(year, month, day-sinceMonday+7)
	case Month:
		return date(year, month, 1), date(year, month+1, 1)
	case Year:
		return date(year, 1, 1), date(year+1, 1, 1)
	}
	return date(year, month, day), date(year, month, day+1)
}

// midnight returns when a date, given as its midnight in UTC, begins in the
// location. [time.Date] does not do where clocks change at midnight: there a
// date may begin at 01:00, or have two midnights.
func (d *dates) midnight(date time.Time) time.Time {
	lo, hi := date.Add(-36*time.Hour).Unix(), date.Add(36*time.Hour).Unix()
	for lo < hi {
		mid := lo + (hi-lo)/2
		if d.wall(mid) >= date.Unix() {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return time.Unix(lo, 0).In(d.location)
}

// wall returns what a local clock shows at a Unix second, as the Unix second at
// which a clock in UTC shows it.
func (d *dates) wall(unix int64) int64 {
	_, offset := time.Unix(unix, 0).In(d.location).Zone()
	return unix + int64(offset)
}
