package fastgrpc

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/net/http2"
)

// An outcome is the answer to a call that waited.
type outcome struct {
	stream  *stream
	message []byte
	status  Status
}

// hand gives an outcome to the connection's goroutine. Any goroutine may call
// it.
func (c *conn) hand(o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = append(c.finished, o)
	c.interrupt()
}

func (c *conn) answerWaited(o outcome) {
	st := o.stream
	st.cancel()
	st.cancel = nil
	if st.state == abandoned {
		c.abandoned--
		c.hold(st, -st.buffered)
		c.recycle(st)
		return
	}
	c.answer(st, o.message, o.status)
}

// answer ends a call whose request is complete. The message may lie in
// c.scratch behind the prefix's place.
func (c *conn) answer(st *stream, message []byte, status Status) {
	c.budget.answered()
	size := messagePrefix + len(message)
	fits := int64(size) <= min(c.sendWindow, st.sendWindow, int64(c.peerFrame))
	if status.Code == OK && !fits && !c.affords(size) {
		status = tooMuch
	}
	if status.Code != OK {
		c.writeTrailersOnly(st.id, 200, status)
		c.release(st)
		return
	}
	framed := append(c.scratch[:messagePrefix], message...)
	framed[0] = 0 // not compressed
	binary.BigEndian.PutUint32(framed[1:], uint32(len(message)))
	if c.scratch = framed[:messagePrefix]; cap(framed) > keepCapacity {
		c.scratch = make([]byte, messagePrefix, 512)
	}
	c.writeHeaders(st.id, c.replies.begin())
	if !fits {
		st.state = sending
		st.pending = bytes.Clone(framed)
		st.expires = c.now.Add(c.server.opts.StreamTimeout)
		c.hold(st, size)
		c.blocked = append(c.blocked, st)
		c.pump(st)
		return
	}
	c.sendWindow -= int64(size)
	st.sendWindow -= int64(size)
	c.wrote(c.framer.WriteData(st.id, false, framed))
	c.writeTrailers(st)
}

// pump sends of a blocked answer what flow control allows.
func (c *conn) pump(st *stream) {
	for len(st.pending) > 0 {
		n := min(int64(len(st.pending)), c.sendWindow, st.sendWindow, int64(c.peerFrame))
		if n <= 0 {
			return
		}
		c.wrote(c.framer.WriteData(st.id, false, st.pending[:n]))
		st.pending = st.pending[n:]
		c.sendWindow -= n
		st.sendWindow -= n
		c.hold(st, -int(n))
	}
	c.writeTrailers(st)
}

// pumpAll is pump for all, oldest first, as the connection's window has
// opened.
func (c *conn) pumpAll() {
	for i := 0; i < len(c.blocked) && c.sendWindow > 0; {
		st := c.blocked[i]
		c.pump(st)
		if i < len(c.blocked) && c.blocked[i] == st {
			i++
		}
	}
}

func (c *conn) unblock(st *stream) {
	if i := slices.Index(c.blocked, st); i >= 0 {
		c.blocked = slices.Delete(c.blocked, i, i+1)
	}
}

func (c *conn) writeHeaders(id uint32, block []byte) {
	c.wrote(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}))
}

// writeTrailers ends a stream with status OK.
func (c *conn) writeTrailers(st *stream) {
	c.wrote(c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: st.id, BlockFragment: c.replies.end(), EndHeaders: true, EndStream: true,
	}))
	c.release(st)
}

// writeTrailersOnly answers with a status and nothing else (gRPC over HTTP/2,
// "Trailers-Only").
func (c *conn) writeTrailersOnly(id uint32, httpStatus int, status Status) {
	if c.peerHeaderList < 512+3*maxMessage {
		status.Message = "" // the client may not take it
	}
	c.wrote(c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: c.replies.only(httpStatus, status), EndHeaders: true, EndStream: true,
	}))
}

// refuseOpen answers a call whose request is not complete, and resets its
// stream so that the rest need not come (RFC 9113, section 8.1).
func (c *conn) refuseOpen(st *stream, status Status) {
	c.writeTrailersOnly(st.id, 200, status)
	c.writeReset(st.id, http2.ErrCodeNo)
	c.release(st)
}

func (c *conn) writeReset(id uint32, code http2.ErrCode) {
	c.resets.add(id)
	c.wrote(c.framer.WriteRSTStream(id, code))
}

// abandon drops an open stream that nobody waits for any more. While a waiting
// goroutine has it, it goes on counting as open, or resets would be a way
// round every bound on waiting calls ("rapid reset").
func (c *conn) abandon(st *stream) {
	if st.state == waiting {
		st.cancel()
		st.state = abandoned
		delete(c.streams, st.id)
		c.abandoned++
		return
	}
	c.release(st)
}

// release forgets a stream that is over.
func (c *conn) release(st *stream) {
	if st.state == sending {
		c.unblock(st)
	}
	delete(c.streams, st.id)
	c.hold(st, -st.buffered)
	c.recycle(st)
}

// recycle keeps a finished stream for reuse, as long as all that are kept have
// little room.
func (c *conn) recycle(st *stream) {
	st.reset()
	if room := st.room(); c.kept+room <= keepCapacity {
		c.kept += room
		c.free = append(c.free, st)
	}
}

func (c *conn) newStream() *stream {
	if n := len(c.free); n > 0 {
		st := c.free[n-1]
		c.free = c.free[:n-1]
		c.kept -= st.room()
		return st
	}
	return &stream{}
}

// A resetRing remembers the streams that the server reset last. Frames for
// them may still be under way and are to be ignored (RFC 9113, section 5.4.2),
// where frames for other closed streams are errors.
type resetRing struct {
	ids  [64]uint32
	next int
}

func (r *resetRing) add(id uint32) {
	r.ids[r.next] = id
	r.next = (r.next + 1) % len(r.ids)
}

// forget has frames for the stream be errors again.
func (r *resetRing) forget(id uint32) {
	if i := slices.Index(r.ids[:], id); i >= 0 {
		r.ids[i] = 0
	}
}

func (r *resetRing) has(id uint32) bool { return slices.Contains(r.ids[:], id) }
