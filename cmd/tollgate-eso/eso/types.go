package eso

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group of all objects here.
const Group = "external-secrets.io"

// Kinds, as references name them.
const (
	SecretStoreKind           = "SecretStore"
	ClusterSecretStoreKind    = "ClusterSecretStore"
	ClusterExternalSecretKind = "ClusterExternalSecret"
)

// V1 names a kind of version v1.
func V1(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: Group, Version: "v1", Kind: kind}
}

// AddToScheme makes the types known under the versions that External Secrets
// serves since 0.16.
func AddToScheme(s *runtime.Scheme) error {
	v1 := schema.GroupVersion{Group: Group, Version: "v1"}
	s.AddKnownTypes(v1, &SecretStore{}, &SecretStoreList{}, &ClusterSecretStore{}, &ClusterSecretStoreList{},
		&ExternalSecret{}, &ExternalSecretList{})
	v1alpha1 := schema.GroupVersion{Group: Group, Version: "v1alpha1"}
	s.AddKnownTypes(v1alpha1, &PushSecret{}, &PushSecretList{})
	metav1.AddToGroupVersion(s, v1)
	metav1.AddToGroupVersion(s, v1alpha1)
	return nil
}

// SecretStore says where external secrets of its namespace come from.
type SecretStore struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              StoreSpec   `json:"spec,omitempty"`
	Status            StoreStatus `json:"status,omitempty"`
}

// SecretStoreList is a list of stores.
type SecretStoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SecretStore `json:"items"`
}

// ClusterSecretStore is a store for all namespaces.
type ClusterSecretStore struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              StoreSpec   `json:"spec,omitempty"`
	Status            StoreStatus `json:"status,omitempty"`
}

// ClusterSecretStoreList is a list of stores.
type ClusterSecretStoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterSecretStore `json:"items"`
}

// StoreSpec is the configuration of a store.
type StoreSpec struct {
	Provider map[string]Provider `json:"provider,omitempty"` // one, by its name, as keepersecurity
}

// Provider is what matters here of a provider's configuration.
type Provider struct {
	GetByTitleFallback bool        `json:"getByTitleFallback,omitempty"` // of keepersecurity: keys may be titles
	Secrets            []SecretRef `json:"-"`                            // what it authenticates with, wherever that stands
}

// SecretRef names a Secret. Without a Namespace it is that of who names it.
type SecretRef struct{ Namespace, Name string }

// StoreStatus is how a store stands.
type StoreStatus struct {
	Conditions []Condition `json:"conditions,omitempty"`
}

// Condition is a condition of a store, an external secret or a push secret.
type Condition struct {
	Type               string                 `json:"type"`
	Status             metav1.ConditionStatus `json:"status"`
	Reason             string                 `json:"reason,omitempty"`
	Message            string                 `json:"message,omitempty"`
	LastTransitionTime metav1.Time            `json:"lastTransitionTime,omitempty"`
}

// ExternalSecret makes a Secret of what a store holds.
type ExternalSecret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ExternalSecretSpec   `json:"spec,omitempty"`
	Status            ExternalSecretStatus `json:"status,omitempty"`
}

// ExternalSecretList is a list of external secrets.
type ExternalSecretList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ExternalSecret `json:"items"`
}

// ExternalSecretSpec says what is read, and when.
type ExternalSecretSpec struct {
	SecretStoreRef  StoreRef         `json:"secretStoreRef,omitempty"`
	RefreshPolicy   string           `json:"refreshPolicy,omitempty"`   // CreatedOnce, Periodic (default) or OnChange
	RefreshInterval *metav1.Duration `json:"refreshInterval,omitempty"` // nil: 1h
	SyncWindows     *SyncWindows     `json:"syncWindows,omitempty"`
	Target          Target           `json:"target,omitempty"`
	Data            []Data           `json:"data,omitempty"`
	DataFrom        []DataFrom       `json:"dataFrom,omitempty"`
}

// StoreRef names a store. An empty Kind is a SecretStore.
type StoreRef struct {
	Name string `json:"name,omitempty"`
	Kind string `json:"kind,omitempty"`
}

// Target is the Secret that an external secret makes.
type Target struct {
	Name           string    `json:"name,omitempty"` // "": the external secret's own
	CreationPolicy string    `json:"creationPolicy,omitempty"`
	Template       *Template `json:"template,omitempty"`
}

// Template is of what a Secret is made beside what is read.
type Template struct {
	TemplateFrom []TemplateFrom `json:"templateFrom,omitempty"`
}

// TemplateFrom is one source of a template.
type TemplateFrom struct {
	Secret *TemplateSecret `json:"secret,omitempty"`
}

// TemplateSecret is a Secret that has to be there.
type TemplateSecret struct {
	Name string `json:"name"`
}

// SyncWindows restrict periodic refreshes.
type SyncWindows struct {
	Kind    string       `json:"kind"` // allow or deny
	Windows []SyncWindow `json:"windows"`
}

// SyncWindow opens by a cron schedule, in UTC, for a while.
type SyncWindow struct {
	Schedule string          `json:"schedule"`
	Duration metav1.Duration `json:"duration"`
}

// Data is one key of a Secret. Each costs a call.
type Data struct {
	SecretKey string     `json:"secretKey"`
	RemoteRef RemoteRef  `json:"remoteRef"`
	SourceRef *SourceRef `json:"sourceRef,omitempty"`
}

// RemoteRef is a record of the upstream.
type RemoteRef struct {
	Key      string `json:"key"`
	Property string `json:"property,omitempty"`
}

// DataFrom is many keys of a Secret. Each costs a call.
type DataFrom struct {
	Extract   *RemoteRef `json:"extract,omitempty"`
	Find      *Find      `json:"find,omitempty"`
	SourceRef *SourceRef `json:"sourceRef,omitempty"`
}

// Find reads whatever fits, so that every record may matter to it.
type Find struct {
	Path *string `json:"path,omitempty"`
}

// SourceRef reads from another store than the external secret's, or from a
// generator, which calls no upstream.
type SourceRef struct {
	SecretStoreRef *StoreRef     `json:"storeRef,omitempty"`
	GeneratorRef   *GeneratorRef `json:"generatorRef,omitempty"`
}

// GeneratorRef names a generator.
type GeneratorRef struct {
	Name string `json:"name,omitempty"`
	Kind string `json:"kind,omitempty"`
}

// ExternalSecretStatus is how an external secret stands.
type ExternalSecretStatus struct {
	RefreshTime           metav1.Time `json:"refreshTime,omitempty"`
	SyncedResourceVersion string      `json:"syncedResourceVersion,omitempty"`
	Conditions            []Condition `json:"conditions,omitempty"`
}

// PushSecret writes a Secret to stores.
type PushSecret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              PushSecretSpec   `json:"spec,omitempty"`
	Status            PushSecretStatus `json:"status,omitempty"`
}

// PushSecretList is a list of push secrets.
type PushSecretList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PushSecret `json:"items"`
}

// PushSecretSpec says what is written, and when.
type PushSecretSpec struct {
	SecretStoreRefs []StoreRef       `json:"secretStoreRefs,omitempty"`
	RefreshInterval *metav1.Duration `json:"refreshInterval,omitempty"` // nil: 1h
	DeletionPolicy  string           `json:"deletionPolicy,omitempty"`
	Data            []PushData       `json:"data,omitempty"`
}

// PushData is one key that is written.
type PushData struct {
	Match PushMatch `json:"match"`
}

// PushMatch is where a key goes.
type PushMatch struct {
	SecretKey string     `json:"secretKey,omitempty"`
	RemoteRef PushRemote `json:"remoteRef"`
}

// PushRemote is a record of the upstream.
type PushRemote struct {
	RemoteKey string `json:"remoteKey"`
	Property  string `json:"property,omitempty"`
}

// PushSecretStatus is how a push secret stands.
type PushSecretStatus struct {
	RefreshTime metav1.Time `json:"refreshTime,omitempty"`
	Conditions  []Condition `json:"conditions,omitempty"`
}
