package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/manifests"
)

// Set is objects of External Secrets, from manifests or from a cluster.
type Set struct {
	external   []eso.ExternalSecret
	push       []eso.PushSecret
	clusters   []clusterExternalSecret
	stores     map[eso.Store]eso.StoreSpec
	namespaces map[string]labels.Set
}

// clusterExternalSecret makes an external secret in each of some namespaces.
type clusterExternalSecret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		ExternalSecretSpec eso.ExternalSecretSpec  `json:"externalSecretSpec"`
		ExternalSecretName string                  `json:"externalSecretName,omitempty"`
		RefreshTime        *metav1.Duration        `json:"refreshTime,omitempty"`
		NamespaceSelector  *metav1.LabelSelector   `json:"namespaceSelector,omitempty"`
		NamespaceSelectors []*metav1.LabelSelector `json:"namespaceSelectors,omitempty"`
		Namespaces         []string                `json:"namespaces,omitempty"`
	} `json:"spec"`
}

// NewSet returns a set without objects.
func NewSet() *Set {
	return &Set{stores: map[eso.Store]eso.StoreSpec{}, namespaces: map[string]labels.Set{}}
}

// Add adds what is among objects. Those of other groups are left out. Every problem
// is told, with its place.
func (s *Set) Add(objects []manifests.Object) error {
	var errs []error
	for _, o := range objects {
		if err := s.take(o.Unstructured); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", o.Place, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Set) take(u *unstructured.Unstructured) error {
	kind, group := u.GetKind(), u.GroupVersionKind().Group
	if kind == "Namespace" && group == "" {
		s.namespaces[u.GetName()] = withName(u.GetLabels(), u.GetName())
		return nil
	}
	if group != eso.Group {
		return nil
	}
	if u.GetName() == "" && u.GetGenerateName() == "" {
		return fmt.Errorf("%s: no metadata.name", kind)
	}
	if u.GetNamespace() == "" && kind != eso.ClusterSecretStoreKind && kind != eso.ClusterExternalSecretKind {
		u.SetNamespace("default")
	}
	into := func(o any) error {
		data, err := u.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(data, o)
		}
		if err != nil {
			return fmt.Errorf("%s %s/%s: %w", kind, u.GetNamespace(), u.GetName(), err)
		}
		return nil
	}
	switch kind {
	case "ExternalSecret":
		var e eso.ExternalSecret
		err := into(&e)
		s.external = append(s.external, e)
		return errors.Join(err, checkWindows(e.Spec.SyncWindows, u))
	case "PushSecret":
		var p eso.PushSecret
		err := into(&p)
		s.push = append(s.push, p)
		return err
	case eso.ClusterExternalSecretKind:
		var c clusterExternalSecret
		err := into(&c)
		s.clusters = append(s.clusters, c)
		return errors.Join(err, checkWindows(c.Spec.ExternalSecretSpec.SyncWindows, u))
	case eso.SecretStoreKind, eso.ClusterSecretStoreKind:
		var st eso.SecretStore
		err := into(&st)
		s.stores[eso.NewStore(eso.StoreRef{Kind: kind, Name: u.GetName()}, u.GetNamespace())] = st.Spec
		return err
	}
	return nil
}

func checkWindows(w *eso.SyncWindows, u *unstructured.Unstructured) error {
	if _, err := parseWindows(w); err != nil {
		return fmt.Errorf("%s %s/%s: spec.syncWindows: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}
	return nil
}

// withName adds the label that Kubernetes gives every namespace.
func withName(l map[string]string, name string) labels.Set {
	all := labels.Set{"kubernetes.io/metadata.name": name}
	for k, v := range l {
		all[k] = v
	}
	return all
}

// Expand makes external secrets of the cluster's ones: one for each namespace
// that is listed, or selected among the namespaces of the set. Where selectors
// find none, otherwise says how many there are; 0 is an error.
func (s *Set) Expand(otherwise int) error {
	var errs []error
	for i := range s.clusters {
		c := &s.clusters[i]
		names, err := s.selected(c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(names) == 0 {
			if otherwise == 0 {
				errs = append(errs, fmt.Errorf("ClusterExternalSecret %s: no namespace of the input fits its selectors: add the Namespaces to the input, or say how many with --namespaces", c.Name))
			}
			for n := range otherwise {
				names = append(names, fmt.Sprintf("(%d of %d)", n+1, otherwise))
			}
		}
		for _, ns := range names {
			e := eso.ExternalSecret{Spec: c.Spec.ExternalSecretSpec}
			e.Namespace, e.Name = ns, c.Name
			if c.Spec.ExternalSecretName != "" {
				e.Name = c.Spec.ExternalSecretName
			}
			s.external = append(s.external, e)
		}
	}
	s.clusters = nil
	return errors.Join(errs...)
}

func (s *Set) selected(c *clusterExternalSecret) ([]string, error) {
	names := slices.Clone(c.Spec.Namespaces)
	all := c.Spec.NamespaceSelectors
	if c.Spec.NamespaceSelector != nil {
		all = append(slices.Clone(all), c.Spec.NamespaceSelector)
	}
	for _, ls := range all {
		selector, err := metav1.LabelSelectorAsSelector(ls)
		if err != nil {
			return nil, fmt.Errorf("ClusterExternalSecret %s: namespaceSelectors: %w", c.Name, err)
		}
		for ns, l := range s.namespaces {
			if selector.Matches(l) {
				names = append(names, ns)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// List reads a cluster: its external secrets, those of ClusterExternalSecrets
// among them, its push secrets and its stores.
func List(ctx context.Context, r client.Reader) (*Set, error) {
	s := NewSet()
	var external eso.ExternalSecretList
	var push eso.PushSecretList
	var local eso.SecretStoreList
	var cluster eso.ClusterSecretStoreList
	for what, list := range map[string]client.ObjectList{"ExternalSecrets": &external, "PushSecrets": &push, "SecretStores": &local, "ClusterSecretStores": &cluster} {
		if err := r.List(ctx, list); err != nil {
			return nil, fmt.Errorf("list %s: %w", what, err)
		}
	}
	s.external, s.push = external.Items, push.Items
	for _, st := range local.Items {
		s.stores[eso.Store{Kind: eso.SecretStoreKind, Namespace: st.Namespace, Name: st.Name}] = st.Spec
	}
	for _, st := range cluster.Items {
		s.stores[eso.Store{Kind: eso.ClusterSecretStoreKind, Name: st.Name}] = st.Spec
	}
	return s, nil
}
