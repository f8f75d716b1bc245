package envoytest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Echo is what reached the upstream; its answer is this as JSON.
type Echo struct {
	Method  string
	Path    string // as on the wire, with the query
	Host    string
	Proto   string
	Headers map[string][]string // lower-case names
	Body    string
}

// Header returns a header's values joined by commas.
func (e Echo) Header(name string) string {
	return strings.Join(e.Headers[strings.ToLower(name)], ",")
}

// ReplyHeader is a request header that has the upstream answer with a header:
// NAME=VALUE.
const ReplyHeader = "x-reply-header"

// UpstreamHeader is a header of every answer of the upstream; an answer without
// it did not come from there.
const UpstreamHeader = "x-upstream"

// Upstream serves HTTP/1.1, HTTP/2 without TLS and gRPC on one port.
type Upstream struct {
	Addr string // HOST:PORT
}

// StartUpstream runs an upstream for as long as the test.
func StartUpstream(tb testing.TB) *Upstream {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	rpc := grpc.NewServer(grpc.UnknownServiceHandler(echoRPC))
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("content-type"), "application/grpc") {
			rpc.ServeHTTP(w, r)
			return
		}
		echoHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			tb.Error(err)
		}
	}()
	tb.Cleanup(func() {
		_ = server.Close() // what it was serving is of no interest any more
		<-done
	})
	return &Upstream{Addr: lis.Addr().String()}
}

func echoHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if name, value, ok := strings.Cut(r.Header.Get(ReplyHeader), "="); ok {
		w.Header().Set(name, value)
	}
	w.Header().Set(UpstreamHeader, "echo")
	w.Header().Set("content-type", "application/json")
	echo := Echo{Method: r.Method, Path: r.RequestURI, Host: r.Host, Proto: r.Proto, Headers: lower(r.Header), Body: string(body)}
	_ = json.NewEncoder(w).Encode(echo) // a client that is gone needs no answer
}

// echoRPC answers a StringValue with an Echo as JSON in a StringValue, whatever
// the method.
func echoRPC(_ any, stream grpc.ServerStream) error {
	var in wrapperspb.StringValue
	if err := stream.RecvMsg(&in); err != nil {
		return err
	}
	method, _ := grpc.MethodFromServerStream(stream)
	md, _ := metadata.FromIncomingContext(stream.Context())
	out, err := json.Marshal(Echo{Method: "POST", Path: method, Proto: "gRPC", Headers: md, Body: in.GetValue()})
	if err != nil {
		return err
	}
	header := metadata.Pairs(UpstreamHeader, "echo")
	for _, reply := range md.Get(ReplyHeader) {
		if name, value, ok := strings.Cut(reply, "="); ok {
			header.Set(name, value)
		}
	}
	if err := stream.SetHeader(header); err != nil {
		return err
	}
	return stream.SendMsg(wrapperspb.String(string(out)))
}

func lower(h http.Header) map[string][]string {
	lowered := make(map[string][]string, len(h))
	for name, values := range h {
		lowered[strings.ToLower(name)] = values
	}
	return lowered
}
