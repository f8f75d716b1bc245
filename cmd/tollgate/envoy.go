package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	envoyconfig "github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/commandline"
	"github.com/tollgate-dev/tollgate/internal/config"
)

func newEnvoy() *cobra.Command {
	var o envoyconfig.Options
	var format, path string
	var tls envoyconfig.TLS
	var aliases []string
	var target string
	cmd := &cobra.Command{
		Use:   "envoy MODE",
		Short: "Print Envoy configuration that asks Tollgate",
		Long: `Envoy prints configuration that works as it is. MODE is one of
  fused      one ext_authz call authenticates and limits
  two-phase  ext_authz authenticates, then the ratelimit filter asks for limits
  ratelimit  the rate limit service alone
  egress     calls to upstreams that throttle: to whatever host they name, over
             TLS, held or refused by the upstreams of --config

For Kubernetes, --format istio and --format gateway (Envoy Gateway) print objects
to apply. --target says for whom, and --tollgate names the service.`,
		Example: `  tollgate envoy fused --upstream 127.0.0.1:8000 > envoy.yaml && envoy -c envoy.yaml
  tollgate envoy two-phase --format filters --config tollgate.yaml
  tollgate envoy fused --format istio --target sidecar/billing --namespace shop | kubectl apply -f -
  tollgate envoy egress --config tollgate.yaml --alias vault.internal=vault.example.com --listen-cert vault.pem --listen-key vault.key`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: words(envoyconfig.Modes()),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Mode, o.Format = envoyconfig.Mode(args[0]), envoyconfig.Format(format)
			if tls != (envoyconfig.TLS{}) {
				o.TLS = &tls
			}
			for _, alias := range aliases {
				name, host, _ := strings.Cut(alias, "=")
				o.Egress.Aliases = append(o.Egress.Aliases, envoyconfig.Alias{Name: name, Host: host})
			}
			if target != "" {
				kind, name, _ := strings.Cut(target, "/")
				o.Kubernetes.Target, o.Kubernetes.Name = envoyconfig.Target(kind), name
			}
			if path != "" {
				if err := fit(&o, path); err != nil {
					return err
				}
			}
			var out strings.Builder // nothing is printed of what is wrong
			if err := envoyconfig.Print(&out, o); err != nil {
				return commandline.Wrong(err)
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), out.String())
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "config", "", "Tollgate's configuration `file`: timeouts and addresses fit it")
	f.StringVar(&format, "format", "bootstrap", strings.Join(words(envoyconfig.Formats()), " or "))
	f.StringVar(&o.Listen, "listen", "", "where Envoy listens (default 127.0.0.1:10000)")
	f.StringVar(&o.Admin, "admin", "", "Envoy's admin interface (default 127.0.0.1:9901)")
	f.StringVar(&o.Upstream, "upstream", "", "the API's `HOST:PORT` (default 127.0.0.1:8000; egress: the host that a call names)")
	f.StringArrayVar(&o.Tollgate, "tollgate", nil, "Tollgate's `HOST:PORT` or unix:PATH, may be repeated (default 127.0.0.1:8081)")
	f.DurationVar(&o.Timeout, "timeout", 0, "how long Envoy waits for a decision (default: above the longest max_wait)")
	f.BoolVar(&o.FailOpen, "fail-open", false, "let requests through when no decision can be had")
	f.StringVar(&tls.CA, "tls-ca", "", "the `file` with the authority of Tollgate's certificate, on Envoy's machine")
	f.StringVar(&tls.ServerName, "tls-name", "", "the `name` or spiffe:// identity in Tollgate's certificate")
	f.StringVar(&tls.Cert, "tls-cert", "", "the `file` with Envoy's own certificate, for mTLS")
	f.StringVar(&tls.Key, "tls-key", "", "the `file` with its key")
	f.StringVar(&target, "target", "", "istio, gateway: whose requests, `KIND/NAME`, KIND one of "+strings.Join(words(envoyconfig.Targets()), ", ")+" (default gateway)")
	f.StringVar(&o.Kubernetes.Namespace, "namespace", "", "istio, gateway: the target's `namespace` (default istio-system for Istio's gateway, else default)")
	f.StringVar((*string)(&o.Kubernetes.Via), "via", "", "istio: "+strings.Join(words(envoyconfig.Vias()), " or ")+": Istio's own extension provider, or an EnvoyFilter alone (default provider)")
	f.StringVar((*string)(&o.Egress.Learn), "learn", "", "egress: how Tollgate learns what upstreams answer, "+strings.Join(words(envoyconfig.Learnings()), " or ")+" (default ext_proc)")
	f.StringArrayVar(&aliases, "alias", nil, "egress: a further `NAME=HOST` that callers may use for an upstream's host, may be repeated")
	f.StringVar(&o.Egress.CA, "upstream-ca", "", "egress: the `file` with the authorities of upstreams' certificates (default /etc/ssl/certs/ca-certificates.crt)")
	f.BoolVar(&o.Egress.Plaintext, "upstream-plaintext", false, "egress: speak no TLS to upstreams")
	f.StringVar(&o.Egress.Cert, "listen-cert", "", "egress: the `file` with the certificate that Envoy shows callers; they then speak TLS")
	f.StringVar(&o.Egress.Key, "listen-key", "", "egress: the `file` with its key")
	return cmd
}

// fit takes over what Tollgate's own configuration says.
func fit(o *envoyconfig.Options, path string) error {
	loaded, _, err := config.Load(path, os.LookupEnv)
	if err != nil {
		return err
	}
	o.MaxWait = loaded.MaxWait()
	policy, listen := loaded.Config.Policy, loaded.Config.Listen
	for _, u := range loaded.Config.Upstreams {
		o.Egress.Upstreams = append(o.Egress.Upstreams, throttling(u))
	}
	o.Domain, o.Credentials, o.KeepCredentials = policy.Domain, policy.Credentials, !policy.Strip
	if o.InCluster() {
		return nil // what the file listens on is a pod's
	}
	if listen.TLS != nil && o.TLS == nil {
		return commandline.Wrongf("%s: the gRPC port uses TLS: say with --tls-ca and --tls-name how Envoy checks it", path)
	}
	if len(o.Tollgate) == 0 {
		o.Tollgate = []string{reachable(cmp.Or(listen.Fast, listen.GRPC))}
		if listen.Fast != "" {
			o.Streams = []string{reachable(listen.GRPC)}
		}
	}
	return nil
}

// throttling is what Envoy has to know of an upstream.
func throttling(u *upstreams.Config) envoyconfig.ThrottlingUpstream {
	t := envoyconfig.ThrottlingUpstream{ID: u.ID, Hosts: u.Hosts}
	for _, s := range u.Signals {
		t.Statuses = append(t.Statuses, s.Status)
		if s.Header != "" {
			t.Headers = append(t.Headers, s.Header)
		}
		t.Bodies = t.Bodies || s.Body != ""
	}
	return t
}

// reachable turns an address to listen on into one to connect to from here.
func reachable(address string) string {
	for _, any := range []string{"0.0.0.0:", "[::]:", ":"} {
		if port, ok := strings.CutPrefix(address, any); ok {
			return "127.0.0.1:" + port
		}
	}
	return address
}

func words[T ~string](values []T) []string {
	var s []string
	for _, v := range values {
		s = append(s, string(v))
	}
	return s
}
