package envoy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"google.golang.org/grpc/credentials"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

func TestMutualTLS(t *testing.T) { onBoth(t, mutualTLS) }

func mutualTLS(t *testing.T, listener string) {
	ours, theirs := envoytest.NewAuthority(t), envoytest.NewAuthority(t)
	cert, key := ours.Issue(t, "server", "tollgate.test")
	envoyCert, envoyKey := ours.Issue(t, "envoy", "spiffe://mesh/ns/edge/sa/envoy", "other.test")
	otherCert, otherKey := ours.Issue(t, "other", "spiffe://mesh/ns/edge/sa/other")
	foreignCert, foreignKey := theirs.Issue(t, "envoy", "spiffe://mesh/ns/edge/sa/envoy")
	_, addr := serveOn(t, listener, envoy.ServerOptions{TLS: &envoy.TLS{Cert: cert, Key: key, ClientCA: ours.CA,
		ClientSANs: []string{"spiffe://mesh/ns/edge/sa/envoy", "10.0.0.1"}}}, checker{})
	for _, c := range []struct {
		name      string
		cert, key string
		ok        bool
	}{
		{"the right name", envoyCert, envoyKey, true},
		{"another name of the same authority", otherCert, otherKey, false},
		{"the right name of another authority", foreignCert, foreignKey, false},
		{"no certificate", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkHealth(t, addr, ours.Client(t, "tollgate.test", c.cert, c.key))
			if (err == nil) != c.ok {
				t.Errorf("a call = %v, want it to succeed: %v", err, c.ok)
			}
		})
	}
	t.Run("TLS 1.2, as Envoy unless told", func(t *testing.T) {
		config := ours.Client(t, "tollgate.test", envoyCert, envoyKey)
		config.MaxVersion = tls.VersionTLS12
		if err := checkHealth(t, addr, config); err != nil {
			t.Error(err)
		}
	})
}

func TestRotatedFilesArePickedUp(t *testing.T) { onBoth(t, rotatedFilesArePickedUp) }

func rotatedFilesArePickedUp(t *testing.T, listener string) {
	authority := envoytest.NewAuthority(t)
	cert, key := authority.Issue(t, "server", "old.test")
	_, addr := serveOn(t, listener, envoy.ServerOptions{TLS: &envoy.TLS{Cert: cert, Key: key}}, checker{})
	if err := checkHealth(t, addr, authority.Client(t, "old.test", "", "")); err != nil {
		t.Fatal(err)
	}
	living := dial(t, addr, credentials.NewTLS(authority.Client(t, "old.test", "", "")))
	goesOn := func() {
		t.Helper()
		if _, err := healthpb.NewHealthClient(living).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("a call on the connection that was there before: %v", err)
		}
	}
	goesOn()
	// Half of a change is no change: a new certificate with the old key.
	oldKey, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	authority.Issue(t, "server", "new.test")
	newKey, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, key, oldKey)
	for deadline := time.Now().Add(1200 * time.Millisecond); time.Now().Before(deadline); {
		if err := checkHealth(t, addr, authority.Client(t, "old.test", "", "")); err != nil {
			t.Fatalf("while the files do not fit together: %v", err)
		}
	}
	rewrite(t, key, newKey)
	envoytest.Eventually(t, func() error { return checkHealth(t, addr, authority.Client(t, "new.test", "", "")) })
	if err := checkHealth(t, addr, authority.Client(t, "old.test", "", "")); err == nil {
		t.Error("the old certificate is still shown")
	}
	goesOn()
}

func TestTLSFilesThatCannotBe(t *testing.T) {
	authority := envoytest.NewAuthority(t)
	cert, key := authority.Issue(t, "server", "tollgate.test")
	for _, c := range []struct {
		name  string
		files envoy.TLS
		want  string
	}{
		{"absent", envoy.TLS{Cert: "absent.pem", Key: key}, "absent.pem"},
		{"key of another", envoy.TLS{Cert: authority.CA, Key: key}, "private key does not match"},
		{"no authority", envoy.TLS{Cert: cert, Key: key, ClientCA: key}, "holds no certificate"},
		{"names without authority", envoy.TLS{Cert: cert, Key: key, ClientSANs: []string{"a"}}, "client_sans needs client_ca"},
	} {
		if _, err := envoy.NewServer(envoy.ServerOptions{TLS: &c.files}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: NewServer = %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// checkHealth makes one call on a connection of its own.
func checkHealth(t *testing.T, addr string, config *tls.Config) error {
	t.Helper()
	conn := dial(t, addr, credentials.NewTLS(config))
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		return fmt.Errorf("health of %s: %w", config.ServerName, err)
	}
	return nil
}

func rewrite(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
