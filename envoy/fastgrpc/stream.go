package fastgrpc

import (
	"context"
	"encoding/binary"
	"time"

	"golang.org/x/net/http2/hpack"
)

// streamState is where an open stream stands. Idle and closed streams
// (RFC 9113, section 5.1) are not kept: a stream that no map holds is closed
// if its number is at most conn.lastStream, else idle.
type streamState uint8

const (
	receiving streamState = iota // open: the request is not complete
	waiting                      // half-closed: a waiting goroutine has it
	sending                      // half-closed: flow control holds back its answer
	abandoned                    // reset by the client while waiting, and counted until its goroutine returns
)

// A stream is one call. Finished ones are reused by their connection.
type stream struct {
	id    uint32
	state streamState
	path  string
	// deadline is zero if the client set none.
	deadline time.Time
	// expires is when a stream that is receiving or sending is given up.
	expires time.Time
	fields  []hpack.HeaderField // the call's metadata
	handler Handler
	cancel  context.CancelFunc // of a waiting stream

	contentLength int64 // -1: not said
	received      int64 // payload bytes of DATA
	recvWindow    int64 // what the client may still send
	sendWindow    int64 // what may still be sent; negative after a SETTINGS change
	buffered      int   // what it holds of conn.buffered
	body          []byte
	pending       []byte // of a sending stream: what is left of its DATA
}

// reset makes a used stream ready for the next call, with its buffers.
func (s *stream) reset() {
	clear(s.fields) // so that the strings can go
	*s = stream{fields: s.fields[:0], body: s.body[:0]}
}

// room is how much memory a finished stream takes.
func (s *stream) room() int {
	const field = 40 // bytes of a hpack.HeaderField
	return streamBytes + cap(s.body) + field*cap(s.fields)
}

// messagePrefix is the length of what precedes a message: a byte that says
// whether it is compressed, and four of length (gRPC over HTTP/2,
// "Length-Prefixed-Message").
const messagePrefix = 5

// checkBody says what is wrong with a request's body so far, if anything is,
// and whether it is one whole message.
func checkBody(body []byte, maxMessage int) (whole bool, status Status) {
	if len(body) < messagePrefix {
		return false, Status{}
	}
	length := int64(binary.BigEndian.Uint32(body[1:messagePrefix]))
	have := int64(len(body) - messagePrefix)
	switch {
	case length > int64(maxMessage):
		return false, statusf(ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", length, maxMessage)
	case body[0] == 1: // whoever names an encoding has been refused before
		return false, Status{Code: Internal, Message: "compressed flag set with identity or empty grpc-encoding"}
	case body[0] > 1:
		return false, statusf(Internal, "unexpected payload format %d", body[0])
	case have > length:
		return false, Status{Code: Internal, Message: "received more than one request message"}
	}
	return have == length, Status{}
}
