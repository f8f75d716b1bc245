package fastgrpc

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// onHeaders begins a header block.
func (c *conn) onHeaders(header http2.FrameHeader, fragment []byte) error {
	if header.StreamID%2 == 0 {
		return connError{http2.ErrCodeProtocol, "HEADERS on a stream that is no client's"}
	}
	c.block.begin(header.StreamID, header.Flags.Has(http2.FlagHeadersEndStream))
	return c.onHeaderFragment(header, fragment)
}

// onHeaderFragment decodes a part of the open header block. Every block is
// decoded, even of a stream that will be refused, as the decoder's state is
// the connection's.
func (c *conn) onHeaderFragment(header http2.FrameHeader, fragment []byte) error {
	b := &c.block
	b.wire += uint32(len(fragment))
	if b.wire > 2*b.limit {
		c.server.floods.Add(1)
		return connError{http2.ErrCodeEnhanceYourCalm, "header block far over SETTINGS_MAX_HEADER_LIST_SIZE"}
	}
	if header.Type == http2.FrameContinuation && !c.budget.spend(1) {
		return c.flooded()
	}
	c.decoder.SetEmitEnabled(!b.tooLarge)
	_, err := c.decoder.Write(fragment)
	if err == nil && header.Flags.Has(http2.FlagHeadersEndHeaders) {
		if err = c.decoder.Close(); err == nil {
			return c.endBlock()
		}
	}
	switch {
	case errors.Is(err, hpack.ErrStringLength):
		return connError{http2.ErrCodeEnhanceYourCalm, "header field over SETTINGS_MAX_HEADER_LIST_SIZE"}
	case err != nil:
		return connError{http2.ErrCodeCompression, err.Error()}
	}
	return nil
}

// endBlock does what a complete header block asks: open a stream, or end one
// as its trailers.
func (c *conn) endBlock() error {
	b := &c.block
	if st := c.streams[b.stream]; st != nil {
		return c.onTrailers(st)
	}
	if b.stream <= c.lastStream {
		if c.resets.has(b.stream) || c.ignored(b.stream) {
			return c.spend(1)
		}
		return connError{http2.ErrCodeStreamClosed, "HEADERS on a closed stream"}
	}
	c.lastStream = b.stream
	if c.ignored(b.stream) {
		return c.spend(1)
	}
	if why := b.incomplete(); why != "" {
		return http2.StreamError{StreamID: b.stream, Code: http2.ErrCodeProtocol}
	}
	if len(c.streams)+c.abandoned >= int(c.server.opts.MaxStreams) {
		return http2.StreamError{StreamID: b.stream, Code: http2.ErrCodeRefusedStream}
	}
	return c.openStream()
}

// openStream begins the call that the header block describes, or refuses it.
func (c *conn) openStream() error {
	b := &c.block
	httpStatus, status := b.check()
	if status.Code != OK {
		return c.refuse(httpStatus, status)
	}
	handler := c.server.opts.Methods[b.path]
	if handler == nil {
		return c.refuse(http.StatusOK, c.server.unimplemented(b.path))
	}
	if b.encoding != "" && b.encoding != "identity" {
		return c.refuse(http.StatusOK, statusf(Unimplemented, "grpc-encoding %q is not supported", b.encoding))
	}
	if !c.affords(streamBytes + int(b.size)) {
		return c.refuse(http.StatusOK, tooMuch)
	}
	st := c.newStream()
	st.id, st.path, st.handler = b.stream, b.path, handler
	st.fields, b.fields = b.fields, st.fields
	st.contentLength = b.contentLength
	st.recvWindow, st.sendWindow = streamWindow, c.peerWindow
	st.expires = c.now.Add(c.server.opts.StreamTimeout)
	if b.timeoutSet {
		st.deadline = c.now.Add(b.timeout)
		if st.deadline.Before(st.expires) {
			st.expires = st.deadline
		}
	}
	c.streams[st.id] = st
	c.hold(st, streamBytes+int(b.size))
	if b.endStream {
		return c.endRequest(st, nil)
	}
	return nil
}

// refuse answers the header block's call at once, without a stream.
func (c *conn) refuse(httpStatus int, status Status) error {
	c.writeTrailersOnly(c.block.stream, httpStatus, status)
	if !c.block.endStream {
		c.writeReset(c.block.stream, http2.ErrCodeNo)
	}
	return nil
}

// onTrailers ends the request of a stream whose client sent trailers, which
// gRPC's clients do not.
func (c *conn) onTrailers(st *stream) error {
	b := &c.block
	switch {
	case st.state != receiving:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case b.malformed != "" || !b.endStream || b.method != "" || b.scheme != "" || b.path != "" || b.authorities > 0:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	return c.endRequest(st, nil)
}

// onData takes a part of a request. Padding counts for flow control only.
func (c *conn) onData(header http2.FrameHeader, data []byte) error {
	length := int64(header.Length)
	if length > c.recvWindow {
		return connError{http2.ErrCodeFlowControl, "DATA beyond the connection's window"}
	}
	// What came is made room for at once: a connection's window that waited
	// for requests to become complete could leave all of them waiting for
	// each other. MaxBufferedBytes bounds what is kept.
	if c.recvWindow -= length; c.recvWindow < connWindow/2 {
		c.wrote(c.framer.WriteWindowUpdate(0, uint32(connWindow-c.recvWindow)))
		c.recvWindow = connWindow
	}
	st := c.streams[header.StreamID]
	if st == nil {
		return c.onStrayData(header.StreamID)
	}
	if st.state != receiving {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	}
	if length > st.recvWindow {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	}
	st.recvWindow -= length
	st.received += int64(len(data))
	if header.Flags.Has(http2.FlagDataEndStream) {
		return c.endRequest(st, data)
	}
	if len(data) == 0 {
		return c.spend(1)
	}
	c.keepData(st, data)
	return nil
}

// onStrayData answers DATA that belongs to no open stream. It has been
// accounted for in the connection's window.
func (c *conn) onStrayData(id uint32) error {
	switch {
	case id%2 == 0 || id > c.lastStream:
		return connError{http2.ErrCodeProtocol, "DATA on an idle stream"}
	case c.resets.has(id) || c.ignored(id):
		return c.spend(1) // it was under way when the stream was reset
	default:
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeStreamClosed}
	}
}

// keepData keeps a part of a request that goes on, and makes room for more.
func (c *conn) keepData(st *stream, data []byte) {
	if !c.affords(len(data)) {
		c.refuseOpen(st, tooMuch)
		return
	}
	st.body = append(st.body, data...)
	c.hold(st, len(data))
	if _, status := checkBody(st.body, c.server.opts.MaxRequestBytes); status.Code != OK {
		c.refuseOpen(st, status)
		return
	}
	if st.recvWindow < streamWindow/2 {
		c.wrote(c.framer.WriteWindowUpdate(st.id, uint32(streamWindow-st.recvWindow)))
		st.recvWindow = streamWindow
	}
}

// endRequest has the request answered, whose last part is given.
func (c *conn) endRequest(st *stream, last []byte) error {
	if st.contentLength >= 0 && st.received != st.contentLength {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol} // RFC 9113, section 8.1.1
	}
	body := last
	if len(st.body) > 0 {
		st.body = append(st.body, last...)
		body = st.body
	}
	whole, status := checkBody(body, c.server.opts.MaxRequestBytes)
	switch {
	case status.Code != OK:
	case len(body) == 0:
		status = Status{Code: Internal, Message: "received no request message"}
	case !whole:
		status = Status{Code: Internal, Message: "unexpected EOF in the request message"}
	default:
		c.run(st, body[messagePrefix:])
		return nil
	}
	c.answer(st, nil, status)
	return nil
}

// run has the handler decide, here or, if it wants to wait, elsewhere.
func (c *conn) run(st *stream, request []byte) {
	c.call = Call{conn: c, stream: st}
	message, status := st.handler.ServeUnary(&c.call, request, c.scratch[messagePrefix:messagePrefix])
	finish := c.call.wait
	c.call = Call{}
	if finish != nil && !c.affords(len(request)) {
		finish, status = nil, tooMuch
	}
	if finish == nil {
		c.count(st.handler, status.Code)
		c.answer(st, message, status)
		return
	}
	c.hold(st, len(request)) // which finish has kept
	ctx, cancel := context.Background(), context.CancelFunc(nil)
	if st.deadline.IsZero() {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithDeadline(ctx, st.deadline)
	}
	st.state, st.cancel = waiting, cancel
	started := c.server.pool.run(func() {
		message, status := finish(ctx, nil)
		c.hand(outcome{st, message, status})
	})
	if !started {
		cancel()
		st.cancel = nil
		c.count(st.handler, Unavailable)
		c.answer(st, nil, Status{Code: Unavailable, Message: "too many calls are waiting"})
	}
}

// unimplemented is the answer to a call of a method that is not served here,
// in grpc-go's words.
func (s *Server) unimplemented(path string) Status {
	service, method, ok := cutLast(strings.TrimPrefix(path, "/"))
	switch {
	case !ok || path[0] != '/':
		return statusf(Unimplemented, "malformed method name: %q", path)
	case s.services[service]:
		return statusf(Unimplemented, "unknown method %v for service %v", method, service)
	default:
		return statusf(Unimplemented, "unknown service %v", service)
	}
}

// cutLast cuts around the last slash.
func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
