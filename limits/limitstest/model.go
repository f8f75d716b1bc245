package limitstest

import (
	"math/big"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// Model decides as a limiter of a built-in kind must, by keeping everything
// and reckoning it anew each time. It knows no warm-up and not Guava's two
// kinds, which have golden vectors, and of a window it is exact where the
// limiter is: up to 128. It is not safe for concurrent use.
type Model struct {
	limit limits.Limit
	kind  rules
	peak  *big.Rat     // the highest limit, a second, under which all was used; nil: none
	till  limits.Time  // until when that counts
	doubt *limits.Time // the first instant of those that may show that the clock was set back
}

// rules are what a kind means. used is in units of capacity.
type rules interface {
	// mark is the instant before which others lie behind, if there is one.
	mark() (limits.Time, bool)
	admit(now limits.Time, n int64) bool
	used(now limits.Time) (used, capacity int64)
	setUsed(now limits.Time, used int64)
}

// NewModel returns the model of a limiter that nobody has used. l must be what
// [limits.Spec.Limit] returns.
func NewModel(l limits.Limit) *Model { return &Model{limit: l, kind: rulesOf(l)} }

func rulesOf(l limits.Limit) rules {
	switch l.Kind {
	case limits.Rate, limits.Pace:
		interval := (int64(l.Period) + l.N - 1) / l.N
		return &ledger{interval: interval, full: interval * l.Burst, credit: interval * l.Burst}
	case limits.FixedWindow:
		return &diary{n: l.N, label: func(t limits.Time) int64 {
			r, p := new(big.Int), new(big.Int).SetInt64(int64(l.Period))
			return new(big.Int).Sub(big.NewInt(int64(t)), r.Mod(big.NewInt(int64(t)), p)).Int64()
		}}
	case limits.Quota:
		return &diary{n: l.N, label: func(t limits.Time) int64 { return label(t.Std(), l) }}
	case limits.Window:
		return &log{n: l.N, period: l.Period}
	case limits.IdleReset:
		return &batch{n: l.N, period: l.Period}
	}
	panic("limitstest: no model of kind " + string(l.Kind))
}

// label returns the beginning of the calendar period of t, for zones whose
// clocks change at full hours and not at midnight.
func label(t time.Time, l limits.Limit) int64 {
	loc := l.Location
	if loc == nil {
		loc = time.UTC
	}
	t = t.In(loc)
	y, m, d := t.Date()
	switch l.Calendar {
	case limits.Minute:
		return t.Truncate(time.Minute).UnixNano()
	case limits.Hour:
		return t.Truncate(time.Hour).UnixNano()
	case limits.Week:
		for t.Weekday() != time.Monday {
			d--
			t = time.Date(y, m, d, 12, 0, 0, 0, loc)
		}
	case limits.Month:
		d = 1
	case limits.Year:
		m, d = 1, 1
	}
	return time.Date(y, m, d, 0, 0, 0, 0, loc).UnixNano()
}

// Take admits n or not.
func (m *Model) Take(now limits.Time, n int64) bool {
	if !m.kind.admit(m.steady(now), n) {
		return false
	}
	m.doubt = nil
	return true
}

// steady returns the instant to decide at. One who comes long before what was
// seen may have been stopped on his way, and is decided about as if time stood
// still. The clock was set back if another one comes so, a while later and with
// nothing taken in between.
func (m *Model) steady(now limits.Time) limits.Time {
	const sure = 100 * time.Millisecond
	mark, ok := m.kind.mark()
	if !ok || mark.Sub(now) <= clockSet {
		return now
	}
	if m.doubt == nil || now < *m.doubt {
		m.doubt = &now
	}
	if now.Sub(*m.doubt) < sure {
		return mark
	}
	m.doubt = nil
	return now
}

// SetLimit changes the limit to another of any kind: what was used stays used,
// in proportion and rounded up, but a raise leaves a counted limit at
// least 1, if it is the highest since that was used which still counts.
func (m *Model) SetLimit(now limits.Time, l limits.Limit) {
	if l == m.limit {
		return
	}
	m.doubt = nil
	if o := m.limit; l.Kind == limits.FixedWindow && o.Kind == limits.FixedWindow && l.Period == o.Period {
		m.limit, m.kind.(*diary).n = l, l.N // a fixed window keeps its count
		return
	}
	used, of := m.kind.used(now)
	next := rulesOf(l)
	_, capacity := next.used(now)
	share := new(big.Int).Mul(big.NewInt(used), big.NewInt(capacity))
	share.Add(share, big.NewInt(of-1)).Div(share, big.NewInt(of))
	carried := share.Int64()
	if now >= m.till {
		m.Restart()
	}
	if _, refills := next.(*ledger); refills {
		m.Restart()
	} else if used > 0 && carried == capacity {
		if was := perSecond(m.limit); m.peak == nil || was.Cmp(m.peak) > 0 {
			m.peak = was
		}
		m.till = max(m.till, turn(m.limit, now), turn(l, now))
		if perSecond(l).Cmp(m.peak) > 0 {
			m.peak = perSecond(l)
			carried--
		}
	}
	if g, ok := m.kind.(*ledger); !ok || g.begun {
		next.setUsed(now, carried)
	}
	m.limit, m.kind = l, next
}

// Restart forgets what no state keeps: under what limits all was used before,
// and doubts about the clock.
func (m *Model) Restart() { m.peak, m.till, m.doubt = nil, 0, nil }

// turn is when what is used now counts no more.
func turn(l limits.Limit, now limits.Time) limits.Time {
	switch l.Kind {
	case limits.Quota:
		_, end := l.Calendar.Period(now, l.Location)
		return end
	case limits.FixedWindow:
		p := int64(l.Period)
		return limits.Time((int64(now)/p + 1) * p)
	}
	return now.Add(l.Period)
}

func perSecond(l limits.Limit) *big.Rat {
	period := l.Period
	if l.Kind == limits.Quota {
		period = map[limits.Calendar]time.Duration{
			limits.Minute: time.Minute, limits.Hour: time.Hour, limits.Day: 24 * time.Hour,
			limits.Week: 7 * 24 * time.Hour, limits.Month: 730 * time.Hour, limits.Year: 8760 * time.Hour,
		}[l.Calendar]
	}
	return big.NewRat(l.N, int64(period))
}

// A clock that is read up to a second back is the same clock, and time stands
// still until it has caught up. Beyond, once that is sure, it was set: what it
// counts from there begins with nothing.
const clockSet = time.Second

// ledger is a bucket: it earns a nanosecond of credit each nanosecond, and a
// request costs an interval. It is written at each request that is admitted,
// and when the clock was set.
type ledger struct {
	interval, full int64
	credit         int64
	at             limits.Time
	begun          bool
}

// balance returns the credit at now. A step back takes back what was earned in
// the time that comes again.
func (g *ledger) balance(now limits.Time) int64 {
	if !g.begun {
		return g.full
	}
	credit := g.credit + int64(now.Sub(g.at))
	if credit < -int64(clockSet) {
		g.at, g.credit, credit = now, 0, 0
	}
	return min(credit, g.full)
}

// mark is when the bucket was empty.
func (g *ledger) mark() (limits.Time, bool) { return g.at.Add(-time.Duration(g.credit)), g.begun }

func (g *ledger) admit(now limits.Time, n int64) bool {
	credit := g.balance(now)
	if n > g.full/g.interval || n*g.interval > credit {
		return false
	}
	g.begun, g.at, g.credit = true, now, credit-n*g.interval
	return true
}

func (g *ledger) used(now limits.Time) (int64, int64) {
	return min(g.full-g.balance(now), g.full), g.full
}

func (g *ledger) setUsed(now limits.Time, used int64) {
	g.begun, g.at, g.credit = true, now, g.full-used
}

// diary counts by the label of a period.
type diary struct {
	n     int64
	label func(limits.Time) int64
	open  int64
	count int64
}

// page returns the label that a request at now counts under, and the count.
func (d *diary) page(now limits.Time) (int64, int64) {
	switch at := d.label(now); {
	case d.count == 0 || at > d.open:
		return at, 0
	case limits.Time(d.open).Sub(now) > clockSet:
		d.open, d.count = at, d.n
	}
	return d.open, d.count
}

func (d *diary) mark() (limits.Time, bool) { return limits.Time(d.open), d.count > 0 }

func (d *diary) admit(now limits.Time, n int64) bool {
	open, count := d.page(now)
	if count+n > d.n {
		return false
	}
	d.open, d.count = open, count+n
	return true
}

func (d *diary) used(now limits.Time) (int64, int64) {
	_, count := d.page(now)
	return min(count, d.n), d.n
}

func (d *diary) setUsed(now limits.Time, used int64) { d.open, d.count = d.label(now), used }

// log has an entry for every request of cost 1.
type log struct {
	n      int64
	period time.Duration
	taken  []limits.Time // in order
}

func (g *log) advance(now limits.Time) {
	if k := len(g.taken); k > 0 && g.taken[k-1].Sub(now) > clockSet {
		g.setUsed(now, g.n)
	}
}

func (g *log) count(now limits.Time) int64 {
	var n int64
	for _, t := range g.taken {
		if now.Sub(t) < g.period {
			n++
		}
	}
	return n
}

func (g *log) mark() (limits.Time, bool) {
	if k := len(g.taken); k > 0 {
		return g.taken[k-1], true
	}
	return 0, false
}

func (g *log) admit(now limits.Time, n int64) bool {
	g.advance(now)
	if g.count(now)+n > g.n {
		return false
	}
	if k := len(g.taken); k > 0 {
		now = max(now, g.taken[k-1])
	}
	for range n {
		g.taken = append(g.taken, now)
	}
	return true
}

func (g *log) used(now limits.Time) (int64, int64) {
	g.advance(now)
	return min(g.count(now), g.n), g.n
}

func (g *log) setUsed(now limits.Time, used int64) {
	g.taken = nil
	for range used {
		g.taken = append(g.taken, now)
	}
}

// batch counts since the last silence.
type batch struct {
	n      int64
	period time.Duration
	count  int64
	last   limits.Time
	begun  bool
}

func (b *batch) since(now limits.Time) int64 {
	switch d := now.Sub(b.last); {
	case !b.begun:
		return 0
	case d < -clockSet:
		b.last, b.count = now, b.n
	case d >= b.period:
		return 0
	}
	return b.count
}

func (b *batch) mark() (limits.Time, bool) { return b.last, b.begun }

func (b *batch) admit(now limits.Time, n int64) bool {
	count := b.since(now)
	if count+n > b.n {
		return false
	}
	if b.begun {
		now = max(now, b.last)
	}
	b.begun, b.count, b.last = true, count+n, now
	return true
}

func (b *batch) used(now limits.Time) (int64, int64) { return b.since(now), b.n }

func (b *batch) setUsed(now limits.Time, used int64) {
	b.begun, b.count, b.last = used > 0, used, now
}
