package fastgrpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// bounded runs an attack and fails the test if the process took much more
// memory or many more goroutines meanwhile, or if it takes long. Memory
// includes the attacker's own.
func bounded(t *testing.T, goroutines uint64, attack func()) {
	t.Helper()
	const most, within = 16 << 20, time.Minute
	sample := func() (heap, routines uint64) {
		samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines:goroutines"}}
		metrics.Read(samples)
		return samples[0].Value.Uint64(), samples[1].Value.Uint64()
	}
	runtime.GC()
	heapBefore, routinesBefore := sample()
	var heap, routines uint64
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			h, r := sample()
			heap, routines = max(heap, h), max(routines, r-1) // but this one
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	start := time.Now()
	attack()
	took := time.Since(start)
	close(stop)
	watching.Wait()
	t.Logf("took %v; %d KiB and %d goroutines more at most", took.Round(time.Millisecond), (int64(heap)-int64(heapBefore))>>10, int64(routines)-int64(routinesBefore))
	if heap > heapBefore+most {
		t.Errorf("heap grew by %d bytes, want at most %d", heap-heapBefore, most)
	}
	if routines > routinesBefore+goroutines {
		t.Errorf("%d goroutines more, want at most %d", routines-routinesBefore, goroutines)
	}
	if took > within {
		t.Errorf("took %v, want at most %v", took, within)
	}
}

// flood sends until the connection ends and says how it ended.
func flood(p *peer, send func(i int) error) reply {
	go func() {
		for i := 0; send(i) == nil; i++ {
		}
	}()
	return p.reply(1<<31 - 1)
}

func TestFloodsEndTheConnection(t *testing.T) {
	for _, test := range []struct {
		name string
		send func(p *peer) func(i int) error
	}{
		{"PING", func(p *peer) func(int) error {
			return func(int) error { return p.fr.WritePing(false, [8]byte{}) }
		}},
		{"PING answers", func(p *peer) func(int) error {
			return func(int) error { return p.fr.WritePing(true, [8]byte{}) }
		}},
		{"SETTINGS", func(p *peer) func(int) error {
			return func(int) error { return p.fr.WriteSettings() }
		}},
		{"SETTINGS that resize windows and tables", func(p *peer) func(int) error {
			return func(i int) error {
				return p.fr.WriteSettings(
					http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i % 100)},
					http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(i % 100)})
			}
		}},
		{"PRIORITY", func(p *peer) func(int) error {
			return func(int) error { return p.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }
		}},
		{"unknown type", func(p *peer) func(int) error {
			return func(int) error { return p.fr.WriteRawFrame(0xbe, 0, 0, nil) }
		}},
		{"empty DATA", func(p *peer) func(int) error {
			p.headers(1, false, request(echo)...)
			return func(int) error { return p.fr.WriteData(1, false, nil) }
		}},
		{"padding only", func(p *peer) func(int) error {
			p.headers(1, false, request(echo)...)
			return func(int) error { return p.fr.WriteDataPadded(1, false, nil, make([]byte, 1)) }
		}},
		{"DATA on a closed stream", func(p *peer) func(int) error {
			p.call(1, echo, "x")
			return func(int) error { return p.fr.WriteData(1, false, []byte("x")) }
		}},
		{"window updates of one byte", func(p *peer) func(int) error {
			return func(int) error { return p.fr.WriteWindowUpdate(0, 1) }
		}},
		{"window updates on a closed stream", func(p *peer) func(int) error {
			p.call(1, echo, "x")
			return func(int) error { return p.fr.WriteWindowUpdate(1, 1) }
		}},
		{"empty CONTINUATION", func(p *peer) func(int) error {
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}))
			return func(int) error { return p.fr.WriteContinuation(1, false, nil) }
		}},
		{"CONTINUATION without end", func(p *peer) func(int) error {
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}))
			block := append([]byte(nil), p.block("x-a", "b")...)
			return func(int) error { return p.fr.WriteContinuation(1, false, block) }
		}},
		{"rapid reset", func(p *peer) func(int) error {
			return func(i int) error {
				id := uint32(2*i + 1)
				if err := p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(request(echo)...), EndHeaders: true}); err != nil {
					return err
				}
				return p.fr.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}},
		{"malformed requests", func(p *peer) func(int) error {
			return func(i int) error {
				return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: p.block("x-a", "b"), EndHeaders: true})
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, addr := serve(t, fastgrpc.Options{})
			bystander := dial(t, addr)
			bounded(t, 3, func() { // the connection's, the flood's, and one that comes or goes
				p := dial(t, addr)
				got := flood(p, test.send(p))
				if got.GoAway != http2.ErrCodeEnhanceYourCalm {
					t.Errorf("flood ended with %v, want GOAWAY with ENHANCE_YOUR_CALM", got)
				}
			})
			if got := server.Stats().Floods; got != 1 {
				t.Errorf("Stats().Floods = %d, want 1", got)
			}
			bystander.call(1, echo, "x")
			if got := bystander.reply(1); got != ok("x") {
				t.Errorf("another client's call after the flood = %v, want ok", got)
			}
		})
	}
}

// A client that works may send a lot that asks for nothing beside it.
func TestHonestClientsPayNothing(t *testing.T) {
	_, addr := serve(t, fastgrpc.Options{})
	p := dial(t, addr)
	for i := range uint32(10_000) {
		p.call(2*i+1, echo, "x")
		p.must(p.fr.WritePing(false, [8]byte{}))
		p.must(p.fr.WriteWindowUpdate(0, 6))
		p.must(p.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel)) // too late, mostly
		if i%100 != 99 {
			continue
		}
		if got := p.reply(2*i + 1); got != ok("x") {
			t.Fatalf("reply to call %d = %v, want ok", i, got)
		}
	}
}

// Resets do not make room for more waiting calls than a connection may have.
func TestRapidResetOfWaitingCalls(t *testing.T) {
	const most = 50
	s := newService()
	stuck := make(chan struct{})
	methods := s.methods()
	methods[wait] = fastgrpc.HandlerFunc(func(call *fastgrpc.Call, _, _ []byte) ([]byte, fastgrpc.Status) {
		return call.Wait(func(_ context.Context, response []byte) ([]byte, fastgrpc.Status) {
			<-stuck // does not notice that its client is gone
			return response, fastgrpc.Status{}
		})
	})
	server, addr := serve(t, fastgrpc.Options{Methods: methods, MaxStreams: most})
	p := dial(t, addr)
	const last = 20*most + 1
	bounded(t, most+1, func() {
		for i := range uint32(10 * most) {
			p.call(2*i+1, wait, "x")
			p.must(p.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}
		p.call(last, echo, "x")
		if got := p.reply(last); got.Reset != http2.ErrCodeRefusedStream {
			t.Errorf("call while %d reset calls still wait: %v, want REFUSED_STREAM", most, got)
		}
	})
	if got := server.Stats().Waiting; got != most {
		t.Errorf("Stats().Waiting = %d, want %d", got, most)
	}
	close(stuck)
	for i := uint32(last + 2); ; i += 2 { // soon there is room again
		p.call(i, echo, "x")
		if p.reply(i) == ok("x") {
			break
		}
		runtime.Gosched()
	}
}

func TestWaitingCallsAreBounded(t *testing.T) {
	s := newService()
	server, addr := serve(t, fastgrpc.Options{Methods: s.methods(), MaxWaiting: 3})
	p := dial(t, addr)
	bounded(t, 3+1, func() {
		for id := uint32(1); id <= 2001; id += 2 {
			p.call(id, wait, "x")
		}
		for id := uint32(7); id <= 2001; id += 2 {
			if got := p.reply(id); got.Status != "14" {
				t.Fatalf("waiting call beyond the third = %v, want UNAVAILABLE", got)
			}
		}
	})
	if got := server.Stats().Waiting; got != 3 {
		t.Errorf("Stats().Waiting = %d, want 3", got)
	}
	for range 3 {
		s.letGo <- struct{}{}
	}
}

// A client that asks and does not read is not read from, and then closed.
//
// It reads some: of who reads nothing the kernel at last drops the acknowledgements
// too, and its own requests wait for minutes.
func TestSlowReader(t *testing.T) {
	const within = 50 * time.Millisecond
	for name, ask := range map[string]func(p *peer, i uint32) error{
		"of answers": func(p *peer, i uint32) error {
			err := p.fr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 2*i + 1, BlockFragment: p.block(request(repeat, "size", "10000")...), EndHeaders: true,
			})
			if err != nil {
				return err
			}
			return p.fr.WriteData(2*i+1, true, message("x"))
		},
		"of refusals": func(p *peer, i uint32) error {
			return p.fr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 2*i + 1, BlockFragment: p.block(request("/none.Service/None")...), EndHeaders: true, EndStream: true,
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, addr := serve(t, fastgrpc.Options{WriteTimeout: within})
			p := dial(t, addr)
			p.must(p.fr.WriteWindowUpdate(0, 1<<30))
			go readSlowly(p.nc) // ends with the connection
			bounded(t, 1, func() {
				for i := uint32(0); ask(p, i) == nil; i++ {
					if i > 10_000_000 {
						t.Fatal("the server goes on reading")
					}
				}
			})
			eventually(t, "the connection is closed", func() bool { return server.Stats().Connections == 0 })
		})
	}
}

// readSlowly reads 100 KB a second until there is an error.
func readSlowly(r io.Reader) {
	for range time.Tick(10 * time.Millisecond) {
		if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
			return
		}
	}
}

// A header block that decodes to a thousand times its size is refused, and
// costs less than it would to keep.
func TestHeaderBomb(t *testing.T) {
	_, addr := serve(t, fastgrpc.Options{})
	p := dial(t, addr)
	value := strings.Repeat("b", 3_000)
	p.call(1, echo, "x", "x-bomb", value)
	if got := p.reply(1); got != ok("x") {
		t.Fatalf("reply to the call that fills the table = %v", got)
	}
	bomb := request(echo)
	for range 10_000 {
		bomb = append(bomb, "x-bomb", value) // one byte each, by index
	}
	block := bytes.Clone(p.block(bomb...))
	bounded(t, 1, func() {
		for id := uint32(3); id < 203; id += 2 {
			p.headerBlock(id, true, block)
			if got := p.reply(id); got.HTTP != "431" || got.Status != "8" {
				t.Fatalf("reply to the bomb = %v, want RESOURCE_EXHAUSTED", got)
			}
		}
	})
}

// Header blocks and fields that go on and on end the connection, once they are
// twice as long as a header list may be.
func TestEndlessHeaders(t *testing.T) {
	field := func(p *peer) []byte { return p.block("x-a", strings.Repeat("a", 10_000)) }
	for name, start := range map[string]func(p *peer) []byte{
		"fields": func(p *peer) []byte { return bytes.Clone(field(p)) },
		"one field": func(p *peer) []byte {
			// A literal with a name of one byte, whose value is to have 2^28 bytes.
			return append([]byte{0x00, 0x01, 'x', 0x7f, 0x81, 0xff, 0xff, 0x7f}, make([]byte, 1000)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := serve(t, fastgrpc.Options{})
			bounded(t, 2, func() {
				p := dial(t, addr)
				p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: start(p)}))
				more := bytes.Clone(field(p))
				for sent := 0; sent <= 2*64<<10; sent += len(more) {
					p.must(p.fr.WriteContinuation(1, false, more))
				}
				if got := p.reply(1<<31 - 1); got.GoAway != http2.ErrCodeEnhanceYourCalm {
					t.Errorf("endless headers ended with %v, want GOAWAY with ENHANCE_YOUR_CALM", got)
				}
			})
		})
	}
}

func TestTooManyStreams(t *testing.T) {
	_, addr := serve(t, fastgrpc.Options{MaxStreams: 10})
	p := dial(t, addr)
	bounded(t, 1, func() {
		for i := range uint32(1000) { // each beyond the tenth is refused
			p.headers(2*i+1, false, request(echo)...)
		}
		for i := range uint32(990) {
			if got := p.reply(2*i + 21); got.Reset != http2.ErrCodeRefusedStream {
				t.Fatalf("stream %d of at most 10 = %v, want REFUSED_STREAM", 11+i, got)
			}
		}
	})
	p.must(p.fr.WriteData(1999, true, message("x"))) // under way when it was reset
	p.must(p.fr.WriteData(1, true, message("x")))
	if got := p.reply(1); got != ok("x") {
		t.Errorf("first stream = %v, want ok", got)
	}
}

func TestTooManyConnections(t *testing.T) {
	_, addr := serve(t, fastgrpc.Options{MaxConnections: 2})
	for range 2 {
		p := dial(t, addr)
		p.call(1, echo, "x")
		if got := p.reply(1); got != ok("x") {
			t.Fatalf("reply = %v, want ok", got)
		}
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if _, err := nc.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("third connection got an answer, want it closed")
	}
}
