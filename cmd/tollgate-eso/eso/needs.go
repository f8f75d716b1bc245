package eso

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// UnmarshalJSON implements json.Unmarshaler: it finds the Secrets of any provider.
func (p *Provider) UnmarshalJSON(data []byte) error {
	type plain Provider
	var all any
	if err := json.Unmarshal(data, (*plain)(p)); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	p.Secrets = secretRefs(nil, all)
	return nil
}

// secretRefs appends the Secrets that a provider's configuration names. Each has
// places of its own for them, but in all a name stands beside a key.
func secretRefs(refs []SecretRef, in any) []SecretRef {
	switch v := in.(type) {
	case []any:
		for _, e := range v {
			refs = secretRefs(refs, e)
		}
	case map[string]any:
		name, _ := v["name"].(string)
		key, _ := v["key"].(string)
		namespace, _ := v["namespace"].(string)
		if ref := (SecretRef{Namespace: namespace, Name: name}); name != "" && key != "" && v["type"] != "ConfigMap" && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			refs = secretRefs(refs, v[k])
		}
	}
	return refs
}

// Makes returns the Secret that an external secret makes; false: none.
func (e *ExternalSecret) Makes() (types.NamespacedName, bool) {
	name := cmp.Or(e.Spec.Target.Name, e.Name)
	return types.NamespacedName{Namespace: e.Namespace, Name: name}, name != "" && e.Spec.Target.CreationPolicy != "None"
}

// Needs returns the Secrets that have to be there before an external secret can
// sync: those that the providers of its stores authenticate with, and those of its
// template.
func (e *ExternalSecret) Needs(stores map[Store]Provider) []types.NamespacedName {
	var needs []types.NamespacedName
	add := func(namespace, name string) {
		if n := (types.NamespacedName{Namespace: namespace, Name: name}); !slices.Contains(needs, n) {
			needs = append(needs, n)
		}
	}
	for _, s := range e.Stores() {
		for _, ref := range stores[s].Secrets {
			if s.Kind == SecretStoreKind {
				ref.Namespace = s.Namespace // External Secrets takes no other
			}
			add(cmp.Or(ref.Namespace, e.Namespace), ref.Name)
		}
	}
	if t := e.Spec.Target.Template; t != nil {
		for _, from := range t.TemplateFrom {
			if from.Secret != nil {
				add(e.Namespace, from.Secret.Name)
			}
		}
	}
	return needs
}
