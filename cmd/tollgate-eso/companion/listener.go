package companion

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
)

// listener is a port.
type listener struct {
	lis     net.Listener
	server  *http.Server
	watcher *certwatcher.CertWatcher // nil: plaintext
}

// listen opens the port, so that an address that is taken is known at start. A
// rotated certificate is picked up.
func listen(address string, files config.TLS, h http.Handler) (*listener, error) {
	l := &listener{server: &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: 15 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}}
	if files.Cert != "" {
		var err error
		if l.watcher, err = certwatcher.New(files.Cert, files.Key); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		l.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: l.watcher.GetCertificate}
		if files.ClientCA != "" {
			pem, err := os.ReadFile(files.ClientCA)
			if err != nil {
				return nil, fmt.Errorf("tls.client_ca: %w", err)
			}
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("tls.client_ca: %s has no certificate in PEM", files.ClientCA)
			}
			l.server.TLSConfig.ClientCAs, l.server.TLSConfig.ClientAuth = pool, tls.VerifyClientCertIfGiven
		}
	}
	var err error
	l.lis, err = net.Listen("tcp", address)
	return l, err
}

func (l *listener) addr() string { return l.lis.Addr().String() }

// run serves until ctx ends, and then until the requests under way are answered.
func (l *listener) run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() {
		if l.watcher == nil {
			served <- l.server.Serve(l.lis)
			return
		}
		go func() { _ = l.watcher.Start(ctx) }() // ends with ctx
		served <- l.server.ServeTLS(l.lis, "", "")
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := l.server.Shutdown(within)
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

func (l *listener) close() error {
	if l.lis == nil {
		return nil
	}
	if err := l.lis.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
