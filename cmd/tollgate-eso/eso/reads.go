package eso

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Store names a store of the cluster. A ClusterSecretStore has no Namespace.
type Store struct {
	Kind      string
	Namespace string
	Name      string
}

func (s Store) String() string {
	if s.Namespace == "" {
		return s.Kind + " " + s.Name
	}
	return s.Kind + " " + s.Namespace + "/" + s.Name
}

// ParseStore reads ClusterSecretStore/NAME or SecretStore/NAMESPACE/NAME.
func ParseStore(s string) (Store, bool) {
	parts := strings.Split(s, "/")
	switch {
	case len(parts) == 2 && parts[0] == ClusterSecretStoreKind && parts[1] != "":
		return Store{Kind: parts[0], Name: parts[1]}, true
	case len(parts) == 3 && parts[0] == SecretStoreKind && parts[1] != "" && parts[2] != "":
		return Store{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, true
	}
	return Store{}, false
}

// NewStore resolves a reference that stands in an object of a namespace.
func NewStore(r StoreRef, namespace string) Store {
	if r.Kind == ClusterSecretStoreKind {
		return Store{Kind: ClusterSecretStoreKind, Name: r.Name}
	}
	return Store{Kind: SecretStoreKind, Namespace: namespace, Name: r.Name}
}

// Key returns the name under which the API knows a store.
func (s Store) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

// Read is what one call of a refresh asks for.
type Read struct {
	Store Store
	Key   string // empty: whatever fits a pattern
}

// Reads returns the calls of one refresh, in order: one for each entry of data
// and dataFrom. Those to a generator call no upstream and are not among them.
func (e *ExternalSecret) Reads() []Read {
	var reads []Read
	for _, d := range e.Spec.Data {
		if s, ok := e.source(d.SourceRef); ok {
			reads = append(reads, Read{Store: s, Key: d.RemoteRef.Key})
		}
	}
	for _, d := range e.Spec.DataFrom {
		s, ok := e.source(d.SourceRef)
		if !ok {
			continue
		}
		r := Read{Store: s}
		if d.Extract != nil {
			r.Key = d.Extract.Key
		}
		reads = append(reads, r)
	}
	return reads
}

// source returns the store that an entry reads; false: a generator.
func (e *ExternalSecret) source(r *SourceRef) (Store, bool) {
	switch {
	case r == nil, r.SecretStoreRef == nil && r.GeneratorRef == nil:
		return NewStore(e.Spec.SecretStoreRef, e.Namespace), true
	case r.SecretStoreRef != nil:
		return NewStore(*r.SecretStoreRef, e.Namespace), true
	}
	return Store{}, false
}

// Calls returns how many calls a refresh makes to any upstream.
func (e *ExternalSecret) Calls() int { return len(e.Reads()) }

// CallsTo returns how many calls a refresh makes to some stores.
func (e *ExternalSecret) CallsTo(stores map[Store]bool) int {
	n := 0
	for _, r := range e.Reads() {
		if stores[r.Store] {
			n++
		}
	}
	return n
}

// IsUID reports whether a key has the form of Keeper's uids: 16 bytes in
// base64url. Keys of other providers are names.
func IsUID(key string) bool {
	b, err := base64.RawURLEncoding.DecodeString(key)
	return err == nil && len(b) == 16
}

// Owner returns the ClusterExternalSecret that an external secret is made by, or
// "".
func (e *ExternalSecret) Owner() string {
	for _, o := range e.OwnerReferences {
		if o.Kind == ClusterExternalSecretKind && strings.HasPrefix(o.APIVersion, Group+"/") {
			return o.Name
		}
	}
	return ""
}

// Stores returns the stores that a refresh reads, each once.
func (e *ExternalSecret) Stores() []Store {
	var stores []Store
	for _, r := range e.Reads() {
		if !slices.Contains(stores, r.Store) {
			stores = append(stores, r.Store)
		}
	}
	return stores
}

// What External Secrets does where nothing else is said, and how long it waits at
// most before it tries again what fails.
const (
	defaultRefresh = time.Hour
	LongestRetry   = 7 * time.Minute
)

// Annotations that make External Secrets refresh. A ClusterExternalSecret passes
// the second on to its external secrets, and takes away the first.
const (
	ForceSync        = "force-sync"
	ForceSyncCluster = "external-secrets.io/force-sync"
)

// RefreshEvery returns the interval of periodic refreshes; 0: there are none.
func (e *ExternalSecret) RefreshEvery() time.Duration {
	switch {
	case e.Spec.RefreshPolicy == "CreatedOnce", e.Spec.RefreshPolicy == "OnChange":
		return 0
	case e.Spec.RefreshInterval == nil:
		return defaultRefresh
	}
	return max(0, e.Spec.RefreshInterval.Duration)
}

// Unreachable says why External Secrets ignores a force-sync of this object once
// it has synced, or "": it does not.
func (e *ExternalSecret) Unreachable() string {
	switch {
	case e.Spec.RefreshPolicy == "CreatedOnce":
		return "refreshPolicy CreatedOnce"
	case e.Spec.RefreshPolicy == "OnChange":
		return ""
	case e.RefreshEvery() == 0:
		return "refreshInterval 0"
	}
	return ""
}

// RefreshEvery returns the interval of periodic writes; 0: there are none.
func (p *PushSecret) RefreshEvery() time.Duration {
	if p.Spec.RefreshInterval == nil {
		return defaultRefresh
	}
	return max(0, p.Spec.RefreshInterval.Duration)
}

// FindCondition returns the condition of a type, or nil.
func FindCondition(all []Condition, kind string) *Condition {
	if i := slices.IndexFunc(all, func(c Condition) bool { return c.Type == kind }); i >= 0 {
		return &all[i]
	}
	return nil
}
