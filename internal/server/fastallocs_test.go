package server_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// TestAFastCallAllocatesNothing counts what calls to a whole Tollgate allocate,
// from the bytes of the request to those of the answer, once it is warm.
func TestAFastCallAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	r := start(t, `listen: {grpc: "127.0.0.1:0", fast: "127.0.0.1:0", http: "127.0.0.1:0", drain: 0s}
limits: {warm_up: {grace: 0s, ramp: 0s}}
rules: {files: [rules.yaml]}
`)
	steady, scarce := r.newToken(t, "steady", "1000000/s"), r.newToken(t, "scarce", "1/h")
	for _, c := range []struct {
		name, method string
		request      proto.Message
	}{
		{"admitted", authv3.Authorization_Check_FullMethodName, checkOf(steady)},
		{"refused", authv3.Authorization_Check_FullMethodName, checkOf(scarce)},
		{"over the limit", rlsv3.RateLimitService_ShouldRateLimit_FullMethodName, askFor("alice", 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			const calls, runs = 100, 25
			d := newDriver(t, r.FastAddr(), c.method, c.request)
			d.ask(t, 10*calls)
			// The least of several counts: what a Tollgate does beside, by the clock, allocates too.
			least := math.Inf(1)
			for range 8 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range runs {
					d.ask(t, calls)
				}
				runtime.ReadMemStats(&after)
				least = min(least, float64(after.Mallocs-before.Mallocs)/(calls*runs))
			}
			if least > 0.1 {
				t.Errorf("%.2f allocations per call, want none", least)
			}
		})
	}
}

// A driver makes one call again and again without allocating.
type driver struct {
	nc   net.Conn
	in   *bufio.Reader
	call []byte // frames of a call, all of whose header fields are sent by index
	out  []byte
	next uint32
}

func newDriver(t *testing.T, addr, method string, request proto.Message) *driver {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	body, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	var block, out bytes.Buffer
	encoder, framer := hpack.NewEncoder(&block), http2.NewFramer(&out, nil)
	call := func() {
		block.Reset()
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: method},
			{Name: ":authority", Value: "tollgate"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}, {Name: "grpc-timeout", Value: "250m"}} {
			_ = encoder.WriteField(f)
		}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
		_ = framer.WriteData(1, true, body)
	}
	out.WriteString(http2.ClientPreface)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = framer.WriteWindowUpdate(0, 1<<30)
	call() // fills the header table
	d := &driver{nc: nc, in: bufio.NewReaderSize(nc, 64<<10), next: 3}
	if _, err := nc.Write(out.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := d.read(1); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	call()
	d.call = out.Bytes()
	return d
}

// ask makes some calls at once and reads the answers.
func (d *driver) ask(t *testing.T, calls int) {
	t.Helper()
	d.out = d.out[:0]
	for range calls {
		from := len(d.out)
		d.out = append(d.out, d.call...)
		for at := from; at < len(d.out); {
			binary.BigEndian.PutUint32(d.out[at+5:], d.next)
			at += 9 + int(binary.BigEndian.Uint32(d.out[at:])>>8)
		}
		d.next += 2
	}
	if _, err := d.nc.Write(d.out); err != nil {
		t.Fatal(err)
	}
	if err := d.read(calls); err != nil {
		t.Fatal(err)
	}
}

// read reads until some streams have ended.
func (d *driver) read(calls int) error {
	for calls > 0 {
		header, err := d.in.Peek(9)
		if err != nil {
			return err
		}
		kind, flags, length := http2.FrameType(header[3]), http2.Flags(header[4]), int(binary.BigEndian.Uint32(header)>>8)
		switch {
		case kind == http2.FrameGoAway || kind == http2.FrameRSTStream:
			return fmt.Errorf("the server sent %v: %w", kind, io.ErrUnexpectedEOF)
		case kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndStream):
			calls--
		}
		if _, err := d.in.Discard(9 + length); err != nil {
			return err
		}
	}
	return nil
}
