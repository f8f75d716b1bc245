package admin

import (
	"net/http"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// Upstreams is every configured upstream.
type Upstreams struct {
	Upstreams []Upstream `json:"upstreams"`
}

// Upstream is how an upstream stands.
type Upstream struct {
	ID           string           `json:"id"`
	State        upstreams.State  `json:"state"` // open, held, frozen or probing
	Since        *time.Time       `json:"since"`
	Until        *time.Time       `json:"until"`      // end of the pause; null: there is none
	Reason       string           `json:"reason"`     // the answer that was the last violation
	Source       string           `json:"source"`     // who saw it: response, access-log or peer
	Violations   int              `json:"violations"` // in a row
	Observed     int64            `json:"observed"`   // requests that the upstream had taken in the period before it
	Limit        int64            `json:"limit"`      // of the first limit that can be learned; 0: there is none
	WorkingLimit int64            `json:"working_limit"`
	Share        float64          `json:"share"` // of the configured limits that is used, less their margins
	Waiting      int              `json:"waiting"`
	Limits       []UpstreamLimit  `json:"limits"`
	Budget       []UpstreamBudget `json:"budget"`
}

// UpstreamLimit is a limit as configured and as it is kept.
type UpstreamLimit struct {
	Name      string      `json:"name"`
	Kind      limits.Kind `json:"kind"`
	Limit     string      `json:"limit"`           // as 100/10s
	Working   string      `json:"working"`         // less margin and what was learned
	Burst     int64       `json:"burst,omitempty"` // of rate: how many at once
	Remaining int64       `json:"remaining"`
}

// UpstreamBudget is a budget in its current period.
type UpstreamBudget struct {
	Period       limits.Calendar  `json:"period"`
	Calls        int64            `json:"calls"`
	Used         int64            `json:"used"`
	Forecast     int64            `json:"forecast"` // at the end of the period
	Start        time.Time        `json:"start"`
	End          time.Time        `json:"end"`
	Alert        float64          `json:"alert"` // the highest level reached, as 0.8; 0: none
	Cost         float64          `json:"cost"`
	ForecastCost float64          `json:"forecast_cost"`
	Classes      map[string]int64 `json:"classes,omitempty"`
	Labels       map[string]int64 `json:"labels,omitempty"`
}

// BudgetAlert says that a part of a budget is used up.
type BudgetAlert struct {
	Period limits.Calendar `json:"period"`
	Level  float64         `json:"level"`
	Used   int64           `json:"used"`
	Calls  int64           `json:"calls"`
}

// NewBudgetAlert writes an alert for the API.
func NewBudgetAlert(a upstreams.Alert) BudgetAlert {
	return BudgetAlert{Period: a.Calendar, Level: a.Level, Used: a.Used, Calls: a.Calls}
}

// NewUpstream writes a status for the API.
func NewUpstream(s upstreams.Status) Upstream {
	u := Upstream{
		ID: s.ID, State: s.State, Since: instant(s.Since), Until: instant(s.Until), Reason: s.Reason, Source: s.Source,
		Violations: s.Violations, Observed: s.Observed, Share: s.Share, Waiting: s.Waiting,
		Limits: []UpstreamLimit{}, Budget: []UpstreamBudget{},
	}
	for _, l := range s.Limits {
		limit := UpstreamLimit{Name: l.Name, Kind: l.Kind, Burst: l.Burst, Remaining: l.Remaining}
		limit.Limit, limit.Working = limits.FormatRate(l.Limit, l.Period), limits.FormatRate(l.Working, l.WorkingPeriod)
		if l.Kind == limits.Quota {
			limit.Limit, limit.Working = limits.FormatQuota(l.Limit, l.Calendar), limits.FormatQuota(l.Working, l.Calendar)
		} else if u.Limit == 0 {
			u.Limit, u.WorkingLimit = l.Limit, l.Per(l.Period)
		}
		u.Limits = append(u.Limits, limit)
	}
	for _, b := range s.Budget {
		u.Budget = append(u.Budget, UpstreamBudget{
			Period: b.Period, Calls: b.Calls, Used: b.Used, Forecast: b.Forecast, Start: b.Start.Std(), End: b.End.Std(),
			Alert: b.Alert, Cost: b.Cost, ForecastCost: b.ForecastCost, Classes: b.Classes, Labels: b.Labels,
		})
	}
	return u
}

func instant(t limits.Time) *time.Time {
	if t == 0 {
		return nil
	}
	std := t.Std()
	return &std
}

func (a *API) listUpstreams(w http.ResponseWriter, _ *http.Request) error {
	list := Upstreams{Upstreams: []Upstream{}}
	now := a.o.Clock.Now()
	for _, u := range a.o.Upstreams.All() {
		list.Upstreams = append(list.Upstreams, NewUpstream(u.Status(now)))
	}
	return answer(w, http.StatusOK, list)
}

// endPressure opens an upstream again at once.
func (a *API) endPressure(w http.ResponseWriter, r *http.Request) error {
	u := a.o.Upstreams.ByID(r.PathValue("id"))
	if u == nil {
		return problemf(http.StatusNotFound, "no upstream %q", r.PathValue("id"))
	}
	before := NewUpstream(u.Status(a.o.Clock.Now()))
	u.Reset(a.o.Clock.Now())
	a.audit(r, endPressure, "upstream "+u.ID(), before, NewUpstream(u.Status(a.o.Clock.Now())))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
