package eso

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
)

// What follows is what Kubernetes' machinery asks of every type: copies that
// share nothing.

// DeepCopyObject implements runtime.Object.
func (s *SecretStore) DeepCopyObject() runtime.Object {
	c := *s
	s.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Spec.Provider, c.Status.Conditions = cloneProviders(s.Spec.Provider), slices.Clone(s.Status.Conditions)
	return &c
}

// DeepCopyObject implements runtime.Object.
func (s *ClusterSecretStore) DeepCopyObject() runtime.Object {
	c := *s
	s.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Spec.Provider, c.Status.Conditions = cloneProviders(s.Spec.Provider), slices.Clone(s.Status.Conditions)
	return &c
}

// DeepCopyObject implements runtime.Object.
func (e *ExternalSecret) DeepCopyObject() runtime.Object {
	c := *e
	e.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Spec.RefreshInterval = clone(e.Spec.RefreshInterval)
	c.Spec.Target.Template = e.Spec.Target.Template.deepCopy()
	c.Spec.SyncWindows = clone(e.Spec.SyncWindows)
	if c.Spec.SyncWindows != nil {
		c.Spec.SyncWindows.Windows = slices.Clone(c.Spec.SyncWindows.Windows)
	}
	c.Spec.Data, c.Spec.DataFrom = slices.Clone(e.Spec.Data), slices.Clone(e.Spec.DataFrom)
	for i := range c.Spec.Data {
		c.Spec.Data[i].SourceRef = c.Spec.Data[i].SourceRef.deepCopy()
	}
	for i := range c.Spec.DataFrom {
		d := &c.Spec.DataFrom[i]
		d.Extract, d.Find, d.SourceRef = clone(d.Extract), clone(d.Find), d.SourceRef.deepCopy()
		if d.Find != nil {
			d.Find.Path = clone(d.Find.Path)
		}
	}
	c.Status.Conditions = slices.Clone(e.Status.Conditions)
	return &c
}

// DeepCopyObject implements runtime.Object.
func (p *PushSecret) DeepCopyObject() runtime.Object {
	c := *p
	p.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Spec.RefreshInterval = clone(p.Spec.RefreshInterval)
	c.Spec.SecretStoreRefs, c.Spec.Data = slices.Clone(p.Spec.SecretStoreRefs), slices.Clone(p.Spec.Data)
	c.Status.Conditions = slices.Clone(p.Status.Conditions)
	return &c
}

// DeepCopyObject implements runtime.Object.
func (l *SecretStoreList) DeepCopyObject() runtime.Object {
	c := &SecretStoreList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]SecretStore, len(l.Items))}
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopyObject().(*SecretStore)
	}
	return c
}

// DeepCopyObject implements runtime.Object.
func (l *ClusterSecretStoreList) DeepCopyObject() runtime.Object {
	c := &ClusterSecretStoreList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]ClusterSecretStore, len(l.Items))}
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopyObject().(*ClusterSecretStore)
	}
	return c
}

// DeepCopyObject implements runtime.Object.
func (l *ExternalSecretList) DeepCopyObject() runtime.Object {
	c := &ExternalSecretList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]ExternalSecret, len(l.Items))}
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopyObject().(*ExternalSecret)
	}
	return c
}

// DeepCopyObject implements runtime.Object.
func (l *PushSecretList) DeepCopyObject() runtime.Object {
	c := &PushSecretList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]PushSecret, len(l.Items))}
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopyObject().(*PushSecret)
	}
	return c
}

func (r *SourceRef) deepCopy() *SourceRef {
	c := clone(r)
	if c != nil {
		c.SecretStoreRef, c.GeneratorRef = clone(r.SecretStoreRef), clone(r.GeneratorRef)
	}
	return c
}

func (t *Template) deepCopy() *Template {
	c := clone(t)
	if c != nil {
		c.TemplateFrom = slices.Clone(t.TemplateFrom)
		for i := range c.TemplateFrom {
			c.TemplateFrom[i].Secret = clone(c.TemplateFrom[i].Secret)
		}
	}
	return c
}

func cloneProviders(all map[string]Provider) map[string]Provider {
	c := maps.Clone(all)
	for name, p := range c {
		p.Secrets = slices.Clone(p.Secrets)
		c[name] = p
	}
	return c
}

// clone copies what a pointer points at.
func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
