package envoytest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// clientTimeout bounds one request of a client.
const clientTimeout = time.Minute

// Answer is what a client got.
type Answer struct {
	Status  int        // HTTP
	Code    codes.Code // gRPC
	Header  http.Header
	Body    string // of gRPC the status' message
	Reached bool   // by the upstream
	Echo    Echo   // of the upstream, when reached
}

// Client asks one address in one protocol. It is safe for concurrent use.
type Client interface {
	// Try sends a GET, or over gRPC a call, for a path as it stands, with
	// pairs of header names and values.
	Try(ctx context.Context, path string, headers ...string) (Answer, error)
}

// Get is client's Try that must succeed.
func Get(tb testing.TB, c Client, path string, headers ...string) Answer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), clientTimeout)
	defer cancel()
	answer, err := c.Try(ctx, path, headers...)
	if err != nil {
		tb.Fatal(err)
	}
	return answer
}

// HTTP1 returns a client over HTTP/1.1 with connections kept alive.
func HTTP1(tb testing.TB, addr string) Client {
	return newHTTP(tb, addr, func(p *http.Protocols) { p.SetHTTP1(true) })
}

// HTTP2 returns a client over HTTP/2 without TLS.
func HTTP2(tb testing.TB, addr string) Client {
	return newHTTP(tb, addr, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
}

type httpClient struct {
	addr   string
	client *http.Client
}

func newHTTP(tb testing.TB, addr string, set func(*http.Protocols)) Client {
	protocols := new(http.Protocols)
	set(protocols)
	transport := &http.Transport{Protocols: protocols, MaxIdleConnsPerHost: 100}
	tb.Cleanup(transport.CloseIdleConnections)
	return &httpClient{addr: addr, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *httpClient) Try(ctx context.Context, path string, headers ...string) (Answer, error) {
	req := &http.Request{Method: http.MethodGet, Header: make(http.Header), Host: c.addr,
		URL: &url.URL{Scheme: "http", Host: c.addr, Opaque: path}} // opaque: sent as it stands
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.client.Do(req.WithContext(ctx))
	if err != nil {
		return Answer{}, err
	}
	return read(resp)
}

func read(resp *http.Response) (Answer, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(body), Reached: resp.Header.Get(UpstreamHeader) != ""}
	if a.Reached {
		err = json.Unmarshal(body, &a.Echo)
	}
	return a, err
}

// Raw returns a client that writes an HTTP/1.1 request by hand, on a connection
// of its own, for request lines that net/http would not send.
func Raw(addr string) Client { return rawClient(addr) }

type rawClient string

func (c rawClient) Try(ctx context.Context, path string, headers ...string) (Answer, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", string(c))
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return Answer{}, err
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", path, string(c))
	for i := 0; i+1 < len(headers); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", headers[i], headers[i+1])
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return Answer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return Answer{}, err
	}
	return read(resp)
}

// GRPC returns a client that makes unary gRPC calls; a path is the method.
func GRPC(tb testing.TB, addr string) Client {
	tb.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return grpcClient{conn}
}

type grpcClient struct{ conn *grpc.ClientConn }

func (c grpcClient) Try(ctx context.Context, path string, headers ...string) (Answer, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, headers...)
	var header, trailer metadata.MD
	var out wrapperspb.StringValue
	err := c.conn.Invoke(ctx, path, wrapperspb.String("hello"), &out, grpc.Header(&header), grpc.Trailer(&trailer))
	s := status.Convert(err)
	a := Answer{Code: s.Code(), Body: s.Message(), Header: make(http.Header)}
	for name, values := range metadata.Join(header, trailer) {
		for _, value := range values {
			a.Header.Add(name, value)
		}
	}
	if a.Reached = a.Header.Get(UpstreamHeader) != ""; a.Reached && err == nil {
		return a, json.Unmarshal([]byte(out.GetValue()), &a.Echo)
	}
	return a, nil
}
