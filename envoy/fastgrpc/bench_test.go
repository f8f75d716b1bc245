package fastgrpc_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

const shouldRateLimit = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// benchServer names the environment variable that makes the test binary a
// server, so that a benchmark can tell its CPU time from the client's.
const benchServer = "FASTGRPC_BENCH_SERVER"

func TestMain(m *testing.M) {
	if kind := os.Getenv(benchServer); kind != "" {
		runBenchServer(kind)
		return
	}
	os.Exit(m.Run())
}

type noopRateLimiter struct {
	rlsv3.UnimplementedRateLimitServiceServer
}

func (noopRateLimiter) ShouldRateLimit(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
}

// runBenchServer prints its address, then for each line that it reads the
// microseconds of CPU that it has used, until its input ends.
func runBenchServer(kind string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	if kind == "grpc" {
		server := grpc.NewServer()
		rlsv3.RegisterRateLimitServiceServer(server, noopRateLimiter{})
		go func() { _ = server.Serve(l) }()
	} else {
		answer, _ := proto.Marshal(&rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK})
		server := fastgrpc.New(fastgrpc.Options{Methods: map[string]fastgrpc.Handler{
			shouldRateLimit: fastgrpc.HandlerFunc(func(_ *fastgrpc.Call, _, response []byte) ([]byte, fastgrpc.Status) {
				return append(response, answer...), fastgrpc.Status{}
			}),
		}})
		go func() { _ = server.Serve(l) }()
	}
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		var usage syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
		fmt.Println((usage.Utime.Nano() + usage.Stime.Nano()) / 1000)
	}
}

// BenchmarkCPU measures the server's CPU time per request, server-µs/req, of
// ShouldRateLimit that decides nothing: this package against grpc-go as it
// comes, with one client, 4 connections and 16 or 1 calls in flight on each.
//
//	go test -bench CPU -benchtime 200000x ./envoy/fastgrpc
func BenchmarkCPU(b *testing.B) {
	for _, load := range []struct{ conns, inFlight int }{{4, 16}, {1, 1}} {
		for _, kind := range []string{"grpc", "fast"} {
			b.Run(fmt.Sprintf("%s-%dx%d", kind, load.conns, load.inFlight), func(b *testing.B) {
				addr, cpu := startBenchServer(b, kind)
				drive(b, addr, load.conns, load.inFlight, 2000) // warm up
				before := cpu()
				b.ResetTimer()
				drive(b, addr, load.conns, load.inFlight, b.N)
				b.StopTimer()
				b.ReportMetric(float64(cpu()-before)/float64(b.N), "server-µs/req")
			})
		}
	}
}

func startBenchServer(b *testing.B, kind string) (addr string, cpu func() int64) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServer+"="+kind)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	lines.Scan()
	return lines.Text(), func() (us int64) {
		fmt.Fprintln(in)
		lines.Scan()
		if _, err := fmt.Sscan(lines.Text(), &us); err != nil {
			b.Fatal(err)
		}
		return us
	}
}

// drive makes total calls over some connections, a number in flight on each,
// closed loop: as many calls are sent, in one write, as answers were read.
func drive(b testing.TB, addr string, conns, inFlight, total int) {
	var wg sync.WaitGroup
	for i := range conns {
		n := total / conns
		if i < total%conns {
			n++
		}
		if n == 0 {
			continue
		}
		d := newDriver(b, addr, ":path")
		wg.Go(func() {
			defer func() { _ = d.nc.Close() }()
			if err := d.run(n, inFlight); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

// A driver drives one connection with a constant header block, all indexed but
// for one field, and reads no more of an answer than where it ends.
type driver struct {
	nc    net.Conn
	in    *bufio.Reader
	out   bytes.Buffer
	fr    *http2.Framer
	block []byte
	body  []byte
	next  uint32
}

func newDriver(t testing.TB, addr, literal string) *driver {
	t.Helper()
	p := dial(t, addr)
	d := &driver{nc: p.nc, in: bufio.NewReaderSize(p.nc, 64<<10), next: 3}
	fields := request(shouldRateLimit, "grpc-timeout", "250m", "x-envoy-internal", "true", "x-forwarded-for", "10.0.0.1")
	body, err := proto.Marshal(&rlsv3.RateLimitRequest{Domain: "mesh", Descriptors: []*rlcommonv3.RateLimitDescriptor{
		{Entries: []*rlcommonv3.RateLimitDescriptor_Entry{{Key: "user", Value: "u-1234567"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	d.body = message(string(body))
	p.must(p.fr.WriteWindowUpdate(0, 1<<30))
	p.headers(1, false, fields...) // fills the table
	p.must(p.fr.WriteData(1, true, d.body))
	if got := p.reply(1); got.Status != "0" {
		t.Fatalf("first reply = %v, want ok", got)
	}
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.must(p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: fields[i] == literal}))
	}
	d.block = bytes.Clone(p.buf.Bytes())
	d.fr = http2.NewFramer(&d.out, nil)
	p.must(d.nc.SetReadDeadline(time.Time{}))
	return d
}

func (d *driver) run(total, inFlight int) error {
	sent := min(inFlight, total)
	if err := d.send(sent); err != nil {
		return err
	}
	for done := 0; done < total; {
		n, err := d.receive()
		if err != nil {
			return err
		}
		done += n
		more := min(n, total-sent)
		sent += more
		if err := d.send(more); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) send(n int) error {
	if n == 0 {
		return nil
	}
	d.out.Reset()
	for range n {
		_ = d.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: d.next, BlockFragment: d.block, EndHeaders: true})
		_ = d.fr.WriteData(d.next, true, d.body)
		d.next += 2
	}
	_, err := d.nc.Write(d.out.Bytes())
	return err
}

// receive reads until some calls have ended and nothing more is buffered.
func (d *driver) receive() (ended int, err error) {
	for ended == 0 || d.in.Buffered() > 0 {
		header, err := d.in.Peek(9)
		if err != nil {
			return ended, err
		}
		length := int(header[0])<<16 | int(header[1])<<8 | int(header[2])
		switch kind, flags := http2.FrameType(header[3]), http2.Flags(header[4]); {
		case kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndStream):
			ended++
		case kind == http2.FrameRSTStream || kind == http2.FrameGoAway:
			return ended, fmt.Errorf("%v from the server", kind)
		}
		if _, err := d.in.Discard(9 + length); err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// TestAllocations counts what calls allocate once warm: nothing but the strings
// of the fields that are sent as literals, which Envoys do with :path.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	_, addr := serve(t, fastgrpc.Options{Methods: map[string]fastgrpc.Handler{
		shouldRateLimit: fastgrpc.HandlerFunc(func(call *fastgrpc.Call, request, response []byte) ([]byte, fastgrpc.Status) {
			if _, ok := call.Deadline(); !ok || call.Metadata("x-forwarded-for") == "" || len(request) == 0 {
				return nil, fastgrpc.Status{Code: fastgrpc.Internal}
			}
			return append(response, 8, 1), fastgrpc.Status{}
		}),
	}})
	const calls = 50
	for literal, want := range map[string]float64{"": 0, ":path": calls} {
		d := newDriver(t, addr, literal)
		batch := func() {
			if err := d.send(calls); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < calls; {
				ended, err := d.receive()
				if err != nil {
					t.Fatal(err)
				}
				n += ended
			}
		}
		batch()
		if got := testing.AllocsPerRun(200, batch); got > want {
			t.Errorf("%v allocations for %d calls with literal %q, want %v", got, calls, literal, want)
		}
	}
}
