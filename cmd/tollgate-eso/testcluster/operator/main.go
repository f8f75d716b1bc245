//go:build operator

// Command operator is External Secrets Operator itself, built from its Go module
// with Keeper's provider as the only one, for tests on loopback.
//
// Keeper's SDK always calls port 443 of its host, and knows only the vendor's
// keys: what a real cluster does by name service, mounted authority and vendor,
// the environment does here.
//
//	KEEPER_ADDRESS   host:port that every HTTPS call goes to
//	KEEPER_CA        file of the authority that it is checked by
//	KEEPER_KEY       the fake's public key, under the id 99
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log"
	"net"
	"net/http"
	"os"
	_ "unsafe" // for go:linkname

	"github.com/external-secrets/external-secrets/cmd/controller"
	_ "github.com/keeper-security/secrets-manager-go/core"
)

//go:linkname keeperServerPublicKeys github.com/keeper-security/secrets-manager-go/core.keeperServerPublicKeys
var keeperServerPublicKeys map[string]string

func main() {
	ca, err := os.ReadFile(os.Getenv("KEEPER_CA"))
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	keeperServerPublicKeys["99"] = os.Getenv("KEEPER_KEY")
	// The SDK uses the default transport; the Kubernetes client has its own.
	http.DefaultTransport = &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool},
		MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, os.Getenv("KEEPER_ADDRESS"))
		},
	}
	controller.Execute()
}
