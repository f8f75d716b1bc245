package config_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/envoy/process"
	"github.com/tollgate-dev/tollgate/extauthz"
)

var update = flag.Bool("update", false, "write testdata/*.yaml anew")

// cases are what is printed, each under a name. The golden files show a reader
// what a change to a template does.
func cases() map[string]config.Options {
	all := make(map[string]config.Options)
	for _, mode := range config.Modes() {
		if mode == config.ToEgress {
			continue // egress_test.go
		}
		for _, format := range []config.Format{config.Bootstrap, config.Filters} { // the others: kubernetes_test.go
			all[string(mode)+"-"+string(format)] = config.Options{Mode: mode, Format: format}
		}
		all[string(mode)+"-held"] = config.Options{Mode: mode, MaxWait: 30 * time.Second, Tollgate: []string{"unix:/run/tollgate.sock"}}
		all[string(mode)+"-open"] = config.Options{Mode: mode, FailOpen: true, MaxWait: 10 * time.Minute,
			Upstream: "api.internal:80", Tollgate: []string{"tollgate-0.tollgate:8081", "tollgate-1.tollgate:8081"},
			Credentials: []extauthz.Place{{Header: "authorization", Scheme: "Bearer"}, {Query: "api_key"}, {Cookie: "session"},
				{Metadata: []string{"my.filter", "sub"}}}}
	}
	maps.Copy(all, egressCases())
	maps.Copy(all, clusterCases())
	return all
}

func TestPrint(t *testing.T) {
	for name, o := range cases() {
		t.Run(name, func(t *testing.T) {
			got := printed(t, o)
			golden := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("printed (-want +got; -update writes it anew):\n%s", diff)
			}
		})
	}
}

// TestEnvoyAccepts shows each configuration to each Envoy.
func TestEnvoyAccepts(t *testing.T) {
	authority := envoytest.NewAuthority(t)
	cert, key := authority.Issue(t, "there", "there")
	here := strings.NewReplacer("/certs/keeper-ca.pem", authority.CA, "/etc/ssl/certs/ca-certificates.crt", authority.CA, "/certs/there.pem", cert, "/certs/there.key", key)
	for _, binary := range envoytest.Binaries(t) {
		t.Run(filepath.Base(filepath.Dir(binary)), func(t *testing.T) {
			t.Parallel()
			for name, o := range cases() {
				bootstrap := printed(t, o)
				switch o.Format {
				case config.Filters:
					bootstrap = intoOwn(t, bootstrap)
				case config.Istio:
					bootstrap = patched(t, bootstrap)
				case config.EnvoyGateway:
					continue // holds nothing of Envoy's
				}
				bootstrap = []byte(here.Replace(string(bootstrap)))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if err := process.Validate(ctx, binary, bootstrap); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				cancel()
			}
		})
	}
}

// intoOwn does by program what a person does with --format filters: it puts the
// parts into a configuration of their own.
func intoOwn(t *testing.T, parts []byte) []byte {
	t.Helper()
	var p struct {
		HCM      map[string]any `yaml:"http_connection_manager"`
		Clusters []any          `yaml:"clusters"`
	}
	if err := yaml.Unmarshal(parts, &p); err != nil {
		t.Fatal(err)
	}
	hcm := p.HCM
	hcm["@type"] = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	hcm["stat_prefix"] = "own"
	routes, _ := hcm["route_config"].(map[string]any)
	if routes == nil {
		routes = make(map[string]any)
	}
	routes["name"] = "own"
	hcm["route_config"] = routes
	hcm["http_filters"] = append(hcm["http_filters"].([]any), map[string]any{"name": "envoy.filters.http.router",
		"typed_config": map[string]any{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}})
	listener := map[string]any{
		"name":    "own",
		"address": map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 0}},
		"filter_chains": []any{map[string]any{"filters": []any{map[string]any{
			"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}}}},
	}
	out, err := yaml.Marshal(map[string]any{"static_resources": map[string]any{
		"listeners": []any{listener}, "clusters": p.Clusters}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPrintRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		o    config.Options
		want []string // parts of the message
	}{
		{"nothing", config.Options{}, []string{`mode ""`, "fused, two-phase, ratelimit, egress"}},
		{"all at once", config.Options{Mode: "x", Format: "toml", Listen: "here", Upstream: "h:70000", Tollgate: []string{"unix:"}},
			[]string{`mode "x"`, `format "toml"`, `listen: address "here"`, `port "70000"`, `tollgate: address "unix:"`}},
		{"a name to listen on", config.Options{Mode: config.Fused, Listen: "localhost:80"}, []string{`listen: host "localhost"`, "IP address"}},
		{"timeout below the longest wait", config.Options{Mode: config.Fused, Timeout: time.Second, MaxWait: time.Second}, []string{"longest max_wait"}},
		{"trusts anyone", config.Options{Mode: config.Fused, TLS: &config.TLS{CA: "ca.pem"}}, []string{"trusts anyone"}},
		{"half a pair", config.Options{Mode: config.Fused, TLS: &config.TLS{CA: "ca.pem", ServerName: "t", Cert: "c"}}, []string{"go together"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			err := config.Print(&b, c.o)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Print = %v, want an error with %q", err, want)
				}
			}
			if b.Len() > 0 {
				t.Errorf("printed %d bytes all the same", b.Len())
			}
		})
	}
}

// FuzzPrint: whatever the addresses are, the result is YAML, or an error.
func FuzzPrint(f *testing.F) {
	f.Add("127.0.0.1:80", "unix:/a b", "x-api-key", "mesh")
	f.Add(`h"}}]}, evil: [{:1`, "unix:\n", "#", "'")
	f.Fuzz(func(t *testing.T, upstream, tollgate, header, domain string) {
		var b bytes.Buffer
		err := config.Print(&b, config.Options{Mode: config.TwoPhase, FailOpen: true, Upstream: upstream,
			Tollgate: []string{tollgate}, Domain: domain, Credentials: []extauthz.Place{{Header: header}}})
		if err != nil {
			return
		}
		var got struct {
			Resources struct {
				Clusters []struct{ Name string } `yaml:"clusters"`
			} `yaml:"static_resources"`
		}
		if err := yaml.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatalf("%v\n%s", err, b.Bytes())
		}
		if n := len(got.Resources.Clusters); n != 3 {
			t.Errorf("%d clusters, want 3", n)
		}
	})
}

func printed(t *testing.T, o config.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := config.Print(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ExamplePrint() {
	var b bytes.Buffer
	if err := config.Print(&b, config.Options{Mode: config.Fused, Upstream: "127.0.0.1:3000"}); err != nil {
		fmt.Println(err)
	}
	first, _, _ := strings.Cut(b.String(), "\n")
	fmt.Println(first)
	// Output: # Envoy with Tollgate, mode fused; printed by `tollgate envoy fused`, for Envoy 1.36 and later.
}
