package eso

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Selector says which stores draw on an upstream.
type Selector struct {
	Provider string  // as keepersecurity: stores of this provider
	Stores   []Store // only these of them; none: all of them
}

// AnyStore is a store of either kind.
type AnyStore struct {
	Store
	Provider   Provider
	Conditions []Condition
	Object     client.Object
}

// Select returns the stores of the cluster that draw on the upstream.
func (s Selector) Select(ctx context.Context, r client.Reader) ([]AnyStore, error) {
	var local SecretStoreList
	if err := r.List(ctx, &local); err != nil {
		return nil, fmt.Errorf("list SecretStores: %w", err)
	}
	var cluster ClusterSecretStoreList
	if err := r.List(ctx, &cluster); err != nil {
		return nil, fmt.Errorf("list ClusterSecretStores: %w", err)
	}
	var all []AnyStore
	for i := range local.Items {
		o := &local.Items[i]
		store := Store{Kind: SecretStoreKind, Namespace: o.Namespace, Name: o.Name}
		if p, ok := s.Fits(store, o.Spec); ok {
			all = append(all, AnyStore{Store: store, Provider: p, Conditions: o.Status.Conditions, Object: o})
		}
	}
	for i := range cluster.Items {
		o := &cluster.Items[i]
		store := Store{Kind: ClusterSecretStoreKind, Name: o.Name}
		if p, ok := s.Fits(store, o.Spec); ok {
			all = append(all, AnyStore{Store: store, Provider: p, Conditions: o.Status.Conditions, Object: o})
		}
	}
	return all, nil
}

// Fits returns the provider of a store that draws on the upstream; false: it does not.
func (s Selector) Fits(store Store, spec StoreSpec) (Provider, bool) {
	p, ok := spec.Provider[s.Provider]
	return p, ok && (len(s.Stores) == 0 || slices.Contains(s.Stores, store))
}
