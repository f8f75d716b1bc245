package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// Mode is a way to wire Tollgate to Envoy.
type Mode string

// The modes.
const (
	Fused     Mode = "fused"     // one ext_authz call authenticates and limits
	TwoPhase  Mode = "two-phase" // ext_authz authenticates, then the ratelimit filter asks the rate limit service
	RateLimit Mode = "ratelimit" // the rate limit service alone
	ToEgress  Mode = "egress"    // calls to upstreams that throttle
)

// Modes returns every mode.
func Modes() []Mode { return []Mode{Fused, TwoPhase, RateLimit, ToEgress} }

// Format is what to print.
type Format string

// The formats.
const (
	Bootstrap Format = "bootstrap" // a file that Envoy starts with
	Filters   Format = "filters"   // the parts to put into a configuration of one's own

	// Objects of Kubernetes.
	Istio        Format = "istio"   // for Istio's gateways, sidecars and waypoints
	EnvoyGateway Format = "gateway" // for Envoy Gateway
)

// Formats returns every format.
func Formats() []Format { return []Format{Bootstrap, Filters, Istio, EnvoyGateway} }

// Options say what to print. Only Mode has no default.
type Options struct {
	Mode     Mode
	Format   Format   // empty means Bootstrap
	Listen   string   // where Envoy listens; empty means 127.0.0.1:10000
	Admin    string   // Envoy's admin interface; empty means 127.0.0.1:9901
	Upstream string   // HOST:PORT of the API; empty means 127.0.0.1:8000, and for mode egress any
	Tollgate []string // HOST:PORT or unix:PATH of every instance; empty means 127.0.0.1:8081, in Kubernetes the service tollgate of the namespace tollgate
	Streams  []string // likewise where streams are answered, if Tollgate's addresses are fast listeners; empty means Tollgate

	// Timeout is how long Envoy waits for a decision. 0 means 250 ms above
	// MaxWait.
	Timeout time.Duration
	MaxWait time.Duration // the longest time that a limit may hold a request
	// FailOpen lets requests through when no decision can be had.
	FailOpen bool
	Domain   string // of the rules that the rate limit service matches; empty means mesh

	// Credentials are the places of the configuration; nil means authorization
	// and x-api-key. Where requests pass without a decision, these places are
	// emptied by Envoy, unless KeepCredentials.
	Credentials     []extauthz.Place
	KeepCredentials bool

	TLS *TLS // to Tollgate; nil means plaintext

	Egress Egress // of mode egress

	Kubernetes Kubernetes // of the formats Istio and EnvoyGateway
}

// TLS is how Envoy connects to Tollgate. The paths are on Envoy's machine.
type TLS struct {
	CA         string // file with the authority that signs Tollgate's certificate
	ServerName string // the name, or spiffe:// identity, that it must bear
	Cert, Key  string // files with Envoy's own certificate, for mTLS; empty: none
}

// answerWithin is what a decision that waits for nothing may take, with room
// for a busy machine.
const answerWithin = 250 * time.Millisecond

// withDefaults returns the options filled in, or an error that names every
// problem.
func (o Options) withDefaults() (Options, error) {
	setDefault(&o.Format, Bootstrap)
	setDefault(&o.Listen, "127.0.0.1:10000")
	setDefault(&o.Admin, "127.0.0.1:9901")
	setDefault(&o.Domain, "mesh")
	setDefault(&o.Timeout, o.MaxWait+answerWithin)
	if len(o.Tollgate) == 0 {
		o.Tollgate = []string{"127.0.0.1:8081"}
		if o.InCluster() {
			o.Tollgate[0] = clusterTollgate
		}
	}
	if o.Credentials == nil {
		o.Credentials = []extauthz.Place{{Header: "authorization", Scheme: "Bearer"}, {Header: "x-api-key"}}
	}
	if o.Mode != ToEgress {
		setDefault(&o.Upstream, "127.0.0.1:8000")
	}
	o.Egress = o.Egress.withDefaults()
	o.Kubernetes = o.Kubernetes.withDefaults(o.Format)
	return o, o.check()
}

func setDefault[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

func (o Options) check() error {
	var errs []error
	if !slices.Contains(Modes(), o.Mode) {
		errs = append(errs, fmt.Errorf("mode %q: want one of %s", o.Mode, list(Modes())))
	}
	if !slices.Contains(Formats(), o.Format) {
		errs = append(errs, fmt.Errorf("format %q: want one of %s", o.Format, list(Formats())))
	}
	for _, a := range []struct {
		what, address string
		bound         bool // Envoy listens there, for which it takes no names
	}{{"listen", o.Listen, true}, {"admin", o.Admin, true}, {"upstream", o.Upstream, false}} {
		if a.address == "" {
			continue // the upstream of mode egress
		}
		switch parsed, err := parseAddress(a.address); {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", a.what, err))
		case a.bound && !parsed.IP():
			errs = append(errs, fmt.Errorf("%s: host %q: want an IP address, such as 127.0.0.1", a.what, parsed.Host))
		}
	}
	for _, address := range slices.Concat(o.Tollgate, o.Streams) {
		if _, err := parseEndpoint(address); err != nil {
			errs = append(errs, fmt.Errorf("tollgate: %w", err))
		}
	}
	if o.Mode == ToEgress {
		errs = append(errs, o.Egress.check())
	}
	if o.InCluster() {
		errs = append(errs, o.checkKubernetes())
	}
	if o.Timeout <= o.MaxWait {
		errs = append(errs, fmt.Errorf("timeout %v: must be above %v, the longest max_wait, or Envoy gives up on requests that Tollgate holds", o.Timeout, o.MaxWait))
	}
	if t := o.TLS; t != nil && (t.CA == "" || t.ServerName == "") {
		errs = append(errs, errors.New("tls: needs the file of the authority and the name of the server, or Envoy trusts anyone"))
	}
	if t := o.TLS; t != nil && (t.Cert == "") != (t.Key == "") {
		errs = append(errs, errors.New("tls: certificate and key go together"))
	}
	return errors.Join(errs...)
}

func list[T ~string](words []T) string {
	s := make([]string, len(words))
	for i, w := range words {
		s[i] = string(w)
	}
	return strings.Join(s, ", ")
}

// address is where something listens: a host and port, or a Unix socket.
type address struct {
	Host string
	Port int
	Path string // of a Unix socket; then the others are unset
}

// IP reports whether the host needs no name service.
func (a address) IP() bool {
	_, err := netip.ParseAddr(a.Host)
	return a.Path != "" || err == nil
}

func parseAddress(s string) (address, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, fmt.Errorf("address %q: want HOST:PORT", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return address{}, fmt.Errorf("address %q: port %q: want a number up to 65535", s, port)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return address{Host: host, Port: int(n)}, nil
}

func parseEndpoint(s string) (address, error) {
	path, isUnix := strings.CutPrefix(s, "unix:")
	if !isUnix {
		return parseAddress(s)
	}
	if path == "" {
		return address{}, fmt.Errorf("address %q: want unix:PATH", s)
	}
	return address{Path: path}, nil
}
