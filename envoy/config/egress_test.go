package config_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/config"
)

func keeper() config.ThrottlingUpstream {
	return config.ThrottlingUpstream{ID: "keeper", Hosts: []string{"*.keepersecurity.com", "keepersecurity.com"}, Statuses: []int{429, 403, 503},
		Headers: []string{"Retry-After"}, Bodies: true}
}

func models() config.ThrottlingUpstream {
	return config.ThrottlingUpstream{ID: "models", Hosts: []string{"api.models.example"}, Statuses: []int{429}, Headers: []string{"X-Throttled"}}
}

func egressCases() map[string]config.Options {
	all := map[string]config.Options{
		"egress-bootstrap": {},
		"egress-filters":   {Format: config.Filters, Egress: config.Egress{Upstreams: []config.ThrottlingUpstream{keeper(), models()}}},
		"egress-alias": {MaxWait: 10 * time.Minute, Upstream: "10.0.0.7:443", Tollgate: []string{"unix:/run/tollgate.sock"},
			Egress: config.Egress{Upstreams: []config.ThrottlingUpstream{keeper()}, CA: "/certs/keeper-ca.pem",
				Aliases: []config.Alias{{Name: "keeper-team-a.internal", Host: "keepersecurity.com"}, {Name: "keeper-team-b.internal", Host: "eu.keepersecurity.com"}}}},
		"egress-access-log": {FailOpen: true, Egress: config.Egress{Upstreams: []config.ThrottlingUpstream{models()}, Learn: config.ByAccessLog}},
		"egress-plaintext": {Egress: config.Egress{Plaintext: true, Learn: config.ByAccessLog, Upstreams: []config.ThrottlingUpstream{{ID: "all", Hosts: []string{"*"}}},
			Aliases: []config.Alias{{Name: "there", Host: "here.example"}}, Cert: "/certs/there.pem", Key: "/certs/there.key"}},
	}
	for name, o := range all {
		o.Mode = config.ToEgress
		all[name] = o
	}
	return all
}

func TestPrintRefusesEgress(t *testing.T) {
	for _, c := range []struct {
		name string
		e    config.Egress
		want string
	}{
		{"another way to learn", config.Egress{Upstreams: []config.ThrottlingUpstream{keeper()}, Learn: "guessing"}, "ext_proc, access_log"},
		{"bodies in an access log", config.Egress{Upstreams: []config.ThrottlingUpstream{keeper()}, Learn: config.ByAccessLog}, `"keeper" look into bodies`},
		{"half a pair", config.Egress{Upstreams: []config.ThrottlingUpstream{keeper()}, Cert: "c"}, "go together"},
		{"alias of nothing", config.Egress{Upstreams: []config.ThrottlingUpstream{keeper()}, Aliases: []config.Alias{{Name: "a"}}}, "NAME=HOST"},
		{"alias of a stranger", config.Egress{Upstreams: []config.ThrottlingUpstream{keeper()}, Aliases: []config.Alias{{"a", "b.example"}}}, `matches the host "b.example"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			err := config.Print(&b, config.Options{Mode: config.ToEgress, Egress: c.e})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Print = %v, want an error with %q", err, c.want)
			}
			if b.Len() > 0 {
				t.Errorf("printed %d bytes all the same", b.Len())
			}
		})
	}
}
