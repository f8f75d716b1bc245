package test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	gatewayv1alpha1 "github.com/envoyproxy/gateway/api/v1alpha1"
	networkingistiov1 "istio.io/api/networking/v1"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1 "istio.io/api/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwapiv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// serviceMonitor is of the Prometheus operator, as far as the chart uses it.
type serviceMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		JobLabel  string               `json:"jobLabel"`
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// kinds are the types of all that is rendered or printed.
var kinds = map[string]func() any{
	"apps/v1 Deployment":                                  func() any { return new(appsv1.Deployment) },
	"autoscaling/v2 HorizontalPodAutoscaler":              func() any { return new(autoscalingv2.HorizontalPodAutoscaler) },
	"v1 ConfigMap":                                        func() any { return new(corev1.ConfigMap) },
	"v1 PersistentVolumeClaim":                            func() any { return new(corev1.PersistentVolumeClaim) },
	"v1 Service":                                          func() any { return new(corev1.Service) },
	"networking.k8s.io/v1 NetworkPolicy":                  func() any { return new(networkingv1.NetworkPolicy) },
	"policy/v1 PodDisruptionBudget":                       func() any { return new(policyv1.PodDisruptionBudget) },
	"monitoring.coreos.com/v1 ServiceMonitor":             func() any { return new(serviceMonitor) },
	"gateway.envoyproxy.io/v1alpha1 ClientTrafficPolicy":  func() any { return new(gatewayv1alpha1.ClientTrafficPolicy) },
	"gateway.envoyproxy.io/v1alpha1 SecurityPolicy":       func() any { return new(gatewayv1alpha1.SecurityPolicy) },
	"gateway.envoyproxy.io/v1alpha1 BackendTrafficPolicy": func() any { return new(gatewayv1alpha1.BackendTrafficPolicy) },
	"gateway.envoyproxy.io/v1alpha1 EnvoyGateway":         func() any { return new(gatewayv1alpha1.EnvoyGateway) },
	"gateway.networking.k8s.io/v1 ReferenceGrant":         func() any { return new(gwapiv1.ReferenceGrant) },
	"security.istio.io/v1 AuthorizationPolicy":            func() any { return &istio{spec: new(securityv1.AuthorizationPolicy)} },
	"networking.istio.io/v1 DestinationRule":              func() any { return &istio{spec: new(networkingistiov1.DestinationRule)} },
	"networking.istio.io/v1alpha3 EnvoyFilter":            func() any { return &istio{spec: new(networkingv1alpha3.EnvoyFilter)} },
}

var separator = regexp.MustCompile(`(?m)^---\n`)

// decode reads objects into their types; a field that a type does not have, or
// a kind that this file does not know, fails the test.
func decode(t *testing.T, text string) []any {
	t.Helper()
	var objects []any
	for _, doc := range separator.Split(text, -1) {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		if meta == (metav1.TypeMeta{}) && strings.TrimSpace(doc) == "" {
			continue
		}
		kind := strings.TrimSpace(fmt.Sprint(meta.APIVersion, " ", meta.Kind))
		build, known := kinds[kind]
		if !known {
			t.Fatalf("kind %q has no type here\n%s", kind, doc)
		}
		o := build()
		if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
			t.Errorf("%s: %v\n%s", kind, err, doc)
		}
		objects = append(objects, o)
	}
	return objects
}

// one returns the only object of a type.
func one[T any](t *testing.T, objects []any) T {
	t.Helper()
	var found []T
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T, want 1", len(found), *new(T))
	}
	return found[0]
}
