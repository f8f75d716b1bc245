package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Target is what asks Tollgate in a cluster.
type Target string

// The targets. Envoy Gateway knows only the first.
const (
	Gateway  Target = "gateway"  // an ingress gateway; in Istio by its label istio: NAME
	Sidecar  Target = "sidecar"  // what comes in at the pods with the label app: NAME
	Waypoint Target = "waypoint" // an ambient mesh's waypoint of that name
)

// Targets returns every target.
func Targets() []Target { return []Target{Gateway, Sidecar, Waypoint} }

// Via is how Istio is made to ask.
type Via string

// The ways.
const (
	// ViaProvider uses what Istio has for it, an extension provider and an
	// AuthorizationPolicy, and an EnvoyFilter only for what that lacks.
	ViaProvider Via = "provider"
	// ViaFilter uses an EnvoyFilter alone: the very filters of [Bootstrap].
	ViaFilter Via = "filter"
)

// Vias returns every way.
func Vias() []Via { return []Via{ViaProvider, ViaFilter} }

// Kubernetes is what the formats Istio and EnvoyGateway need beside the rest.
type Kubernetes struct {
	Target    Target // empty means Gateway
	Name      string // of the target; empty means ingressgateway, app, waypoint, or of Envoy Gateway eg
	Namespace string // of the target; empty means istio-system for Istio's gateway, else default
	Via       Via    // of Istio; empty means ViaProvider
}

// What the Helm chart makes: a service, and one that names every pod.
const (
	clusterTollgate  = "tollgate.tollgate.svc.cluster.local:8081"
	headlessTollgate = "tollgate-headless.tollgate.svc.cluster.local:8081"
)

// InCluster reports whether the format is for Kubernetes.
func (o Options) InCluster() bool { return o.Format == Istio || o.Format == EnvoyGateway }

func (k Kubernetes) withDefaults(f Format) Kubernetes {
	setDefault(&k.Target, Gateway)
	setDefault(&k.Via, ViaProvider)
	switch {
	case f == EnvoyGateway:
		setDefault(&k.Name, "eg")
	case k.Target == Gateway:
		setDefault(&k.Name, "ingressgateway")
		setDefault(&k.Namespace, "istio-system")
	case k.Target == Sidecar:
		setDefault(&k.Name, "app")
	default:
		setDefault(&k.Name, "waypoint")
	}
	setDefault(&k.Namespace, "default")
	return k
}

func (o Options) checkKubernetes() error {
	var errs []error
	k := o.Kubernetes
	if o.Mode == ToEgress {
		errs = append(errs, fmt.Errorf("mode %s: is not printed as %s: run an Envoy of its own in the cluster, on what --format %s --listen 0.0.0.0:10000 --tollgate %s prints, and send calls to its service", o.Mode, o.Format, Bootstrap, headlessTollgate))
	}
	if !slices.Contains(Targets(), k.Target) || o.Format == EnvoyGateway && k.Target != Gateway {
		errs = append(errs, fmt.Errorf("target %q: want one of %s, and of Envoy Gateway %s", k.Target, list(Targets()), Gateway))
	}
	if !slices.Contains(Vias(), k.Via) {
		errs = append(errs, fmt.Errorf("via %q: want one of %s", k.Via, list(Vias())))
	}
	for _, name := range []string{k.Name, k.Namespace} {
		if !isName(name) {
			errs = append(errs, fmt.Errorf("name %q: want small letters, digits and dashes", name))
		}
	}
	if len(o.Tollgate) != 1 || o.Service() == (service{}) {
		errs = append(errs, fmt.Errorf("tollgate: want one service as NAME.NAMESPACE.svc.cluster.local:PORT, such as %s", clusterTollgate))
	}
	if o.TLS != nil {
		errs = append(errs, errors.New("tls: is the mesh's or the gateway's business here: use a DestinationRule or a BackendTLSPolicy"))
	}
	return errors.Join(errs...)
}

func isName(s string) bool {
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

// service is a service of Kubernetes.
type service struct {
	Name, Namespace, Host string
	Port                  int
}

// Service returns where Tollgate is in the cluster; zero: the address is no
// service's.
func (o Options) Service() service {
	a, err := parseEndpoint(o.Tollgate[0])
	if err != nil {
		return service{}
	}
	if _, err := netip.ParseAddr(a.Host); err == nil {
		return service{}
	}
	labels := strings.Split(a.Host, ".")
	if len(labels) < 3 || labels[2] != "svc" || !isName(labels[0]) || !isName(labels[1]) || strings.ContainsAny(a.Host, " \"\n|") {
		return service{}
	}
	host := a.Host
	if len(labels) == 3 {
		host += ".cluster.local"
	}
	return service{Name: labels[0], Namespace: labels[1], Host: host, Port: a.Port}
}

// TimeoutText returns Timeout as the Gateway API writes durations: whole numbers.
func (o Options) TimeoutText() string {
	var b strings.Builder
	rest := (o.Timeout + time.Millisecond - 1).Truncate(time.Millisecond)
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := rest / u.of; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			rest -= n * u.of
		}
	}
	return b.String()
}

// Cluster returns the name of Envoy's cluster that is Tollgate.
func (o Options) Cluster() string {
	if o.Format == Istio {
		s := o.Service()
		return fmt.Sprintf("%q", fmt.Sprintf("outbound|%d||%s", s.Port, s.Host))
	}
	return "tollgate"
}

// ByProvider reports whether Istio's own ext_authz filter asks.
func (o Options) ByProvider() bool { return o.Authorizes() && o.Kubernetes.Via == ViaProvider }

// Context returns where Istio applies a patch.
func (k Kubernetes) Context() string {
	if k.Target == Gateway {
		return "GATEWAY"
	}
	return "SIDECAR_INBOUND"
}

// Listener returns the part of a match that leaves out listeners which carry no
// requests.
func (k Kubernetes) Listener() string {
	if k.Target == Waypoint {
		return "name: main_internal, "
	}
	return ""
}

// RoutesInside reports whether the target's routes are patched as a part of the
// connection manager: a waypoint's always are one, and Istio patches them as
// routes only where no route object is about them.
func (k Kubernetes) RoutesInside() bool { return k.Target == Waypoint }

// Label returns the label of the target's pods.
func (k Kubernetes) Label() string {
	if k.Target == Sidecar {
		return "app"
	}
	return "istio"
}

// Selected reports whether the target is found by its label, and not by name.
func (k Kubernetes) Selected() bool { return k.Target != Waypoint }
