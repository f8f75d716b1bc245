package fastgrpc_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// A client whose windows never open is owed no more than MaxBufferedBytes.
func TestWindowStarvation(t *testing.T) {
	const room = 100_000
	_, addr := serve(t, fastgrpc.Options{MaxBufferedBytes: room})
	p := dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	refused := uint32(0)
	bounded(t, 1, func() {
		for i := range uint32(12) {
			p.call(2*i+1, repeat, "", "size", "10000")
			p.must(p.fr.WritePing(false, [8]byte{byte(i)}))
			for {
				frame, err := p.next()
				p.must(err)
				if ping, isPing := frame.(*http2.PingFrame); isPing && ping.IsAck() {
					break
				}
				if f, isHeaders := frame.(*http2.MetaHeadersFrame); isHeaders && f.StreamEnded() {
					refused++
				}
				if _, isData := frame.(*http2.DataFrame); isData {
					t.Fatal("DATA beyond the window")
				}
			}
		}
	})
	if refused != 3 {
		t.Errorf("%d of 12 answers of 10,000 bytes refused, want 3 with room for %d", refused, room)
	}
	// One that opens its window gets its answers after all.
	p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	p.must(p.fr.WriteWindowUpdate(0, 1<<20))
	left := 9
	for left > 0 {
		frame, err := p.next()
		p.must(err)
		if f, isHeaders := frame.(*http2.MetaHeadersFrame); isHeaders && f.StreamEnded() {
			left--
		}
	}
}

// Requests that come in turns, a little of each, do not wait for each other.
func TestInterleavedRequestsDoNotStarve(t *testing.T) {
	_, addr := serve(t, fastgrpc.Options{MaxBufferedBytes: 64 << 20})
	p := dial(t, addr)
	const calls, size, chunk = 8, 1 << 20, 8 << 10
	whole := message(strings.Repeat("m", size))
	for i := range uint32(calls) {
		p.headers(2*i+1, false, request(repeat, "size", fmt.Sprint(i))...)
	}
	done := make(chan struct{})
	window := make(chan http2.WindowUpdateFrame, 1000)
	replies := map[uint32]*reply{}
	go func() { // reads all; the writer waits for windows as a client must
		defer close(done)
		for ended := 0; ended < calls; {
			frame, err := p.fr.ReadFrame()
			if err != nil {
				return
			}
			id := frame.Header().StreamID
			if f, isUpdate := frame.(*http2.WindowUpdateFrame); isUpdate {
				window <- *f
			} else if id != 0 {
				if replies[id] == nil {
					replies[id] = &reply{}
				}
				if replies[id].take(frame, id) {
					ended++
				}
			}
		}
	}()
	windows := map[uint32]int{0: 65535}
	for at := 0; at < len(whole); at += chunk {
		part := whole[at:min(at+chunk, len(whole))]
		for i := range uint32(calls) {
			id := 2*i + 1
			if at == 0 {
				windows[id] = 65535
			}
			for windows[0] < len(part) || windows[id] < len(part) {
				select {
				case f := <-window:
					windows[f.StreamID] += int(f.Increment)
				case <-time.After(time.Minute):
					t.Fatalf("no window for stream %d at %d: starved", id, at)
				}
			}
			windows[0] -= len(part)
			windows[id] -= len(part)
			p.must(p.fr.WriteData(id, at+chunk >= len(whole), part))
		}
	}
	<-done
	for i := range uint32(calls) {
		if diff := cmp.Diff(ok(strings.Repeat("x", int(i))), *replies[2*i+1]); diff != "" {
			t.Errorf("reply on stream %d differs (-want +got):\n%s", 2*i+1, diff)
		}
	}
}

// Unfinished requests take no more memory than MaxBufferedBytes.
func TestUnfinishedRequestsAreBounded(t *testing.T) {
	_, addr := serve(t, fastgrpc.Options{MaxBufferedBytes: 100_000})
	p := dial(t, addr)
	bounded(t, 1, func() {
		for i := range uint32(11) {
			p.headers(2*i+1, false, request(echo)...)
			p.must(p.fr.WriteData(2*i+1, false, message(strings.Repeat("m", 10_000))[:9_900]))
		}
		if got := p.reply(21); got.Status != "8" {
			t.Errorf("reply to the request that is too much = %v, want RESOURCE_EXHAUSTED", got)
		}
	})
	p.must(p.fr.WriteData(1, true, []byte(strings.Repeat("m", 105))))
	if got := p.reply(1); got.Status != "0" {
		t.Errorf("reply to the first = %v, want ok", got)
	}
}

// What all connections hold together is bounded too, and calls that hold
// nothing are answered meanwhile.
func TestAllConnectionsTogetherAreBounded(t *testing.T) {
	const total, conns, calls, size = 1 << 20, 8, 10, 50_000 // four times as much as there is room for
	for name, hold := range map[string]func(p *peer, id uint32){
		"unfinished requests": func(p *peer, id uint32) {
			p.headers(id, false, request(echo)...)
			whole := message(strings.Repeat("m", size))
			for at := 0; at < len(whole)-1; at += 10_000 {
				p.must(p.fr.WriteData(id, false, whole[at:min(at+10_000, len(whole)-1)]))
			}
		},
		"answers not taken": func(p *peer, id uint32) { p.call(id, repeat, "", "size", fmt.Sprint(size)) },
		"calls that wait":   func(p *peer, id uint32) { p.call(id, wait, "x", "filler", strings.Repeat("f", size/2)) },
	} {
		t.Run(name, func(t *testing.T) {
			server, addr := serve(t, fastgrpc.Options{MaxBufferedTotal: total, StreamTimeout: time.Hour})
			bystander := dial(t, addr)
			var peers []*peer
			refused := 0
			bounded(t, 2*conns*calls, func() {
				for range conns {
					p := dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
					peers = append(peers, p)
					for i := range uint32(calls) {
						hold(p, 2*i+1)
						p.must(p.fr.WritePing(false, [8]byte{byte(i)}))
						refused += p.statusesUntilPong("8")
					}
				}
			})
			if least, most := conns*calls/4, conns*calls*7/8; refused < least || refused > most {
				t.Errorf("%d of %d calls were refused, want %d to %d", refused, conns*calls, least, most)
			}
			if got := server.Stats().Buffered; got > total || got < total/2 {
				t.Errorf("Stats().Buffered = %d, want at most %d and most of that", got, total)
			}
			bystander.call(1, echo, "x")
			if got := bystander.reply(1); got != ok("x") {
				t.Errorf("another client's call meanwhile = %v, want ok", got)
			}
			for _, p := range peers {
				p.must(p.nc.Close())
			}
			eventually(t, "all is given back", func() bool { return server.Stats().Buffered == 0 })
		})
	}
}

// What a connection had beyond its own share goes back as soon as it needs that no
// more, and not only at its end.
func TestRoomIsGivenBackInBetween(t *testing.T) {
	server, addr := serve(t, fastgrpc.Options{})
	p := dial(t, addr)
	for id := uint32(1); id < 41; id += 2 {
		p.headers(id, false, request(echo)...)
		p.must(p.fr.WriteData(id, false, message(strings.Repeat("m", 16_000))[:16_000]))
	}
	eventually(t, "twenty requests of 16,000 bytes are held", func() bool { return server.Stats().Buffered > 200_000 })
	for id := uint32(1); id < 41; id += 2 {
		p.must(p.fr.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	eventually(t, "all is given back", func() bool { return server.Stats().Buffered == 0 })
	p.call(41, echo, "x")
	if got := p.reply(41); got != ok("x") {
		t.Errorf("the next call = %v, want ok", got)
	}
}

// statusesUntilPong counts the calls that end with a status before a PING is
// answered.
func (p *peer) statusesUntilPong(status string) (n int) {
	p.t.Helper()
	for {
		frame, err := p.next()
		p.must(err)
		if ping, isPing := frame.(*http2.PingFrame); isPing && ping.IsAck() {
			return n
		}
		if f, isHeaders := frame.(*http2.MetaHeadersFrame); isHeaders && f.StreamEnded() {
			for _, field := range f.Fields {
				if field.Name == "grpc-status" && field.Value == status {
					n++
				}
			}
		}
	}
}
