package fastgrpc

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A conn serves one connection. All but the fields under mu belongs to the
// goroutine that runs serve.
type conn struct {
	server *Server
	nc     net.Conn
	tls    *tls.ConnectionState // nil: plaintext

	in      *bufio.Reader // of source
	framer  *http2.Framer // of in and out
	decoder *hpack.Decoder
	block   headerBlock
	replies replyHeaders
	out     output
	ioError error // of reading or writing: the connection is gone
	now     time.Time

	streams    map[uint32]*stream // open: receiving, waiting or sending
	abandoned  int                // streams that only their waiting goroutine still holds
	blocked    []*stream          // the sending ones, in the order in which they were answered
	free       []*stream          // finished, for reuse
	lastStream uint32             // highest number the client has used
	resets     resetRing
	kept       int // bytes that those have room for
	buffered   int // bytes held for the client, by all streams: see memory.go
	borrowed   int // bytes out of the server's total
	call       Call
	answered   answered
	scratch    []byte // holds one answer with its prefix

	recvWindow     int64 // what the client may still send on the connection
	sendWindow     int64
	peerWindow     int64 // the client's SETTINGS_INITIAL_WINDOW_SIZE
	peerFrame      int   // the client's SETTINGS_MAX_FRAME_SIZE, as far as it is used
	peerHeaderList uint32
	settled        bool // the client's first SETTINGS have come
	budget         budget
	life           lifetime

	mu       sync.Mutex
	reading  bool      // serve's goroutine is, or is about to be, blocked in a read
	finished []outcome // of waiting calls, to be answered
	drain    bool      // the server wants the connection to end in good order
}

func newConn(s *Server, nc net.Conn, now time.Time) *conn {
	c := &conn{
		server: s, nc: nc, now: now,
		streams:        make(map[uint32]*stream),
		scratch:        make([]byte, messagePrefix, 512),
		recvWindow:     connWindow,
		sendWindow:     streamWindow,
		peerWindow:     streamWindow,
		peerFrame:      maxFrame,
		peerHeaderList: 1<<32 - 1,
		budget:         budget{left: budgetFull, refill: now},
		block:          headerBlock{limit: s.opts.MaxHeaderBytes},
	}
	c.life.begin(&s.opts, now)
	c.replies.init()
	c.decoder = hpack.NewDecoder(4096, c.block.add)
	c.decoder.SetMaxStringLength(int(s.opts.MaxHeaderBytes))
	c.in = bufio.NewReaderSize(source{c}, readBuffer)
	c.framer = http2.NewFramer(&c.out, c.in)
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.SetReuseFrames()
	return c
}

// serve runs the connection to its end.
func (c *conn) serve() {
	err := c.handshake()
	for err == nil {
		if err = c.readFrame(); err != nil {
			err = c.onError(err)
		}
		if err == nil {
			err = c.ioError // calls that were read together with the last are not decided for nobody
		}
	}
	c.end(err)
}

// handshake does TLS's part, sends the server's SETTINGS and reads the
// client's preface (RFC 9113, section 3.4).
func (c *conn) handshake() error {
	if secure, ok := c.nc.(*tls.Conn); ok {
		if err := c.nc.SetDeadline(c.life.handshake); err != nil {
			return err
		}
		if err := secure.Handshake(); err != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
		if err := c.nc.SetDeadline(time.Time{}); err != nil {
			return err
		}
		state := secure.ConnectionState()
		if state.NegotiatedProtocol != "h2" {
			return errors.New("the client did not negotiate h2 by ALPN")
		}
		c.tls = &state
	}
	c.wrote(c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: c.server.opts.MaxStreams},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.server.opts.MaxHeaderBytes},
	))
	c.wrote(c.framer.WriteWindowUpdate(0, connWindow-streamWindow))
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.in, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return c.onError(connError{http2.ErrCodeProtocol, "not an HTTP/2 preface"})
	}
	return nil
}

// readFrame reads one frame and does what it asks.
func (c *conn) readFrame() error {
	header, err := c.framer.ReadFrameHeader()
	if err != nil {
		return err
	}
	if !c.settled && header.Type != http2.FrameSettings {
		return connError{http2.ErrCodeProtocol, "the first frame is not SETTINGS"}
	}
	if header.Type == http2.FrameHeaders && !header.Flags.Has(http2.FlagHeadersPriority) {
		return c.readHeaders(header)
	}
	frame, err := c.framer.ReadFrameForHeader(header)
	if err != nil {
		return c.frameError(header, err)
	}
	switch f := frame.(type) {
	case *http2.DataFrame:
		return c.onData(header, f.Data())
	case *http2.HeadersFrame:
		if f.Priority.StreamDep == f.StreamID {
			// A stream error would do (RFC 7540, section 5.3.1), but only
			// after decoding; nobody sends this but tests.
			return connError{http2.ErrCodeProtocol, "stream depends on itself"}
		}
		return c.onHeaders(header, f.HeaderBlockFragment())
	case *http2.ContinuationFrame:
		return c.onHeaderFragment(header, f.HeaderBlockFragment())
	case *http2.SettingsFrame:
		return c.onSettings(f)
	case *http2.WindowUpdateFrame:
		return c.onWindowUpdate(f)
	case *http2.PingFrame:
		return c.onPing(f)
	case *http2.RSTStreamFrame:
		return c.onReset(f)
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	case *http2.PushPromiseFrame:
		return connError{http2.ErrCodeProtocol, "PUSH_PROMISE from a client"}
	case *http2.GoAwayFrame:
		// The client opens no further streams; it closes when it has the
		// answers to those it opened.
	}
	return c.spend(1)
}

// readHeaders reads a HEADERS frame without priority as the DATA frame that it
// is but for its type: both are a payload between optional padding, with the
// same flags (RFC 9113, sections 6.1 and 6.2). The Framer reuses its DataFrame
// and allocates every HeadersFrame.
func (c *conn) readHeaders(header http2.FrameHeader) error {
	asData := header
	asData.Type = http2.FrameData
	frame, err := c.framer.ReadFrameForHeader(asData)
	if err != nil {
		return c.frameError(header, err)
	}
	return c.onHeaders(header, frame.(*http2.DataFrame).Data())
}

// frameError completes what the Framer says of a frame that it could not read.
func (c *conn) frameError(header http2.FrameHeader, err error) error {
	if c.ioError != nil {
		return c.ioError
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return http2.ConnectionError(http2.ErrCodeFrameSize) // the payload ended within a field
	}
	if stream, ok := errors.AsType[http2.StreamError](err); ok && header.Type == http2.FrameHeaders {
		return http2.ConnectionError(stream.Code) // undecoded, it leaves HPACK's state behind
	}
	return err
}

// A connError ends the connection, with a reason for people.
type connError struct {
	code   http2.ErrCode
	reason string
}

func (e connError) Error() string { return e.code.String() + ": " + e.reason }

// onError answers an error that a frame caused. It returns nil if that was
// the stream's affair.
func (c *conn) onError(err error) error {
	if c.ioError != nil {
		return c.ioError
	}
	var fatal connError
	switch e := err.(type) {
	case http2.StreamError:
		if c.idle(e.StreamID) {
			fatal = connError{e.Code, "invalid frame on an idle stream"}
			break
		}
		if open := c.streams[e.StreamID]; open != nil {
			c.abandon(open)
		}
		c.writeReset(e.StreamID, e.Code)
		if c.budget.spend(1) {
			return nil
		}
		fatal = c.flooded()
	case connError:
		fatal = e
	case http2.ConnectionError:
		fatal = connError{http2.ErrCode(e), "invalid frame"}
	default:
		if !errors.Is(err, http2.ErrFrameTooLarge) {
			return err
		}
		fatal = connError{http2.ErrCodeFrameSize, "frame larger than SETTINGS_MAX_FRAME_SIZE"}
	}
	c.wrote(c.framer.WriteGoAway(c.lastAllowed(), fatal.code, []byte(fatal.reason)))
	c.flush()
	return fatal
}

// spend charges the connection for a frame that asks for nothing.
func (c *conn) spend(n int) error {
	if c.budget.spend(n) {
		return nil
	}
	return c.flooded()
}

func (c *conn) flooded() connError {
	c.server.floods.Add(1)
	return connError{http2.ErrCodeEnhanceYourCalm, "too many frames that ask for nothing"}
}
