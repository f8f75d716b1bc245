package companion

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/guard"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/savings"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
)

// Status is what GET /status answers.
type Status struct {
	Tollgate    string           `json:"tollgate"` // "reachable", or why not
	Waiting     int              `json:"waiting"`  // events, one per record
	Upstreams   []UpstreamStatus `json:"upstreams"`
	Unreachable []Unreachable    `json:"unreachable"`
	Broken      []Unreachable    `json:"broken"` // external secrets that fail, and those that are parked
}

// UpstreamStatus is how an upstream stands.
type UpstreamStatus struct {
	ID      string          `json:"id"`
	State   upstreams.State `json:"state"` // "": Tollgate has none of this id
	Allowed int             `json:"allowed"`
	Stores  []string        `json:"stores"`
	Savings Savings         `json:"savings"`
}

// Savings is what webhooks saved of an upstream's calls, as it was measured.
type Savings struct {
	savings.Sums
	Saved float64 `json:"saved"` // part of what polling would have called
}

// Unreachable is an external secret that no force-sync reaches: External Secrets
// ignores it.
type Unreachable struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Reason    string `json:"reason"`
}

// status answers GET /status.
func (c *Companion) status(w http.ResponseWriter, r *http.Request) {
	s := Status{Tollgate: "reachable", Upstreams: []UpstreamStatus{}, Unreachable: []Unreachable{}, Broken: []Unreachable{}}
	if _, err := c.watcher.Unreachable(); err != nil {
		s.Tollgate = err.Error()
	}
	jobs, err := c.queue.Jobs()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.Waiting = len(jobs)
	drawn := map[eso.Store]bool{}
	for _, u := range c.o.Config.Upstreams {
		stores, err := u.Stores.Select(r.Context(), c.cluster.GetClient())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		saved := c.meter.Sums(u.ID)
		one := UpstreamStatus{ID: u.ID, Stores: []string{}, Savings: Savings{saved, saved.Saved()}}
		if state, ok := c.watcher.State(u.ID); ok {
			one.State, one.Allowed = state.State, state.Calls()
		}
		for _, store := range stores {
			drawn[store.Store] = true
			one.Stores = append(one.Stores, store.String())
		}
		s.Upstreams = append(s.Upstreams, one)
	}
	var all eso.ExternalSecretList
	if err := c.cluster.GetClient().List(r.Context(), &all); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	for i := range all.Items {
		e := &all.Items[i]
		if state := broken(e); state != "" && slices.ContainsFunc(e.Stores(), func(s eso.Store) bool { return drawn[s] }) {
			s.Broken = append(s.Broken, Unreachable{Namespace: e.Namespace, Name: e.Name, Reason: state})
		}
		if guard.Parked(e) {
			continue
		}
		if why := e.Unreachable(); why != "" && slices.ContainsFunc(e.Stores(), func(s eso.Store) bool { return drawn[s] }) {
			s.Unreachable = append(s.Unreachable, Unreachable{Namespace: e.Namespace, Name: e.Name, Reason: why})
		}
	}
	for _, list := range [][]Unreachable{s.Unreachable, s.Broken} {
		slices.SortFunc(list, func(a, b Unreachable) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // whoever asked may have left
}

// broken says how an external secret stands that fails; "": it does not.
func broken(e *eso.ExternalSecret) string {
	since, failing := guard.Failing(e)
	why := guard.Hopeless(e)
	switch {
	case guard.Parked(e):
		return "parked"
	case !failing:
		return ""
	case why != "":
		return "fails since " + since.UTC().Format(time.RFC3339) + "; cannot be parked: " + why
	}
	return "fails since " + since.UTC().Format(time.RFC3339)
}

// ready answers GET /readyz: whether the cluster's objects are known, without
// which webhooks are only kept.
func (c *Companion) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if !c.cluster.GetCache().WaitForCacheSync(ctx) {
		http.Error(w, "the cluster's objects are not read yet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
