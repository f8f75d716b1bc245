package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Object is what makes External Secrets call an upstream.
type Object struct {
	Kind      string           `json:"kind"`
	Namespace string           `json:"namespace,omitempty"`
	Name      string           `json:"name"`
	Calls     int              `json:"calls"` // of one refresh
	Every     time.Duration    `json:"-"`     // between refreshes; 0: there are none
	Windows   *eso.SyncWindows `json:"-"`     // when refreshes are allowed, or denied
	Failing   string           `json:"-"`     // why the last refresh failed, or ""
}

func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// Calls of one entry of a push secret that is there already: all that the
// upstream has is read, and the record written.
const pushCalls = 2

// Demand returns what costs calls to the upstream of a selector, by namespace and
// name. A store that is not in the set is taken for one of the upstream.
func (s *Set) Demand(upstream eso.Selector) []Object {
	counts := func(store eso.Store) bool {
		if len(upstream.Stores) > 0 && !slices.Contains(upstream.Stores, store) {
			return false
		}
		spec, known := s.stores[store]
		_, fits := spec.Provider[upstream.Provider]
		return !known || fits
	}
	var all []Object
	for i := range s.external {
		e := &s.external[i]
		o := Object{Kind: "ExternalSecret", Namespace: e.Namespace, Name: name(e.Name, e.GenerateName), Every: e.RefreshEvery(), Windows: e.Spec.SyncWindows}
		for _, r := range e.Reads() {
			if !counts(r.Store) {
				continue
			}
			o.Calls++
			if s.stores[r.Store].Provider[upstream.Provider].GetByTitleFallback && r.Key != "" && !eso.IsUID(r.Key) {
				o.Calls++ // a title is looked for as a uid first, and then among all
			}
		}
		o.Failing = failing(e.Status.Conditions)
		all = append(all, o)
	}
	for i := range s.push {
		p := &s.push[i]
		o := Object{Kind: "PushSecret", Namespace: p.Namespace, Name: name(p.Name, p.GenerateName), Every: p.RefreshEvery()}
		for _, r := range p.Spec.SecretStoreRefs {
			if counts(eso.NewStore(r, p.Namespace)) {
				o.Calls += pushCalls * len(p.Spec.Data)
			}
		}
		o.Failing = failing(p.Status.Conditions)
		all = append(all, o)
	}
	all = slices.DeleteFunc(all, func(o Object) bool { return o.Calls == 0 })
	slices.SortFunc(all, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// failing says why an object's last refresh failed, or "".
func failing(all []eso.Condition) string {
	if c := eso.FindCondition(all, "Ready"); c != nil && c.Status == "False" {
		return cmp.Or(c.Message, c.Reason, "not ready")
	}
	return ""
}

func name(name, generated string) string {
	if name == "" && generated != "" {
		return generated + "*"
	}
	return name
}
