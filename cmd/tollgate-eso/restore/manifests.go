package restore

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/manifests"
)

// Manifests is what manifests hold of what is restored, as it is to be created.
type Manifests struct {
	Namespaces      []*unstructured.Unstructured
	Stores          []*unstructured.Unstructured
	ExternalSecrets []*unstructured.Unstructured

	specs []namedStore
}

// namedStore is a store of a manifest.
type namedStore struct {
	eso.Store
	spec eso.StoreSpec
}

// NewManifests sorts objects, and leaves out what was of the cluster that they were
// read of.
func NewManifests(objects []manifests.Object) (Manifests, error) {
	var m Manifests
	for _, o := range objects {
		kind, group := o.GetKind(), o.GroupVersionKind().Group
		var into *[]*unstructured.Unstructured
		switch {
		case kind == "Namespace" && group == "":
			into = &m.Namespaces
		case group != eso.Group:
			continue
		case kind == eso.SecretStoreKind, kind == eso.ClusterSecretStoreKind:
			into = &m.Stores
		case kind == "ExternalSecret":
			into = &m.ExternalSecrets
		default:
			continue
		}
		if o.GetName() == "" {
			return m, fmt.Errorf("%s: %s without a name", o.Place, kind)
		}
		if o.GetNamespace() == "" && (kind == "ExternalSecret" || kind == eso.SecretStoreKind) {
			o.SetNamespace("default")
		}
		for _, field := range []string{"resourceVersion", "uid", "creationTimestamp", "generation", "managedFields", "ownerReferences"} {
			unstructured.RemoveNestedField(o.Object, "metadata", field)
		}
		unstructured.RemoveNestedField(o.Object, "status")
		*into = append(*into, o.Unstructured)
		if into == &m.Stores {
			if err := m.addStore(o); err != nil {
				return m, err
			}
		}
	}
	return m, nil
}

func (m *Manifests) addStore(o manifests.Object) error {
	var s eso.SecretStore // a ClusterSecretStore's is the same
	data, err := o.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.Place, err)
	}
	m.specs = append(m.specs, namedStore{eso.NewStore(eso.StoreRef{Kind: o.GetKind(), Name: o.GetName()}, o.GetNamespace()), s.Spec})
	return nil
}

// Prepare creates the namespaces, and then the stores, that the cluster does not
// have, and returns how many that were.
func (k Kubernetes) Prepare(ctx context.Context, m Manifests) (created int, err error) {
	for _, all := range [][]*unstructured.Unstructured{m.Namespaces, m.Stores} {
		for _, o := range all {
			err := k.Client.Create(ctx, o.DeepCopy())
			switch {
			case apierrors.IsAlreadyExists(err):
			case err != nil:
				return created, fmt.Errorf("create %s %s: %w", o.GetKind(), o.GetName(), err)
			default:
				created++
			}
		}
	}
	return created, nil
}
