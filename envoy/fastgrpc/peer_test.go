package fastgrpc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// The methods that the tests serve.
const (
	echo   = "/test.Service/Echo"   // answers what it is asked
	fail   = "/test.Service/Fail"   // answers the status whose code is the request's first byte
	wait   = "/test.Service/Wait"   // echoes once it is let go, or when its context ends
	repeat = "/test.Service/Repeat" // answers its metadata "size" in bytes
)

// A service is the test methods' state.
type service struct {
	letGo chan struct{} // each receive lets one waiting call go
	ended chan error    // what each waiting call's context ended with, nil if it was let go
}

func newService() *service {
	return &service{letGo: make(chan struct{}), ended: make(chan error, 20_000)}
}

func (s *service) methods() map[string]fastgrpc.Handler {
	return map[string]fastgrpc.Handler{
		echo: fastgrpc.HandlerFunc(func(_ *fastgrpc.Call, request, response []byte) ([]byte, fastgrpc.Status) {
			return append(response, request...), fastgrpc.Status{}
		}),
		fail: fastgrpc.HandlerFunc(func(_ *fastgrpc.Call, request, _ []byte) ([]byte, fastgrpc.Status) {
			return nil, fastgrpc.Status{Code: fastgrpc.Code(request[0]), Message: string(request[1:])}
		}),
		repeat: fastgrpc.HandlerFunc(func(call *fastgrpc.Call, _, response []byte) ([]byte, fastgrpc.Status) {
			n, err := strconv.Atoi(call.Metadata("size"))
			if err != nil {
				return nil, fastgrpc.Status{Code: fastgrpc.InvalidArgument, Message: err.Error()}
			}
			for range n {
				response = append(response, 'x')
			}
			return response, fastgrpc.Status{}
		}),
		wait: fastgrpc.HandlerFunc(func(call *fastgrpc.Call, request, _ []byte) ([]byte, fastgrpc.Status) {
			kept := bytes.Clone(request)
			return call.Wait(func(ctx context.Context, response []byte) ([]byte, fastgrpc.Status) {
				select {
				case <-s.letGo:
					s.ended <- nil
					return append(response, kept...), fastgrpc.Status{}
				case <-ctx.Done():
					s.ended <- ctx.Err()
					return nil, fastgrpc.Status{Code: fastgrpc.Canceled, Message: ctx.Err().Error()}
				}
			})
		}),
	}
}

// watched returns a server of whose connections none may end with something left.
func watched(t testing.TB, opts fastgrpc.Options) *fastgrpc.Server {
	t.Helper()
	server := fastgrpc.New(opts)
	fastgrpc.OnEnd(server, func(leftover error) {
		if leftover != nil {
			t.Errorf("a connection ended with something left: %v", leftover)
		}
	})
	return server
}

// serve starts a server on loopback and has it closed, and checked for
// leftovers, when the test ends.
func serve(t testing.TB, opts fastgrpc.Options) (*fastgrpc.Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, opts), l.Addr().String()
}

func serveOn(t testing.TB, l net.Listener, opts fastgrpc.Options) *fastgrpc.Server {
	t.Helper()
	if opts.Methods == nil {
		opts.Methods = newService().methods()
	}
	before := runtime.NumGoroutine()
	server := watched(t, opts)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; !errors.Is(err, fastgrpc.ErrServerClosed) {
			t.Errorf("Serve() = %v, want ErrServerClosed", err)
		}
		if got := server.Stats(); got.Connections != 0 || got.Waiting != 0 || got.Buffered != 0 {
			t.Errorf("after Close: %+v, want no connection, no waiting call and nothing buffered", got)
		}
		if _, fuzzing := t.(*testing.F); !fuzzing {
			noMoreGoroutines(t, before)
		}
	})
	return server
}

// noMoreGoroutines waits until clients' goroutines have ended, too.
func noMoreGoroutines(t testing.TB, before int) {
	t.Helper()
	eventually(t, fmt.Sprintf("no more goroutines than the %d before", before), func() bool { return runtime.NumGoroutine() <= before })
}

// eventually waits until something is so, and fails the test with all stacks
// if that takes long.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !is(); <-tick.C {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("not so: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// A peer is a client that speaks frames, so that it can speak wrong ones.
type peer struct {
	t   testing.TB
	nc  net.Conn
	fr  *http2.Framer
	buf bytes.Buffer
	enc *hpack.Encoder
}

// dial connects and exchanges SETTINGS.
func dial(t testing.TB, addr string, settings ...http2.Setting) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return greet(t, nc, settings...)
}

func greet(t testing.TB, nc net.Conn, settings ...http2.Setting) *peer {
	t.Helper()
	t.Cleanup(func() { _ = nc.Close() })
	p := &peer{t: t, nc: nc, fr: http2.NewFramer(nc, nc)}
	p.fr.AllowIllegalWrites = true
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.enc = hpack.NewEncoder(&p.buf)
	p.write([]byte(http2.ClientPreface))
	p.must(p.fr.WriteSettings(settings...))
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	_, err := p.nc.Write(b)
	p.must(err)
}

// block encodes name, value, name, value, …
func (p *peer) block(fields ...string) []byte {
	p.t.Helper()
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.must(p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return p.buf.Bytes()
}

// request is the fields of a call.
func request(method string, more ...string) []string {
	return append([]string{
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "test",
		"content-type", "application/grpc", "te", "trailers",
	}, more...)
}

// headers sends a header block, in CONTINUATIONs where one frame is too small.
func (p *peer) headers(id uint32, endStream bool, fields ...string) {
	p.t.Helper()
	p.headerBlock(id, endStream, p.block(fields...))
}

func (p *peer) headerBlock(id uint32, endStream bool, block []byte) {
	p.t.Helper()
	const most = 16 << 10
	first := block[:min(len(block), most)]
	p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: first, EndHeaders: len(first) == len(block), EndStream: endStream,
	}))
	for block = block[len(first):]; len(block) > 0; block = block[min(len(block), most):] {
		p.must(p.fr.WriteContinuation(id, len(block) <= most, block[:min(len(block), most)]))
	}
}

// message is a message with its prefix.
func message(s string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(s))), s...)
}

// call sends a whole call.
func (p *peer) call(id uint32, method, request_ string, more ...string) {
	p.t.Helper()
	p.headers(id, false, request(method, more...)...)
	p.must(p.fr.WriteData(id, true, message(request_)))
}

// A reply is how a stream or a connection ended.
type reply struct {
	HTTP    string
	Status  string // grpc-status, or ""
	Message string
	Data    string        // without its prefix
	Reset   http2.ErrCode // of RST_STREAM, if there was no status
	GoAway  http2.ErrCode // of GOAWAY with an error
	Closed  bool          // the connection
}

// next reads one frame.
func (p *peer) next() (http2.Frame, error) {
	p.must(p.nc.SetReadDeadline(time.Now().Add(time.Minute)))
	return p.fr.ReadFrame()
}

// reply reads until the stream, or the connection, has ended.
func (p *peer) reply(id uint32) reply {
	p.t.Helper()
	var r reply
	for {
		frame, err := p.next()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || isReset(err) {
				r.Closed = true
				return r
			}
			p.t.Fatalf("reading the reply on stream %d: %v (so far %v)", id, err, r)
		}
		if r.take(frame, id) {
			return r
		}
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// take adds a frame and reports whether it was the last.
func (r *reply) take(frame http2.Frame, id uint32) (last bool) {
	if f, ok := frame.(*http2.GoAwayFrame); ok && f.ErrCode != http2.ErrCodeNo {
		r.GoAway = f.ErrCode
		return true
	}
	if frame.Header().StreamID != id {
		return false
	}
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		for _, field := range f.Fields {
			switch field.Name {
			case ":status":
				r.HTTP = field.Value
			case "grpc-status":
				r.Status = field.Value
			case "grpc-message":
				r.Message = field.Value
			}
		}
		return f.StreamEnded()
	case *http2.DataFrame:
		data := f.Data()
		if r.Data == "" {
			data = data[min(5, len(data)):]
		}
		r.Data += string(data)
		return f.StreamEnded()
	case *http2.RSTStreamFrame:
		r.Reset = f.ErrCode
		return true
	}
	return false
}

// ok is the reply to a good echo.
func ok(data string) reply { return reply{HTTP: "200", Status: "0", Data: data} }
