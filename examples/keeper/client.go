package main

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "unsafe" // for go:linkname

	"github.com/keeper-security/secrets-manager-go/core"
	klog "github.com/keeper-security/secrets-manager-go/core/logger"
)

// keeperServerPublicKeys are the vendor's public keys, which the SDK has built
// in. The fake's has to be among them.
//
//go:linkname keeperServerPublicKeys github.com/keeper-security/secrets-manager-go/core.keeperServerPublicKeys
var keeperServerPublicKeys map[string]string

// serverKeyID is the fake's among them.
const serverKeyID = "99"

// newAccount makes an application with one device. The SDK knows the fake's key
// afterwards.
func newAccount() (account, error) {
	server, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return account{}, err
	}
	device, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return account{}, err
	}
	a := account{server: server, device: device, clientID: make([]byte, 64), appKey: make([]byte, 32)}
	_, _ = rand.Read(a.clientID) // never fails, says crypto/rand
	_, _ = rand.Read(a.appKey)
	klog.SetOutput(io.Discard) // the SDK logs each error that it returns
	keeperServerPublicKeys[serverKeyID] = base64.RawURLEncoding.EncodeToString(server.PublicKey().Bytes())
	return a, nil
}

// client makes calls with the vendor's SDK.
type client struct {
	config    map[string]string
	transport *http.Transport
}

// newClient returns a client of the account that calls a host, which is at addr
// here; where a real one would ask the name service.
func newClient(a account, host, addr string, ca *x509.CertPool) (*client, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.device)
	if err != nil {
		return nil, err
	}
	return &client{
		config: map[string]string{
			"hostname":          host,
			"clientId":          base64.StdEncoding.EncodeToString(a.clientID),
			"privateKey":        base64.StdEncoding.EncodeToString(key),
			"serverPublicKeyId": serverKeyID,
			"appKey":            base64.StdEncoding.EncodeToString(a.appKey),
		},
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
	if len(records) != 1 || records[0].Password() != passwordOf(uid) {
		return fmt.Errorf("record %s: got %d records, want it and its password", uid, len(records))
	}
	return nil
}
