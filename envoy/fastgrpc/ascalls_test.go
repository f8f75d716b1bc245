package fastgrpc_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// asCalls starts a proxy to addr that makes each "GET /" a call of echo, and
// returns its address. It looks at nothing but whole header blocks: what
// h2spec sends wrongly goes through as it is.
func asCalls(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(client, server)
				_ = client.Close()
			})
			wg.Go(func() {
				_ = (&translator{from: client, to: server, seen: map[uint32]bool{}}).run()
				_ = server.(*net.TCPConn).CloseWrite()
			})
		}
	})
	return l.Addr().String()
}

// A translator hands frames from a client to a server. Blocks that are decoded
// here are encoded anew, without the dynamic table, so that the server's state
// does not matter.
type translator struct {
	from, to net.Conn
	dec      *hpack.Decoder
	seen     map[uint32]bool // streams whose first header block has come
}

func (tr *translator) run() error {
	tr.dec = hpack.NewDecoder(4096, nil)
	if _, err := io.CopyN(tr.to, tr.from, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	for {
		head := make([]byte, 9)
		n, err := io.ReadFull(tr.from, head)
		if err != nil {
			_, _ = tr.to.Write(head[:n])
			return err
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		n, err = io.ReadFull(tr.from, payload)
		out := append(head, payload[:n]...)
		if err == nil && http2.FrameType(head[3]) == http2.FrameHeaders {
			out = tr.translate(out)
		}
		if _, err := tr.to.Write(out); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
}

// translate returns the frames to send for a HEADERS frame.
func (tr *translator) translate(frame []byte) []byte {
	flags, id := http2.Flags(frame[4]), binary.BigEndian.Uint32(frame[5:])
	const plain = http2.FlagHeadersEndHeaders | http2.FlagHeadersEndStream
	first := !tr.seen[id]
	tr.seen[id] = true
	if !flags.Has(http2.FlagHeadersEndHeaders) || flags&^plain != 0 {
		return frame
	}
	fields, err := tr.dec.DecodeFull(frame[9:])
	if err != nil {
		return frame
	}
	isCall := first
	for i := range fields {
		switch fields[i] {
		case hpack.HeaderField{Name: ":method", Value: "GET"}:
			fields[i].Value = "POST"
		case hpack.HeaderField{Name: ":path", Value: "/"}:
			fields[i].Value = echo
		}
		isCall = isCall && (fields[i].Name != "content-type")
	}
	if isCall {
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	}
	var block, out bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		_ = enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value, Sensitive: true})
	}
	fr := http2.NewFramer(&out, nil)
	fr.AllowIllegalWrites = true
	ended := flags.Has(http2.FlagHeadersEndStream)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: ended && !first})
	if ended && first {
		_ = fr.WriteData(id, true, message(strings.Repeat("m", 20)))
	}
	return out.Bytes()
}
