package fastgrpc

// What a connection holds for its client is counted in conn.buffered: requests
// that are not complete, calls that wait, answers that flow control holds back.
// Two bounds apply, Options.MaxBufferedBytes to each connection and
// Options.MaxBufferedTotal to all of them.
//
// The first ownBytes of each connection are its own. So what is small is served
// whatever other clients hold, and without looking at memory that all share.
// What goes beyond is taken out of the total, in steps, and given back as soon
// as it is not needed.
//
// Beside that a connection has buffers to read and to write with, and finished
// streams for reuse, each of which is bounded by a constant (options.go) and
// all of which come to less than half a megabyte.
const (
	ownBytes    = 64 << 10
	stepBytes   = 256 << 10
	streamBytes = 512 // what a stream takes beside its fields and body
)

// affords reports whether the connection may hold n more bytes.
func (c *conn) affords(n int) bool {
	want := c.buffered + n
	if want > c.server.opts.MaxBufferedBytes {
		return false
	}
	if want <= ownBytes+c.borrowed {
		return true
	}
	more := (want - ownBytes - c.borrowed + stepBytes - 1) / stepBytes * stepBytes
	if c.server.lent.Add(int64(more)) > c.server.opts.MaxBufferedTotal {
		c.server.lent.Add(-int64(more))
		return false
	}
	c.borrowed += more
	return true
}

// giveBack gives back the steps that are not needed any more.
func (c *conn) giveBack() {
	if spare := c.borrowed - max(c.buffered-ownBytes, 0); spare >= stepBytes {
		back := spare / stepBytes * stepBytes
		c.server.lent.Add(-int64(back))
		c.borrowed -= back
	}
}

// hold accounts for n more bytes that a stream keeps.
func (c *conn) hold(st *stream, n int) {
	st.buffered += n
	c.buffered += n
}

// tooMuch is the answer to a call for which there is no room.
var tooMuch = Status{Code: ResourceExhausted, Message: "too much is unfinished: requests, calls that wait, answers not taken"}
