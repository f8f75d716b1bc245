package fastgrpc_test

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

func TestCalls(t *testing.T) {
	failed := func(http, status, message string) reply {
		return reply{HTTP: http, Status: status, Message: message}
	}
	for _, test := range []struct {
		name string
		send func(p *peer)
		want reply
	}{
		{"echo", func(p *peer) { p.call(1, echo, "hello") }, ok("hello")},
		{"empty message", func(p *peer) { p.call(1, echo, "") }, ok("")},
		{"message in several frames", func(p *peer) {
			p.headers(1, false, request(echo)...)
			for _, b := range message("hello") {
				p.must(p.fr.WriteData(1, false, []byte{b}))
			}
			p.must(p.fr.WriteData(1, true, nil))
		}, ok("hello")},
		{"padding everywhere", func(p *peer) {
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: p.block(request(echo)...), EndHeaders: true, PadLength: 255,
			}))
			p.must(p.fr.WriteDataPadded(1, false, message("hello")[:3], make([]byte, 255)))
			p.must(p.fr.WriteDataPadded(1, true, message("hello")[3:], make([]byte, 1)))
		}, ok("hello")},
		{"priority and padding", func(p *peer) {
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: p.block(request(echo)...), EndHeaders: true, PadLength: 9,
				Priority: http2.PriorityParam{StreamDep: 7, Exclusive: true, Weight: 3},
			}))
			p.must(p.fr.WriteData(1, true, message("hello")))
		}, ok("hello")},
		{"header block a byte at a time", func(p *peer) {
			block := p.block(request(echo, "x-more", strings.Repeat("m", 300))...)
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:1]}))
			for i := range block[1:] {
				p.must(p.fr.WriteContinuation(1, i+2 == len(block), block[i+1:i+2]))
			}
			p.must(p.fr.WriteData(1, true, message("hello")))
		}, ok("hello")},
		{"after the client's GOAWAY", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteGoAway(0, http2.ErrCodeNo, []byte("no more after this")))
			p.must(p.fr.WriteData(1, true, message("x")))
		}, ok("x")},
		{"trailers end the request", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteData(1, false, message("hello")))
			p.headers(1, true, "x-checksum", "1")
		}, ok("hello")},
		{"content type with a subtype", func(p *peer) {
			fields := request(echo)
			fields[9] = "application/grpc+proto"
			p.headers(1, false, fields...)
			p.must(p.fr.WriteData(1, true, message("x")))
		}, ok("x")},
		{"host for authority", func(p *peer) {
			fields := request(echo)
			p.headers(1, false, append(append(fields[:6:6], "host", "test"), fields[8:]...)...)
			p.must(p.fr.WriteData(1, true, message("x")))
		}, ok("x")},

		{"status", func(p *peer) { p.call(1, fail, "\x08limit is 20 %/s, naïve\n") },
			failed("200", "8", "limit is 20 %25/s, na%C3%AFve%0A")},
		{"status with a message that is no text", func(p *peer) { p.call(1, fail, "\x05\xff!") }, failed("200", "5", "%EF%BF%BD!")},
		{"unknown service", func(p *peer) { p.call(1, "/other.Service/Echo", "x") }, failed("200", "12", "unknown service other.Service")},
		{"unknown method", func(p *peer) { p.call(1, "/test.Service/Other", "x") },
			failed("200", "12", "unknown method Other for service test.Service")},
		{"malformed path", func(p *peer) { p.call(1, "echo", "x") }, failed("200", "12", `malformed method name: "echo"`)},
		{"a stream is answered while it is open", func(p *peer) { p.headers(1, false, request("/a.B/Stream")...) },
			failed("200", "12", "unknown service a.B")},
		{"compression by name", func(p *peer) { p.call(1, echo, "x", "grpc-encoding", "gzip") },
			failed("200", "12", `grpc-encoding "gzip" is not supported`)},
		{"identity is no compression", func(p *peer) { p.call(1, echo, "x", "grpc-encoding", "identity") }, ok("x")},
		{"compression by flag", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteData(1, true, []byte{1, 0, 0, 0, 1, 'x'}))
		}, failed("200", "13", "compressed flag set with identity or empty grpc-encoding")},
		{"unknown flag", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteData(1, false, []byte{2, 0, 0, 0, 9}))
		}, failed("200", "13", "unexpected payload format 2")},
		{"no message", func(p *peer) { p.headers(1, true, request(echo)...) }, failed("200", "13", "received no request message")},
		{"half a message", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteData(1, true, []byte{0, 0, 0, 0, 2, 'x'}))
		}, failed("200", "13", "unexpected EOF in the request message")},
		{"half a prefix", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteData(1, true, []byte{0, 0}))
		}, failed("200", "13", "unexpected EOF in the request message")},
		{"two messages", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteData(1, true, append(message("x"), message("y")...)))
		}, failed("200", "13", "received more than one request message")},
		{"oversize is refused by its prefix", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteData(1, false, []byte{0, 0, 1, 0, 1}))
		}, failed("200", "8", "grpc: received message larger than max (65537 vs. 65536)")},
		{"the largest message", func(p *peer) {
			p.headers(1, false, request(repeat, "size", "3")...)
			rest := message(strings.Repeat("m", 1<<16))
			for len(rest) > 1<<14 {
				p.must(p.fr.WriteData(1, false, rest[:1<<13]))
				rest = rest[1<<13:]
			}
			p.must(p.fr.WriteData(1, true, rest))
		}, ok("xxx")},

		{"GET", func(p *peer) {
			fields := request(echo)
			fields[1] = "GET"
			p.headers(1, true, fields...)
		}, failed("405", "13", `method "GET", want POST`)},
		{"not gRPC", func(p *peer) {
			fields := request(echo)
			fields[9] = "application/json"
			p.headers(1, true, fields...)
		}, failed("415", "3", `invalid gRPC request content-type "application/json"`)},
		{"two hosts", func(p *peer) { p.call(1, echo, "x", "host", "a", "host", "b") }, failed("400", "13", "several host fields")},
		{"no host", func(p *peer) {
			fields := request(echo)
			p.headers(1, true, append(fields[:6:6], fields[8:]...)...)
		}, failed("400", "13", "no host or :authority header present")},
		{"malformed timeout", func(p *peer) { p.call(1, echo, "x", "grpc-timeout", "250") },
			failed("400", "13", "malformed grpc-timeout: want digits and a unit")},
		{"deadline passed at once", func(p *peer) { p.call(1, echo, "x", "grpc-timeout", "0m") },
			failed("200", "4", "deadline passed before the call began")},
		{"malformed binary metadata", func(p *peer) { p.call(1, echo, "x", "x-bin", "%%%") },
			failed("400", "13", "malformed binary metadata: want base64")},
		{"header list too large", func(p *peer) {
			p.call(1, echo, "x", "x-a", strings.Repeat("a", 30_000), "x-b", strings.Repeat("b", 30_000), "x-c", strings.Repeat("c", 8_000))
		}, failed("431", "8", "header list larger than max (65536)")},

		{"connection-specific field", func(p *peer) { p.call(1, echo, "x", "connection", "close") }, reply{Reset: http2.ErrCodeProtocol}},
		{"te", func(p *peer) { p.call(1, echo, "x", "te", "gzip") }, reply{Reset: http2.ErrCodeProtocol}},
		{"capital in a name", func(p *peer) { p.call(1, echo, "x", "X-Up", "1") }, reply{Reset: http2.ErrCodeProtocol}},
		{"line feed in a value", func(p *peer) { p.call(1, echo, "x", "x-a", "b\nc: d") }, reply{Reset: http2.ErrCodeProtocol}},
		{"content-length says more", func(p *peer) { p.call(1, echo, "x", "content-length", "7") }, reply{Reset: http2.ErrCodeProtocol}},
		{"content-length is right", func(p *peer) { p.call(1, echo, "x", "content-length", "6") }, ok("x")},
		{"pseudo-header in trailers", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.headers(1, true, ":path", "/")
		}, reply{Reset: http2.ErrCodeProtocol}},
		{"trailers that do not end", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.headers(1, false, "x-a", "b")
		}, reply{Reset: http2.ErrCodeProtocol}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, addr := serve(t, fastgrpc.Options{MaxRequestBytes: 1 << 16})
			p := dial(t, addr)
			test.send(p)
			if diff := cmp.Diff(test.want, p.reply(1)); diff != "" {
				t.Errorf("reply differs (-want +got):\n%s", diff)
			}
			// Whatever became of it, the connection goes on.
			p.call(3, echo, "still there")
			if diff := cmp.Diff(ok("still there"), p.reply(3)); diff != "" {
				t.Errorf("reply to the next call differs (-want +got):\n%s", diff)
			}
		})
	}
}

// counted is a handler that counts.
type counted struct {
	fastgrpc.Handler
	calls [17]atomic.Int64 // by code
	told  atomic.Int64
	took  atomic.Int64 // the longest
}

func (c *counted) Answered(calls int, code fastgrpc.Code, took time.Duration) {
	c.calls[code].Add(int64(calls))
	c.told.Add(1)
	c.took.Store(max(c.took.Load(), int64(took)))
}

// Who counts is told of every call before its client can see the answer, of
// many at once where they came together, and not of calls that wait.
func TestCountersAreToldOfManyCallsAtOnce(t *testing.T) {
	methods := newService().methods()
	echoes, fails, waits := &counted{Handler: methods[echo]}, &counted{Handler: methods[fail]}, &counted{Handler: methods[wait]}
	methods[echo], methods[fail], methods[wait] = echoes, fails, waits
	_, addr := serve(t, fastgrpc.Options{Methods: methods, MaxWaiting: 1})
	p := dial(t, addr)
	buffered := new(bytes.Buffer)
	p.fr = http2.NewFramer(buffered, p.nc)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	const calls = 50
	id := uint32(1)
	for _, method := range []string{echo, fail, wait} {
		for range calls {
			p.call(id, method, string([]byte{5}))
			id += 2
		}
	}
	p.write(buffered.Bytes())
	for ended := 0; ended < 3*calls-1; { // all but the one that waits
		frame, err := p.next()
		p.must(err)
		if f, isHeaders := frame.(*http2.MetaHeadersFrame); isHeaders && f.StreamEnded() {
			ended++
		}
	}
	for _, c := range []struct {
		name  string
		of    *counted
		code  fastgrpc.Code
		calls int64
	}{{"echo", echoes, fastgrpc.OK, calls}, {"fail", fails, fastgrpc.NotFound, calls}, {"wait", waits, fastgrpc.Unavailable, calls - 1}} {
		if got := c.of.calls[c.code].Load(); got != c.calls {
			t.Errorf("%s: told of %d calls, want %d", c.name, got, c.calls)
		}
		if told := c.of.told.Load(); told > calls/5 {
			t.Errorf("%s: told %d times of %d calls that came together", c.name, told, calls)
		}
		if took := time.Duration(c.of.took.Load()); took < 0 || took > time.Minute {
			t.Errorf("%s: took %v", c.name, took)
		}
	}
}
