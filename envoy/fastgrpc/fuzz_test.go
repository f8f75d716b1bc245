package fastgrpc_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// rawCodec hands messages through on grpc-go's server.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (rawCodec) Name() string                       { return "proto" }

// oracle starts grpc-go's server with the methods echo and fail.
func oracle(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unary := func(name string, answer func(request []byte) ([]byte, error)) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var request []byte
			if err := decode(&request); err != nil {
				return nil, err
			}
			return answer(request)
		}}
	}
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.MaxRecvMsgSize(fuzzMessage))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Service", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		unary("Echo", func(request []byte) ([]byte, error) { return request, nil }),
		unary("Fail", func(request []byte) ([]byte, error) {
			if len(request) == 0 {
				return nil, status.Error(codes.Aborted, "empty")
			}
			return nil, status.Error(codes.Code(request[0]%17), string(request[1:]))
		}),
	}}, struct{}{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// fuzzMessage is the largest message that the fuzzed servers take.
const fuzzMessage = 2000

// script turns fuzz bytes into frames of one call: what its header block says,
// and how its body is cut, padded, prefixed and ended.
type script struct{ b []byte }

func (s *script) next(n int) int {
	if len(s.b) == 0 {
		return 0
	}
	v := int(s.b[0]) % n
	s.b = s.b[1:]
	return v
}

func pick(s *script, of ...string) string { return of[s.next(len(of))] }

// send writes the call. It writes nothing that RFC 9113 forbids, as there the
// two servers are allowed to differ.
func (s *script) send(p *peer) {
	path := pick(s, echo, echo, echo, fail, fail, "/test.Service/None", "/none.Service/Echo", "noslash", "/", "//")
	fields := []string{":method", pick(s, "POST", "POST", "POST", "POST", "GET", "PUT"), ":scheme", "http", ":path", path, ":authority", "test"}
	if contentType := pick(s, "application/grpc", "application/grpc", "application/grpc", "application/grpc+proto",
		"application/grpc;x=y", "application/grpcx", "text/plain", ""); contentType != "" {
		fields = append(fields, "content-type", contentType)
	}
	fields = append(fields, "te", "trailers")
	for _, optional := range [][]string{
		{"grpc-timeout", "1H", "99999999H", "5S", "123456789S", "x", "1", "S", "-1S", "0m", "00000001H", "1 S"},
		{"grpc-encoding", "identity", "br", "none"},
		{"x-data-bin", "AAAA", "AAA", "AA==", "A", "%%"},
		{"host", "other"},
		{"x-more", "a", "b, c", ""},
	} {
		if s.next(4) == 1 {
			fields = append(fields, optional[0], pick(s, optional[1:]...))
		}
	}
	request_ := bytes.Repeat([]byte{byte(s.next(256))}, []int{0, 1, 2, 17, 300, fuzzMessage, fuzzMessage + 1}[s.next(7)])
	body := message(string(request_))
	switch s.next(12) {
	case 1:
		body[0] = byte(s.next(4))
	case 2:
		body = body[:s.next(len(body)+1)]
	case 3:
		body = append(body, message("more")...)
	case 4:
		body = append(body, byte(s.next(3)))
	case 5:
		body = nil
	}
	if len(body) == 0 && s.next(2) == 0 {
		p.headers(1, true, fields...)
		return
	}
	p.headers(1, false, fields...)
	for len(body) > 0 {
		n := min(len(body), 1+s.next(256)*(1+s.next(8)))
		last := n == len(body) && s.next(3) > 0
		var pad []byte
		if s.next(3) == 1 {
			pad = make([]byte, 1+s.next(255))
		}
		if p.fr.WriteDataPadded(1, last, body[:n], pad) != nil || last {
			return // the server may have closed by now
		}
		body = body[n:]
	}
	_ = p.fr.WriteData(1, true, nil)
}

// FuzzAgainstGRPCGo has both servers answer the same frames and wants the same
// HTTP status, gRPC status and message bytes.
func FuzzAgainstGRPCGo(f *testing.F) {
	for seed := range 400 { // a walk over the choices, for plain test runs
		var b []byte
		for i := range 40 {
			b = append(b, byte(seed*(i+3)*7919>>3))
		}
		f.Add(b)
	}
	methods := newService().methods()
	methods[fail] = fastgrpc.HandlerFunc(func(_ *fastgrpc.Call, request, _ []byte) ([]byte, fastgrpc.Status) {
		switch {
		case len(request) == 0:
			return nil, fastgrpc.Status{Code: fastgrpc.Aborted, Message: "empty"}
		case request[0]%17 == 0: // OK with no message is not for servers to say in grpc-go
			return nil, fastgrpc.Status{}
		}
		return nil, fastgrpc.Status{Code: fastgrpc.Code(request[0] % 17), Message: string(request[1:])}
	})
	_, addr := serve(f, fastgrpc.Options{Methods: methods, MaxRequestBytes: fuzzMessage})
	want := oracle(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var got [2]reply
		var wg sync.WaitGroup
		for i, addr := range []string{addr, want} {
			wg.Go(func() {
				p := dial(t, addr)
				(&script{b}).send(p)
				got[i] = p.reply(1)
				_ = p.nc.Close()
			})
		}
		wg.Wait()
		// Words differ; what programs look at does not.
		if got[0].HTTP != got[1].HTTP || got[0].Status != got[1].Status || got[0].Data != got[1].Data || got[0].Reset != got[1].Reset {
			t.Errorf("replies differ:\nfastgrpc %+v\ngrpc-go  %+v", got[0], got[1])
		}
	})
}

// FuzzFrames feeds the server arbitrary bytes after a good preface: it must
// answer or close, and go on serving others.
func FuzzFrames(f *testing.F) {
	var frames bytes.Buffer
	fr := http2.NewFramer(&frames, nil)
	_ = fr.WriteSettings()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x83, 0x86, 0x84}, EndHeaders: true, PadLength: 3})
	_ = fr.WriteData(1, true, message("x"))
	_ = fr.WritePing(false, [8]byte{})
	_ = fr.WriteWindowUpdate(0, 1)
	_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	f.Add(frames.Bytes())
	f.Add(frames.Bytes()[9:])
	server, addr := serve(f, fastgrpc.Options{MaxRequestBytes: 1 << 16})
	f.Fuzz(func(t *testing.T, b []byte) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write(append([]byte(http2.ClientPreface), b...))
		_ = nc.(*net.TCPConn).CloseWrite()
		_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
		var answer bytes.Buffer
		if _, err := answer.ReadFrom(nc); err != nil && !isReset(err) {
			t.Errorf("the server neither answers nor closes: %v", err)
		}
		_ = nc.Close()
		if got := server.Stats().Waiting; got != 0 {
			t.Errorf("%d calls wait, want none", got)
		}
	})
}
