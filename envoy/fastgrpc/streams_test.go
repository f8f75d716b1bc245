package fastgrpc_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// What h2spec cannot ask of a server that answers only gRPC, because its
// requests are GETs which are refused before their streams get anywhere; see
// h2spec_test.go.
func TestStreamStates(t *testing.T) {
	starved := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}
	open := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535}
	for _, test := range []struct {
		name string
		send func(p *peer)
		want reply
	}{
		{"DATA after RST_STREAM", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteRSTStream(1, http2.ErrCodeCancel))
			p.must(p.fr.WriteData(1, true, message("x")))
		}, reply{Reset: http2.ErrCodeStreamClosed}},
		{"HEADERS after RST_STREAM", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteRSTStream(1, http2.ErrCodeCancel))
			p.headers(1, true, request(echo)...)
		}, reply{GoAway: http2.ErrCodeStreamClosed}},
		{"DATA on a half-closed stream", func(p *peer) {
			p.must(p.fr.WriteSettings(starved))
			p.call(1, echo, "x")
			p.must(p.fr.WriteData(1, true, message("x")))
		}, reply{HTTP: "200", Reset: http2.ErrCodeStreamClosed}},
		{"HEADERS on a half-closed stream", func(p *peer) {
			p.must(p.fr.WriteSettings(starved))
			p.call(1, echo, "x")
			p.headers(1, true, request(echo)...)
		}, reply{HTTP: "200", Reset: http2.ErrCodeStreamClosed}},
		{"WINDOW_UPDATE on a half-closed stream", func(p *peer) {
			p.must(p.fr.WriteSettings(starved))
			p.call(1, echo, "x")
			p.must(p.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}))
			p.must(p.fr.WriteWindowUpdate(1, 6))
		}, ok("x")},
		{"a window made negative, then opened", func(p *peer) {
			p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}))
			p.call(1, repeat, "", "size", "20")
			p.until(func(f http2.Frame) bool { return f.Header().Type == http2.FrameData }) // the prefix and 5 bytes
			p.must(p.fr.WriteSettings(starved))                                             // minus 10
			p.must(p.fr.WriteWindowUpdate(1, 10))                                           // 0
			p.must(p.fr.WritePing(false, [8]byte{}))
			p.until(func(f http2.Frame) bool {
				if f.Header().Type == http2.FrameData {
					p.t.Error("DATA beyond a window that was made negative")
				}
				return isPing(true)(f)
			})
			p.must(p.fr.WriteSettings(open)) // now 15 bytes, of which reply takes off as many as a prefix has
		}, reply{Status: "0", Data: "xxxxxxxxxx"}},
		{"window of a stream too large", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteWindowUpdate(1, 1<<31-1))
		}, reply{Reset: http2.ErrCodeFlowControl}},
		{"window of the connection too large", func(p *peer) {
			p.must(p.fr.WriteWindowUpdate(0, 1<<31-1))
		}, reply{GoAway: http2.ErrCodeFlowControl}},
		{"windows made too large by SETTINGS", func(p *peer) {
			p.headers(1, false, request(echo)...)
			p.must(p.fr.WriteWindowUpdate(1, 1<<30))
			p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}))
		}, reply{GoAway: http2.ErrCodeFlowControl}},
		{"padding is paid for and given back", func(p *peer) {
			p.headers(1, false, request(repeat, "size", "3")...)
			rest := message(string(make([]byte, 60_000)))
			for len(rest) > 100 { // 60 times 300 bytes of padding: more than the window
				p.must(p.fr.WriteDataPadded(1, false, rest[:1000], make([]byte, 250)))
				rest = rest[1000:]
			}
			p.must(p.fr.WriteData(1, true, rest))
		}, ok("xxx")},
		{"padding beyond the stream's window", func(p *peer) {
			p.headers(1, false, request(echo)...)
			for range 300 { // of 256 bytes, for which alone no room is made
				p.must(p.fr.WriteDataPadded(1, false, nil, make([]byte, 255)))
			}
		}, reply{Reset: http2.ErrCodeFlowControl}},
		{"DATA on an idle stream", func(p *peer) { p.must(p.fr.WriteData(1, true, nil)) }, reply{GoAway: http2.ErrCodeProtocol}},
		{"even stream", func(p *peer) { p.headers(2, true, request(echo)...) }, reply{GoAway: http2.ErrCodeProtocol}},
		{"compression error", func(p *peer) {
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0x7f}, EndHeaders: true}))
		}, reply{GoAway: http2.ErrCodeCompression}},
		{"frame too large", func(p *peer) {
			p.must(p.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<14+1)))
		}, reply{GoAway: http2.ErrCodeFrameSize}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, addr := serve(t, fastgrpc.Options{})
			p := dial(t, addr)
			test.send(p)
			if diff := cmp.Diff(test.want, p.reply(1)); diff != "" {
				t.Errorf("reply differs (-want +got):\n%s", diff)
			}
		})
	}
}

// A client may shrink and grow its header table at any time, in the midst of
// an answer too: each block of every answer must fit the table of its moment.
func TestHeaderTableSizes(t *testing.T) {
	_, addr := serve(t, fastgrpc.Options{})
	p := dial(t, addr)
	id := uint32(1)
	settle := func(size uint32, settings ...http2.Setting) {
		p.must(p.fr.WriteSettings(append(settings, http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})...))
		p.until(func(f http2.Frame) bool {
			settings, isSettings := f.(*http2.SettingsFrame)
			return isSettings && settings.IsAck()
		})
		p.fr.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(size)
		p.fr.ReadMetaHeaders.SetMaxDynamicTableSize(min(size, 4096)) // at once, as a client may that has no more
	}
	for _, size := range []uint32{4096, 0, 4096, 60, 100, 255, 256, 0, 1 << 20, 4096} {
		settle(size, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 8})
		for range 4 {
			for _, call := range []struct {
				method string
				want   reply
			}{{echo, ok("\x05 and")}, {fail, reply{HTTP: "200", Status: "5", Message: " and"}}} {
				p.call(id, call.method, "\x05 and")
				p.must(p.fr.WriteWindowUpdate(id, 100)) // now the rest of the answer may come
				if got := p.reply(id); got != call.want {
					t.Fatalf("reply with a header table of %d = %v, want %v", size, got, call.want)
				}
				id += 2
			}
		}
		// One whose beginning is encoded for this table and whose end for the next.
		p.call(id, echo, "\x05 and")
		settle(0)
		p.must(p.fr.WriteWindowUpdate(id, 100))
		if got := p.reply(id); got.Status != "0" {
			t.Fatalf("reply whose table of %d is taken away on its way = %v, want ok", size, got)
		}
		id += 2
	}
}
