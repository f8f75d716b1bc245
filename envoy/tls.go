package envoy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// TLS names the files and identities of a listener. Files that change are
// picked up by the next connection, whole or not at all.
type TLS struct {
	Cert, Key  string   // PEM files: the chain, leaf first, and its key
	ClientCA   string   // PEM file: the authorities of client certificates; empty: clients need none
	ClientSANs []string // a client's certificate must have one of these as URI, DNS name, e-mail or IP; empty: any
}

// recheck is how long loaded files are used before they are looked at again.
// Envoy's connections last, so handshakes are rare and this costs nothing.
const recheck = time.Second

// certificates holds what was loaded last. Safe for concurrent use.
type certificates struct {
	files TLS
	log   *slog.Logger

	mu      sync.Mutex
	config  *tls.Config
	stamp   string    // of the files that config was made from
	checked time.Time // when the files were looked at last
}

// serverConfig returns a TLS configuration that follows the files. The error
// says which of them cannot be used now.
func serverConfig(files TLS, log *slog.Logger) (*tls.Config, error) {
	if len(files.ClientSANs) > 0 && files.ClientCA == "" {
		return nil, errors.New("tls: client_sans needs client_ca: names in certificates that nobody vouches for mean nothing")
	}
	c := &certificates{files: files, log: log, stamp: files.stamp(), checked: time.Now()}
	config, err := files.load()
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	c.config = config
	follow := config.Clone()
	follow.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current(), nil }
	return follow, nil
}

// current returns the configuration of the files as they are now, or the last
// good one.
func (c *certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < recheck {
		return c.config
	}
	c.checked = time.Now()
	stamp := c.files.stamp()
	if stamp == c.stamp {
		return c.config
	}
	config, err := c.files.load()
	if err != nil {
		// Half-written files are whole a moment later; the stamp is left, so that they are tried again.
		c.log.Error("changed TLS files cannot be used, going on with the last ones", "err", err)
		return c.config
	}
	c.config, c.stamp = config, stamp
	c.log.Info("TLS files reloaded", "cert", c.files.Cert)
	return c.config
}

// stamp changes whenever one of the files does.
func (t TLS) stamp() string {
	var b strings.Builder
	for _, name := range []string{t.Cert, t.Key, t.ClientCA} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintf(&b, "%d %d;", info.ModTime().UnixNano(), info.Size())
		}
	}
	return b.String()
}

func (t TLS) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("load %q and %q: %w", t.Cert, t.Key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12, // Envoy's default as a client
		NextProtos:   []string{"h2"},
		// A resumed session would outlive a change of the client authorities.
		SessionTicketsDisabled: true,
	}
	if t.ClientCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(t.ClientCA)
	if err != nil {
		return nil, err
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%q holds no certificate", t.ClientCA)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.VerifyConnection = t.verifyClient
	return config, nil
}

// verifyClient checks a client whose certificate has been verified.
func (t TLS) verifyClient(state tls.ConnectionState) error {
	if len(t.ClientSANs) == 0 {
		return nil
	}
	names := sans(state.PeerCertificates[0]) // there is one: the handshake requires it
	if slices.ContainsFunc(names, func(name string) bool { return slices.Contains(t.ClientSANs, name) }) {
		return nil
	}
	return fmt.Errorf("client certificate for %q: want one of client_sans", names)
}

// sans returns every subject alternative name of a certificate.
func sans(c *x509.Certificate) []string {
	names := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}
