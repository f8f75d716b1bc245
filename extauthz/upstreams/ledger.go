package upstreams

import (
	"maps"
	"math"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// maxLabels bounds to how many different labels calls are put down in a period;
// the rest is put down to [otherLabel].
const maxLabels = 100

const otherLabel = "other"

// ledger counts the calls of an upstream that has a budget.
type ledger struct {
	budget   *Budget // nil: nothing is counted
	accounts []account
	heard    limits.Time // when the store that instances share last answered
}

// account is the calls in the current period of one budget.
type account struct {
	Account
	budget Period
	spec   *limits.Spec // the budget as callers are told of it
	end    limits.Time
	lent   []*limits.Limiter // by class, where instances share the budget; else none
	spent  limits.Time       // when something was used here that the store may not know
}

// Account is the calls that were counted in one period. It is what is kept of a
// budget: absolute numbers, so that nothing is counted twice.
type Account struct {
	Calendar limits.Calendar  `json:"calendar"`
	Start    limits.Time      `json:"start"` // of the period
	First    limits.Time      `json:"first"` // from when on calls were counted
	Used     int64            `json:"used"`
	Alerts   int              `json:"alerts"` // how many were told
	Classes  map[string]int64 `json:"classes,omitempty"`
	Labels   map[string]int64 `json:"labels,omitempty"`
}

// configure makes the ledger that of a budget; what was counted stays.
func (l *ledger) configure(b *Budget, now limits.Time) {
	old := l.accounts
	*l = ledger{budget: b, heard: l.heard}
	if b == nil {
		return
	}
	for _, p := range b.Periods {
		spec, _ := limits.Compile(limits.Limit{Name: "budget-" + string(p.Calendar), Kind: limits.Quota, N: p.Calls, Calendar: p.Calendar, Location: b.Location}) // both were read from one text
		a := account{budget: p, spec: spec}
		for _, o := range old {
			if o.budget.Calendar == p.Calendar {
				a.Account, a.lent, a.spent = o.Account, o.lent, o.spent
			}
		}
		a.open(now, b.Location)
		l.accounts = append(l.accounts, a)
	}
}

// open begins the period that now lies in, unless it has begun.
func (a *account) open(now limits.Time, loc *time.Location) {
	start, end := a.budget.Calendar.Period(max(now, a.Start), loc)
	if a.Start != start || a.First == 0 {
		a.Account = Account{Calendar: a.budget.Calendar, Start: start, First: max(start, min(now, end))}
	}
	a.end = end
}

// roll begins new periods where the old ones are over.
func (l *ledger) roll(now limits.Time) {
	for i := range l.accounts {
		if a := &l.accounts[i]; now >= a.end {
			a.open(now, l.budget.Location)
			a.First = a.Start // it has been counted all along
		}
	}
}

// class returns the place of a class, the last for one that is not named.
func (b *Budget) class(name string) int {
	for i := range b.Classes {
		if b.Classes[i].Name == name {
			return i
		}
	}
	return len(b.Classes) - 1
}

// allowed returns how much of an account the i-th class may use up: what is not
// in reserve for those before it.
func (b *Budget) allowed(p Period, class int) int64 {
	n := p.Calls
	for i := range class {
		n -= int64(math.Ceil(b.Classes[i].Reserve*float64(p.Calls) - rounding))
	}
	return max(n, 0)
}

// affords reports whether the budget has n calls left for a class.
func (l *ledger) affords(now limits.Time, class string, n int64) bool {
	return l.renewed(now, class, n) <= now
}

// renewed returns when the budget has n calls left for a class: now or, where
// it is spent, when the last of the periods ends that are.
func (l *ledger) renewed(now limits.Time, class string, n int64) limits.Time {
	if a := l.lacks(now, class, n); a != nil {
		return a.end
	}
	return now
}

// spent returns the budget that has not n calls left for a class, as a limit, or nil.
func (l *ledger) spent(now limits.Time, class string, n int64) *limits.Spec {
	if a := l.lacks(now, class, n); a != nil {
		return a.spec
	}
	return nil
}

// lacks returns of the accounts that have not n calls left for a class the one
// whose period ends last, nil where all have them.
func (l *ledger) lacks(now limits.Time, class string, n int64) *account {
	if l.budget == nil || l.budget.Soft {
		return nil
	}
	l.roll(now)
	var last *account
	for i := range l.accounts {
		a := &l.accounts[i]
		if a.lacks(now, l.budget, l.budget.class(class), max(n, 1)) && (last == nil || a.end > last.end) {
			last = a
		}
	}
	return last
}

func (a *account) lacks(now limits.Time, b *Budget, class int, n int64) bool {
	if a.lent == nil {
		return a.Used+n > b.allowed(a.budget, class)
	}
	d := a.of(class).Peek(now, n)
	return !d.Allowed && !d.Pending && !d.Undecided
}

// spend counts n calls. It returns the alerts that this is a reason for.
func (l *ledger) spend(now limits.Time, class, label string, n int64) (alerts []Alert) {
	if l.budget == nil || n == 0 {
		return nil
	}
	l.roll(now)
	for i := range l.accounts {
		a := &l.accounts[i]
		a.count(l.budget, class, label, n)
		a.spent = now
		l.hear(now, a)
		for a.Alerts < len(l.budget.Alerts) && float64(a.Used) >= l.budget.Alerts[a.Alerts]*float64(a.budget.Calls) {
			alerts = append(alerts, Alert{Calendar: a.Calendar, Level: l.budget.Alerts[a.Alerts], Used: a.Used, Calls: a.budget.Calls})
			a.Alerts++
		}
	}
	return alerts
}

func (a *account) count(b *Budget, class, label string, n int64) {
	a.Used += n
	if len(b.Classes) > 0 {
		add(&a.Classes, b.Classes[b.class(class)].Name, n)
	}
	if label == "" {
		return
	}
	if _, known := a.Labels[label]; !known && len(a.Labels) >= maxLabels {
		label = otherLabel
	}
	add(&a.Labels, label, n)
}

func add(to *map[string]int64, key string, n int64) {
	if *to == nil {
		*to = map[string]int64{}
	}
	(*to)[key] += n
}

// back undoes a spend at that instant.
func (l *ledger) back(at limits.Time, class, label string, n int64) {
	if l.budget == nil || n == 0 {
		return
	}
	for i := range l.accounts {
		if a := &l.accounts[i]; at >= a.Start {
			a.count(l.budget, class, label, -n)
		}
	}
}

// keep returns what is to be kept.
func (l *ledger) keep() []Account {
	var kept []Account
	for i := range l.accounts {
		a := l.accounts[i].Account
		a.Classes, a.Labels = maps.Clone(a.Classes), maps.Clone(a.Labels)
		kept = append(kept, a)
	}
	return kept
}

// restore goes on with what was kept of the periods that are not over.
func (l *ledger) restore(now limits.Time, kept []Account) {
	for i := range l.accounts {
		a := &l.accounts[i]
		for _, k := range kept {
			if k.Calendar == a.budget.Calendar {
				a.Account = k
				a.open(now, l.budget.Location)
			}
		}
	}
}

// status tells how much is used and where that leads.
func (l *ledger) status(now limits.Time) []BudgetStatus {
	l.roll(now)
	var all []BudgetStatus
	for i := range l.accounts {
		a := &l.accounts[i]
		l.hear(now, a)
		s := BudgetStatus{
			Period: a.Calendar, Calls: a.budget.Calls, Used: a.Used, Start: a.Start, End: a.end,
			Forecast: a.forecast(now), Classes: maps.Clone(a.Classes), Labels: maps.Clone(a.Labels),
		}
		if a.Alerts > 0 {
			s.Alert = l.budget.Alerts[a.Alerts-1]
		}
		s.Cost, s.ForecastCost = float64(s.Used)*l.budget.Price, float64(s.Forecast)*l.budget.Price
		all = append(all, s)
	}
	return all
}

// leastSeen is how long calls are counted before their rate says anything.
const leastSeen = time.Minute

// forecast returns how many calls there will be by the end of the period if they
// go on as they have since they were counted.
func (a *account) forecast(now limits.Time) int64 {
	seen := max(now.Sub(a.First), leastSeen)
	rest := max(a.end.Sub(now), 0)
	return a.Used + int64(math.Round(float64(a.Used)*float64(rest)/float64(seen)))
}
