package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is what the generator lets a server send before it is told to go on:
// as good as unlimited, replenished at half.
const window = 1 << 30

// conn is one HTTP/2 connection that sends the same headers with changing
// messages. It belongs to one goroutine.
type conn struct {
	nc      net.Conn
	in      bytes.Buffer // what was read and not yet worked off
	out     *bufio.Writer
	framer  *http2.Framer
	decoder *hpack.Decoder
	reading *reply            // whose headers are being decoded
	open    map[uint32]*reply // what has not ended
	spare   []*reply          // replies that were read

	block      []byte // the constant headers once the dynamic table is warm
	scratch    []byte
	nextStream uint32
	sendWindow int64                // the connection's
	received   int64                // since the last WINDOW_UPDATE of ours
	due        map[uint32]time.Time // when the requests that are out were due
}

// dial connects and sends one request by way of warming the header table.
func dial(target string, headers []hpack.HeaderField, first message) (*conn, error) {
	network, address := split(target)
	nc, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c := &conn{nc: nc, nextStream: 1, sendWindow: 65535, open: map[uint32]*reply{}, due: map[uint32]time.Time{}}
	c.out = bufio.NewWriterSize(c, 64<<10)
	c.framer = http2.NewFramer(c.out, &c.in)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(1 << 20)
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status":
			c.reading.http = f.Value
		case "grpc-status":
			c.reading.grpc = f.Value
		}
	})
	if _, err := c.out.WriteString(http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := errors.Join(
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		c.framer.WriteWindowUpdate(0, window-65535),
	); err != nil {
		return nil, err
	}
	return c, c.warm(headers, first)
}

// Write implements io.Writer for what buffers the frames.
func (c *conn) Write(p []byte) (int, error) { return c.nc.Write(p) }

// warm sends the first request, whose headers fill both sides' header tables,
// and keeps the block that every later request repeats.
func (c *conn) warm(headers []hpack.HeaderField, m message) error {
	var buf bytes.Buffer
	encoder := hpack.NewEncoder(&buf)
	encode := func() []byte {
		buf.Reset()
		for _, f := range headers {
			_ = encoder.WriteField(f) // a bytes.Buffer does not fail
		}
		return bytes.Clone(buf.Bytes())
	}
	c.block = encode()
	if err := c.send(m, time.Now()); err != nil {
		return err
	}
	c.block = encode()
	return nil
}

// room reports whether the server's window takes another request.
func (c *conn) room() bool {
	const largest = 4 << 10 // more than any message of ours
	return c.sendWindow >= largest
}

// send starts a request that was due at a time. It does not flush.
func (c *conn) send(m message, due time.Time) error {
	stream := c.nextStream
	c.nextStream += 2
	c.due[stream] = due
	c.scratch = append(append(c.scratch[:0], c.block...), m.header...)
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: c.scratch, EndHeaders: true, EndStream: m.body == nil,
	}); err != nil || m.body == nil {
		return err
	}
	c.scratch = append(c.scratch[:0], 0) // not compressed
	c.scratch = binary.BigEndian.AppendUint32(c.scratch, uint32(len(m.body)))
	c.scratch = append(c.scratch, m.body...)
	c.sendWindow -= int64(len(c.scratch))
	return c.framer.WriteData(stream, true, c.scratch)
}

func (c *conn) flush() error { return c.out.Flush() }

// reply is what came back for one request. It is valid until the next call of next.
type reply struct {
	stream uint32
	due    time.Time // when the request was
	http   string    // status, or what reset the stream
	grpc   string    // status
	body   []byte
}

// next returns the next finished request. It waits, unless there is whole.
func (c *conn) next() (*reply, error) {
	for {
		for !c.whole() {
			if err := c.fill(); err != nil {
				return nil, err
			}
		}
		if r, err := c.step(); r != nil || err != nil {
			return r, err
		}
	}
}

// fill reads what there is, once.
func (c *conn) fill() error {
	c.in.Grow(64 << 10)
	room := c.in.AvailableBuffer()
	n, err := c.nc.Read(room[:cap(room)])
	c.in.Write(room[:n])
	return err
}

// whole reports whether a whole frame has been read.
func (c *conn) whole() bool {
	const header = 9 // bytes of a frame (RFC 9113, section 4.1), of which three are the length of the rest
	b := c.in.Bytes()
	return len(b) >= header && len(b)-header >= int(b[0])<<16|int(b[1])<<8|int(b[2])
}

// step works off a frame, which must be there, and returns the request that it
// finishes, or nil.
func (c *conn) step() (*reply, error) {
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return nil, err
	}
	return c.handle(frame)
}

func (c *conn) handle(frame http2.Frame) (*reply, error) {
	stream := frame.Header().StreamID
	switch f := frame.(type) {
	case *http2.DataFrame:
		r := c.replyTo(stream)
		r.body = append(r.body, f.Data()...)
		return c.finished(r, f.StreamEnded()), c.replenish(int64(f.Length))
	case *http2.HeadersFrame:
		c.reading = c.replyTo(stream)
		_, err := c.decoder.Write(f.HeaderBlockFragment())
		return c.finished(c.reading, f.StreamEnded()), err
	case *http2.RSTStreamFrame:
		r := c.replyTo(stream)
		r.http = "reset: " + f.ErrCode.String()
		return c.finished(r, true), nil
	case *http2.GoAwayFrame:
		return nil, fmt.Errorf("server sent GOAWAY %s", f.ErrCode)
	}
	return nil, c.control(frame)
}

func (c *conn) replyTo(stream uint32) *reply {
	r := c.open[stream]
	if r != nil {
		return r
	}
	if last := len(c.spare) - 1; last >= 0 {
		r, c.spare = c.spare[last], c.spare[:last]
		*r = reply{body: r.body[:0]}
	} else {
		r = new(reply)
	}
	r.stream = stream
	c.open[stream] = r
	return r
}

// finished returns r if it has ended.
func (c *conn) finished(r *reply, ended bool) *reply {
	if !ended {
		return nil
	}
	delete(c.open, r.stream)
	c.spare = append(c.spare, r)
	r.due = c.due[r.stream]
	delete(c.due, r.stream)
	return r
}

// replenish gives back to the server what it has sent, now and then.
func (c *conn) replenish(received int64) error {
	if c.received += received; c.received <= window/2 {
		return nil
	}
	err := errors.Join(c.framer.WriteWindowUpdate(0, uint32(c.received)), c.out.Flush())
	c.received = 0
	return err
}

// control answers the frames that concern the connection.
func (c *conn) control(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		return errors.Join(c.framer.WriteSettingsAck(), c.out.Flush())
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		return errors.Join(c.framer.WritePing(true, f.Data), c.out.Flush())
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.sendWindow += int64(f.Increment)
		}
	}
	return nil
}

func (c *conn) close() { _ = c.nc.Close() }

// split turns "unix:/path" or "host:port" into what net.Dial takes.
func split(target string) (network, address string) {
	if path, ok := strings.CutPrefix(target, "unix:"); ok {
		return "unix", path
	}
	return "tcp", target
}
