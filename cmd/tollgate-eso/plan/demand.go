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
			if s.stores[r.Store].Provider[upstream.Provider].GetByTitleFallback && r.Key != "" && !uid(r.Key) {
				o.Calls++ // a title is looked for as a uid first, and then among all
			}
		}
		if c := eso.FindCondition(e.Status.Conditions, "Ready"); c != nil && c.Status == "False" {
			o.Failing = cmp.Or(c.Message, c.Reason, "not ready")
		}
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
		if c := eso.FindCondition(p.Status.Conditions, "Ready"); c != nil && c.Status == "False" {
			o.Failing = cmp.Or(c.Message, c.Reason, "not ready")
		}
		all = append(all, o)
	}
	all = slices.DeleteFunc(all, func(o Object) bool { return o.Calls == 0 })
	slices.SortFunc(all, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all
}

func name(name, generated string) string {
	if name == "" && generated != "" {
		return generated + "*"
	}
	return name
}

// uid reports whether a key has the form of a Keeper record's UID: 16 bytes in
// base64 for URLs.
func uid(key string) bool {
	if len(key) != 22 {
		return false
	}
	for _, c := range []byte(key) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
