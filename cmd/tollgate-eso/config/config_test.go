package config_test

import (
	"crypto/sha256"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/guard"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

func parse(text string) (*config.Config, error) {
	lookup := func(name string) (string, bool) { return "0123456789abcdef", name == "SECRET" }
	return config.Parse("t.yaml", []byte(text), yamlfile.Options{Lookup: lookup})
}

func TestParse(t *testing.T) {
	c, err := parse(`
listen: 0.0.0.0:8090
tls: {cert: c.pem, key: k.pem, client_ca: ca.pem}
tollgate: {server: "http://tollgate:8080", token: t}
upstreams: [{id: k, provider: keepersecurity, stores: [ClusterSecretStore/a, SecretStore/n/b], sync_windows: 10m, park: {all: true, after: 5, every: 12h}}]
webhooks: [{name: h, preset: keeper, upstream: k, secret: "${SECRET}", client_sans: [x], replay: 1m, rate: 3}]
push: {coalesce: 1s, net: 12h}
`)
	if err != nil {
		t.Fatal(err)
	}
	u, h := c.Upstreams[0], c.Hooks[0]
	if u.Park != (guard.Park{All: true, After: 5, Every: 12 * time.Hour}) {
		t.Errorf("park = %+v", u.Park)
	}
	if u.ID != "k" || u.Windows != 10*time.Minute || len(u.Stores.Stores) != 2 || u.Stores.Stores[1] != (eso.Store{Kind: "SecretStore", Namespace: "n", Name: "b"}) {
		t.Errorf("upstream = %+v", u)
	}
	if h.Secret != sha256.Sum256([]byte("0123456789abcdef")) || h.Rate != 3 || h.Burst != 15 || h.Replay != time.Minute || len(h.Adapter.Records) != 2 {
		t.Errorf("webhook = %+v", h)
	}
	if c.TLS.ClientCA != "ca.pem" || c.Coalesce != time.Second || c.Net != 12*time.Hour || c.Token != "t" {
		t.Errorf("configuration = %+v", c)
	}
}

// TestParseSaysWhatIsWrong: each mistake with its place and what was wanted.
func TestParseSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"listn: a", "t.yaml:1:1: "},
		{"webhooks: [{name: h, preset: keeper, upstream: keeper}]", "want a secret, or client_sans"},
		{"webhooks: [{name: h, preset: keeper, upstream: keeper, secret: short}]", "at least 16 characters"},
		{"webhooks: [{name: h, preset: keeper, upstream: other, secret: 0123456789abcdef}]", `upstream "other"`},
		{"webhooks: [{name: h, preset: kepper, upstream: keeper, secret: 0123456789abcdef}]", "keeper"},
		{"webhooks: [{name: h, upstream: keeper, secret: 0123456789abcdef}]", "want a preset, or records"},
		{"webhooks: [{name: a/b, preset: keeper, upstream: keeper, secret: 0123456789abcdef}]", "want a name"},
		{"webhooks: [{name: h, preset: keeper, upstream: keeper, client_sans: [a]}]", "want tls.client_ca"},
		{"webhooks: [{name: h, records: [record], upstream: keeper, secret: 0123456789abcdef}]", "begins with $"},
		{"webhooks: [{name: h, preset: keeper, upstream: keeper, secret: \"${NOBODY}\"}]", "NOBODY"},
		{"upstreams: [{provider: a}]", "want an id"},
		{"upstreams: [{id: a}, {id: a}]", "another upstream already"},
		{"upstreams: [{id: a, stores: [keeper]}]", "ClusterSecretStore/NAME"},
		{"upstreams: [{id: a, park: {after: 2}}]", "3"},
		{"upstreams: [{id: a, park: {evry: 8h}}]", "evry"},
		{"push: {net: 0s}", "above 0"},
		{"tls: {cert: a}", "both cert and key"},
	} {
		if _, err := parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n%v, want it to say %q", c.text, err, c.want)
		}
	}
}

// TestDefaultReceivesNothing: without a configuration there is no webhook.
func TestDefaultReceivesNothing(t *testing.T) {
	for _, text := range []string{"", "{}", "webhooks: []"} {
		if c, err := parse(text); err != nil || len(c.Hooks) != 0 || c.Listen != "127.0.0.1:8090" || len(c.Upstreams) != 1 {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

// TestManifestIsRead: the configuration that is shipped can be read.
func TestManifestIsRead(t *testing.T) {
	data, err := os.ReadFile("../../../deploy/external-secrets/tollgate-eso.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "tollgate-eso.yaml: |\n")
	text, _, ok := strings.Cut(rest, "\n---")
	c, err := config.Parse("t.yaml", []byte(text), yamlfile.Options{Lookup: func(string) (string, bool) { return "0123456789abcdef", true }})
	if err != nil || !ok || len(c.Hooks) != 1 || c.Server != "http://tollgate:8080" {
		t.Errorf("%+v, %v", c, err)
	}
}
