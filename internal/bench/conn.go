package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is what the generator lets a server send before it is told to go on:
// as good as unlimited, replenished at half.
const window = 1 << 30

// conn is one HTTP/2 connection that sends the same unary call with changing
// messages. Its writing half is guarded by mu; its reading half belongs to the
// goroutine that calls next.
type conn struct {
	nc      net.Conn
	framer  *http2.Framer
	in      *bufio.Reader
	out     *bufio.Writer
	decoder *hpack.Decoder
	status  string // grpc-status of the header block being read

	mu         sync.Mutex
	block      []byte // the call's header block once the dynamic table is warm
	scratch    []byte
	nextStream uint32
	sendWindow int64 // the connection's
	windowOpen *sync.Cond
	closed     error
	received   int64 // since the last WINDOW_UPDATE of ours
	answers    map[uint32][]byte
	spare      [][]byte // buffers of answers that were read
}

// dial connects and performs the call once by way of warming the header table.
func dial(network, address, path string, timeout time.Duration) (*conn, error) {
	nc, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c := &conn{
		nc: nc, in: bufio.NewReaderSize(nc, 64<<10), out: bufio.NewWriterSize(nc, 64<<10),
		nextStream: 1, sendWindow: 65535, answers: map[uint32][]byte{},
	}
	c.windowOpen = sync.NewCond(&c.mu)
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(1 << 20)
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "grpc-status" {
			c.status = f.Value
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
	return c, c.warm(path, timeout)
}

// warm writes the first call's headers, which fill both sides' header tables,
// and keeps the block that every later call repeats.
func (c *conn) warm(path string, timeout time.Duration) error {
	var buf bytes.Buffer
	encoder := hpack.NewEncoder(&buf)
	encode := func() []byte {
		buf.Reset()
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
			{Name: ":authority", Value: "tollgate"}, {Name: "te", Value: "trailers"},
			{Name: "content-type", Value: "application/grpc"},
			{Name: "grpc-timeout", Value: fmt.Sprintf("%dm", timeout.Milliseconds())},
			{Name: "x-envoy-internal", Value: "true"},
		} {
			_ = encoder.WriteField(f) // a bytes.Buffer does not fail
		}
		return bytes.Clone(buf.Bytes())
	}
	first := encode()
	c.block = encode()
	return c.write(first, nil)
}

// send starts the call with the given message and returns its stream. It does
// not flush. It waits where the server's window is used up.
func (c *conn) send(message []byte) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.sendWindow < int64(len(message)+5) && c.closed == nil {
		if err := c.out.Flush(); err != nil {
			return 0, err
		}
		c.windowOpen.Wait()
	}
	if c.closed != nil {
		return 0, c.closed
	}
	stream := c.nextStream
	return stream, c.write(c.block, message)
}

func (c *conn) write(block, message []byte) error {
	stream := c.nextStream
	c.nextStream += 2
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true}); err != nil {
		return err
	}
	c.scratch = append(c.scratch[:0], 0)
	c.scratch = binary.BigEndian.AppendUint32(c.scratch, uint32(len(message)))
	c.scratch = append(c.scratch, message...)
	c.sendWindow -= int64(len(c.scratch))
	return c.framer.WriteData(stream, true, c.scratch)
}

func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Flush()
}

// reply is one finished call.
type reply struct {
	stream  uint32
	status  string // grpc-status
	message []byte // without the gRPC prefix; valid until the next call of next
}

// next returns the next finished call.
func (c *conn) next() (reply, error) {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			c.fail(err)
			return reply{}, err
		}
		if r, done, err := c.handle(frame); done || err != nil {
			return r, err
		}
	}
}

// buffered reports whether more replies can be read without waiting.
func (c *conn) buffered() bool {
	return c.in.Buffered() > 0
}

func (c *conn) handle(frame http2.Frame) (reply, bool, error) {
	stream := frame.Header().StreamID
	switch f := frame.(type) {
	case *http2.DataFrame:
		c.keep(stream, f.Data())
		return c.finished(stream, f.StreamEnded(), c.received+int64(f.Length))
	case *http2.HeadersFrame:
		c.status = ""
		if _, err := c.decoder.Write(f.HeaderBlockFragment()); err != nil {
			return reply{}, false, err
		}
		return c.finished(stream, f.StreamEnded(), c.received)
	case *http2.RSTStreamFrame:
		return reply{stream: stream, status: "rst:" + f.ErrCode.String()}, true, nil
	case *http2.GoAwayFrame:
		return reply{}, false, fmt.Errorf("server sent GOAWAY %s", f.ErrCode)
	}
	return reply{}, false, c.control(frame)
}

// control answers the frames that concern the connection.
func (c *conn) control(frame http2.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
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
			c.windowOpen.Broadcast()
		}
	}
	return nil
}

// keep holds on to an answer until its trailers come.
func (c *conn) keep(stream uint32, data []byte) {
	if len(data) == 0 {
		return
	}
	buffer, begun := c.answers[stream]
	if last := len(c.spare) - 1; !begun && last >= 0 {
		buffer, c.spare = c.spare[last][:0], c.spare[:last]
	}
	c.answers[stream] = append(buffer, data...)
}

func (c *conn) finished(stream uint32, ended bool, received int64) (reply, bool, error) {
	if c.received = received; c.received > window/2 {
		c.mu.Lock()
		err := errors.Join(c.framer.WriteWindowUpdate(0, uint32(c.received)), c.out.Flush())
		c.mu.Unlock()
		if err != nil {
			return reply{}, false, err
		}
		c.received = 0
	}
	if !ended {
		return reply{}, false, nil
	}
	message := c.answers[stream]
	delete(c.answers, stream)
	if message != nil {
		c.spare = append(c.spare, message)
	}
	if len(message) >= 5 {
		message = message[5:]
	}
	return reply{stream: stream, status: c.status, message: message}, true, nil
}

func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed == nil {
		c.closed = err
	}
	c.windowOpen.Broadcast()
}

func (c *conn) close() {
	c.fail(io.ErrClosedPipe)
	_ = c.nc.Close()
}

// split turns "unix:/path" or "host:port" into what net.Dial takes.
func split(target string) (network, address string) {
	if path, ok := strings.CutPrefix(target, "unix:"); ok {
		return "unix", path
	}
	return "tcp", target
}
