package fastgrpc_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// bytesCodec hands messages through as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (bytesCodec) Name() string                       { return "proto" }

func connect(t testing.TB, target string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func invoke(ctx context.Context, conn *grpc.ClientConn, method string, request []byte, opts ...grpc.CallOption) ([]byte, error) {
	var response []byte
	err := conn.Invoke(ctx, method, &request, &response, opts...)
	return response, err
}

func TestGRPCGoClient(t *testing.T) {
	s := newService()
	_, addr := serve(t, fastgrpc.Options{Methods: s.methods()})
	conn := connect(t, addr, insecure.NewCredentials())
	ctx := t.Context()

	for _, size := range []int{0, 1, 1000, 70_000, 3 << 20} {
		want := bytes.Repeat([]byte{'m'}, size)
		got, err := invoke(ctx, conn, echo, want)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("echo of %d bytes = %d bytes, %v", size, len(got), err)
		}
	}
	sized := metadata.AppendToOutgoingContext(ctx, "size", "20000000")
	if got, err := invoke(sized, conn, repeat, nil); err == nil || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("answer of 20 MB = %d bytes, %v, want RESOURCE_EXHAUSTED: more than may be held back", len(got), err)
	}
	sized = metadata.AppendToOutgoingContext(ctx, "size", "9000000")
	if got, err := invoke(sized, conn, repeat, nil); err != nil || len(got) != 9_000_000 {
		t.Errorf("answer of 9 MB = %d bytes, %v", len(got), err)
	}
	for _, test := range []struct {
		name, method string
		request      []byte
		opts         []grpc.CallOption
		want         codes.Code
		message      string
	}{
		{"too large", echo, make([]byte, 4<<20+1), nil, codes.ResourceExhausted, "grpc: received message larger than max (4194305 vs. 4194304)"},
		{"status", fail, []byte("\x07naïve\n100 %"), nil, codes.PermissionDenied, "naïve\n100 %"},
		{"unknown method", "/test.Service/Other", nil, nil, codes.Unimplemented, "unknown method Other for service test.Service"},
		{"compressed", echo, []byte("x"), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, codes.Unimplemented, `grpc-encoding "gzip" is not supported`},
	} {
		_, err := invoke(ctx, conn, test.method, test.request, test.opts...)
		if got := status.Convert(err); got.Code() != test.want || got.Message() != test.message {
			t.Errorf("%s: %v %q, want %v %q", test.name, got.Code(), got.Message(), test.want, test.message)
		}
	}

	held, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	// Either side's timer may be first; the handler answers with its context's error.
	_, err := invoke(held, conn, wait, nil)
	if got := status.Convert(err); got.Code() != codes.DeadlineExceeded && got.Message() != context.DeadlineExceeded.Error() {
		t.Errorf("held call with a deadline = %v, want it ended by the deadline", err)
	}
	if err := <-s.ended; err == nil {
		t.Error("held call was let go, want its context ended")
	}
	held, cancel = context.WithCancel(ctx)
	go func() { _, _ = invoke(held, conn, echo, nil); cancel() }()
	if _, err := invoke(held, conn, wait, nil); status.Code(err) != codes.Canceled {
		t.Errorf("cancelled call = %v, want CANCELED", err)
	}

	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Stream/Talk")
	if err == nil {
		err = stream.RecvMsg(new([]byte))
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("stream = %v, want UNIMPLEMENTED", err)
	}
}

// certify makes a certificate for 127.0.0.1, signed by parent or by itself.
func certify(t testing.TB, serial int64, parent *tls.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("test ", serial)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: parent == nil, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	signer := &tls.Certificate{Leaf: template, PrivateKey: key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.Leaf, key.Public(), signer.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TLS, mutual TLS, and a certificate that is rotated while connections go on.
func TestTLS(t *testing.T) {
	ca, foreign := certify(t, 1, nil), certify(t, 2, nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Leaf)
	var current atomic.Pointer[tls.Certificate]
	current.Store(certify(t, 10, ca))
	s := newService()
	methods := s.methods()
	methods["/test.Service/Who"] = fastgrpc.HandlerFunc(func(call *fastgrpc.Call, _, response []byte) ([]byte, fastgrpc.Status) {
		return append(response, call.TLS().PeerCertificates[0].Subject.CommonName...), fastgrpc.Status{}
	})
	_, addr := serve(t, fastgrpc.Options{Methods: methods, TLS: &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
		ClientCAs:      roots, ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	as := func(client *tls.Certificate, serial *string) *grpc.ClientConn {
		return connect(t, addr, credentials.NewTLS(&tls.Config{
			RootCAs: roots, Certificates: []tls.Certificate{*client},
			VerifyConnection: func(state tls.ConnectionState) error {
				*serial = state.PeerCertificates[0].SerialNumber.String()
				return nil
			},
		}))
	}
	var first, second string
	old := as(certify(t, 20, ca), &first)
	if got, err := invoke(t.Context(), old, "/test.Service/Who", nil); err != nil || string(got) != "test 20" || first != "10" {
		t.Errorf("first client: %q, %v, server certificate %s; want test 20, certificate 10", got, err, first)
	}
	current.Store(certify(t, 11, ca))
	if got, err := invoke(t.Context(), as(certify(t, 21, ca), &second), "/test.Service/Who", nil); err != nil || string(got) != "test 21" || second != "11" {
		t.Errorf("client after rotation: %q, %v, server certificate %s; want test 21, certificate 11", got, err, second)
	}
	big := bytes.Repeat([]byte{'m'}, 3<<20)
	if got, err := invoke(t.Context(), old, echo, big); err != nil || !bytes.Equal(got, big) {
		t.Errorf("3 MB on the old connection: %d bytes, %v", len(got), err)
	}
	// A held call's answer wakes a connection that sleeps in a TLS read.
	answered := make(chan error, 1)
	go func() {
		_, err := invoke(t.Context(), old, wait, []byte("x"))
		answered <- err
	}()
	s.letGo <- struct{}{}
	if err := <-answered; err != nil {
		t.Errorf("held call over TLS = %v", err)
	}
	var none string
	if _, err := invoke(t.Context(), as(certify(t, 22, foreign), &none), echo, nil); status.Code(err) != codes.Unavailable {
		t.Errorf("client of a foreign CA = %v, want UNAVAILABLE", err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fast.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, fastgrpc.Options{})
	got, err := invoke(t.Context(), connect(t, "unix:"+path, insecure.NewCredentials()), echo, []byte("hello"))
	if err != nil || string(got) != "hello" {
		t.Errorf("echo over a unix socket = %q, %v", got, err)
	}
}

// No call fails while connections retire all the time, nor when one server
// drains and another takes its place on the same address.
func TestNoCallFailsWhileConnectionsEnd(t *testing.T) {
	opts := fastgrpc.Options{Methods: newService().methods(), MaxConnectionAge: 20 * time.Millisecond}
	addr := redistest.FreeAddr(t) // which stays free while nobody listens
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := fastgrpc.New(opts)
	go func() { _ = server.Serve(l) }()

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var calls, failed atomic.Int64
	for range 4 {
		conn := connect(t, addr, insecure.NewCredentials())
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					calls.Add(1)
					// WaitForReady covers the moment without a listener.
					if _, err := invoke(t.Context(), conn, echo, []byte(strings.Repeat("x", 100)), grpc.WaitForReady(true)); err != nil {
						failed.Add(1)
						t.Errorf("call failed: %v", err)
						return
					}
				}
			})
		}
	}
	for range 5 {
		time.Sleep(200 * time.Millisecond) // real clients, real time
		if err := server.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown() = %v", err)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		server = fastgrpc.New(opts)
		go func() { _ = server.Serve(l) }()
	}
	close(stop)
	wg.Wait()
	server.Close()
	t.Logf("%d calls, %d failed", calls.Load(), failed.Load())
}
