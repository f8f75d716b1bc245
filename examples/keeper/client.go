package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "unsafe" // for go:linkname

	"github.com/keeper-security/secrets-manager-go/core"
	klog "github.com/keeper-security/secrets-manager-go/core/logger"

	"github.com/tollgate-dev/tollgate/envoy/envoytest/keeper"
)

// keeperServerPublicKeys are the vendor's public keys, which the SDK has built
// in. The fake's has to be among them.
//
//go:linkname keeperServerPublicKeys github.com/keeper-security/secrets-manager-go/core.keeperServerPublicKeys
var keeperServerPublicKeys map[string]string

// newAccount makes an application with one device. The SDK knows the fake's key
// afterwards.
func newAccount() (keeper.Account, error) {
	a, err := keeper.NewAccount()
	if err != nil {
		return a, err
	}
	klog.SetOutput(io.Discard) // the SDK logs each error that it returns
	keeperServerPublicKeys[keeper.ServerKeyID] = a.ServerKey()
	return a, nil
}

// client makes calls with the vendor's SDK.
type client struct {
	config    map[string]string
	transport *http.Transport
}

// newClient returns a client of the account that calls a host, which is at addr
// here; where a real one would ask the name service.
func newClient(a keeper.Account, host, addr string, ca *x509.CertPool) (*client, error) {
	config, err := a.Config(host)
	if err != nil {
		return nil, err
	}
	return &client{
		config: config,
		transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: ca},
			MaxIdleConnsPerHost: 1000,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			},
		},
	}, nil
}

// read gets one record, as External Secrets does for each entry of a secret. A
// refusal is a *core.KeeperHTTPError.
func (c *client) read(uid string) error {
	ctx := &core.Context{Transport: c.transport}
	manager := core.NewSecretsManager(&core.ClientOptions{Config: core.NewMemoryKeyValueStorage(c.config)}, &ctx)
	if manager == nil {
		return fmt.Errorf("the SDK takes no such configuration")
	}
	records, err := manager.GetSecrets([]string{uid})
	if err != nil {
		return err
	}
	if len(records) != 1 || records[0].Password() != "password of "+uid {
		return fmt.Errorf("record %s: got %d records, want it and its password", uid, len(records))
	}
	return nil
}
