package top

import (
	"cmp"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

// Order is what consumers are sorted by.
type Order string

// The orders.
const (
	Admitted Order = "admitted"
	Refused  Order = "refused"
)

// Picture is what is shown. The zero value with a Server and By is good. It is
// not safe for concurrent use.
type Picture struct {
	Server       string
	By           Order
	Mode         string   // limits.mode in force
	DefaultLimit string   // of consumers that name none
	Notes        []string // what somebody should look at: a bad configuration, a paused upstream
	Trouble      string   // why the picture is an old one; empty: it is not

	at       time.Time
	rows     []Row
	refusals []Refusal
}

// Refusal is a burst of refusals that goes on.
type Refusal struct {
	telemetry.Refusal
	Rate float64 // refused a second, between the last two updates
}

// By says what refuses, and whether that is Tollgate or an upstream.
func (r Refusal) By() string {
	switch {
	case r.Reason == extauthz.UpstreamPressure:
		return "pause of upstream " + r.Upstream
	case r.Limit != "" && r.Upstream != "":
		return "limit " + r.Limit + " of upstream " + r.Upstream
	case r.Rule != "":
		return "rule " + r.Rule + " " + r.Refusal.Rate
	case r.Limit != "":
		return "limit " + r.Limit
	case r.Upstream != "":
		return "budget or queue of upstream " + r.Upstream
	}
	return string(r.Reason)
}

// Row is one consumer: counts since the server began to track it, and rates
// between the last two updates.
type Row struct {
	telemetry.Tally
	AdmittedRate, RefusedRate float64 // a second; 0 until there were two updates
}

// Update takes in what the server tells.
func (p *Picture) Update(now time.Time, tallies []telemetry.Tally, refusals []telemetry.Refusal) {
	was := map[string]telemetry.Tally{}
	for _, r := range p.rows {
		was[r.Consumer] = r.Tally
	}
	since := now.Sub(p.at).Seconds()
	rows := make([]Row, len(tallies))
	for i, t := range tallies {
		rows[i].Tally = t
		if old, known := was[t.Consumer]; known && since > 0 {
			rows[i].AdmittedRate = rate(old.Admitted, t.Admitted, since)
			rows[i].RefusedRate = rate(old.Refused, t.Refused, since)
		}
	}
	p.refusals = p.follow(refusals, since)
	p.at, p.rows = now, rows
	p.Sort(p.By)
}

// follow adds to bursts how fast they grow, and puts those first that grow fastest.
func (p *Picture) follow(refusals []telemetry.Refusal, seconds float64) []Refusal {
	was := map[telemetry.Refusal]int64{}
	for _, r := range p.refusals {
		n := r.Refused
		r.Refused = 0
		was[r.Refusal] = n
	}
	all := make([]Refusal, len(refusals))
	for i, r := range refusals {
		all[i].Refusal = r
		r.Refused = 0
		if old, known := was[r]; known && seconds > 0 {
			all[i].Rate = rate(uint64(old), uint64(all[i].Refused), seconds)
		}
	}
	slices.SortStableFunc(all, func(a, b Refusal) int { return cmp.Compare(b.Rate, a.Rate) })
	return all
}

// Refusals returns the first n bursts. They must not be changed.
func (p *Picture) Refusals(n int) []Refusal { return p.refusals[:min(n, len(p.refusals))] }

// rate is 0 where a count went back: the server was started anew.
func rate(was, is uint64, seconds float64) float64 {
	if is < was {
		return 0
	}
	return float64(is-was) / seconds
}

// Sort orders the rows: by what happens now, then by what happened, then by name.
func (p *Picture) Sort(by Order) {
	p.By = by
	key := func(r Row) (now float64, ever uint64) {
		if by == Refused {
			return r.RefusedRate, r.Refused
		}
		return r.AdmittedRate, r.Admitted
	}
	slices.SortFunc(p.rows, func(a, b Row) int {
		nowA, everA := key(a)
		nowB, everB := key(b)
		return cmp.Or(cmp.Compare(nowB, nowA), cmp.Compare(everB, everA), cmp.Compare(a.Consumer, b.Consumer))
	})
}

// Rows returns the first n rows. They must not be changed.
func (p *Picture) Rows(n int) []Row { return p.rows[:min(n, len(p.rows))] }
