package fastgrpc

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// A Handler answers the calls of one unary method.
type Handler interface {
	// ServeUnary decides one call. It appends its encoded answer to
	// response, which is empty, and returns it with the call's status; what
	// it returned with a status other than OK is not sent.
	//
	// It runs in the goroutine that serves the connection: everybody on that
	// connection waits for it, so it must not block. A call that has to wait
	// returns what Call.Wait returns. Several connections call one Handler at
	// the same time.
	//
	// The call, request and response belong to the connection and must not
	// be kept after the return; strings got from the call may be.
	ServeUnary(call *Call, request, response []byte) ([]byte, Status)
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(call *Call, request, response []byte) ([]byte, Status)

// ServeUnary calls f.
func (f HandlerFunc) ServeUnary(call *Call, request, response []byte) ([]byte, Status) {
	return f(call, request, response)
}

// A Counter is a Handler that counts its calls.
type Counter interface {
	Handler
	// Answered is told of calls that ended in the same way and whose answers
	// are written together, right before they are: how long they took since
	// they were received. Calls that wait (Call.Wait) are not among them.
	// Several goroutines call it at the same time.
	Answered(calls int, code Code, took time.Duration)
}

// A WaitFunc answers, in a goroutine of its own, a call that had to wait. It
// appends to response and returns as Handler.ServeUnary does, and owns nothing
// afterwards. The context ends when the call's deadline passes, when the
// client cancels it and when the connection goes: nobody will read the answer
// then, so it should give back what it took and return soon.
type WaitFunc func(ctx context.Context, response []byte) ([]byte, Status)

// A Call is what a Handler may ask about the call it serves. It is valid until
// ServeUnary returns.
type Call struct {
	conn   *conn
	stream *stream
	wait   WaitFunc
}

// Method is the call's full name, as "/grpc.health.v1.Health/Check".
func (c *Call) Method() string { return c.stream.path }

// Received is when the bytes of the call were read; never, of the zero Call.
func (c *Call) Received() time.Time {
	if c.conn == nil {
		return time.Time{}
	}
	return c.conn.now
}

// Deadline is when the client stops waiting; ok is false if it set no
// grpc-timeout.
func (c *Call) Deadline() (deadline time.Time, ok bool) {
	return c.stream.deadline, !c.stream.deadline.IsZero()
}

// Metadata is the first value of a field of the call's metadata, or "". The
// name is in lower case. Values of "-bin" fields are still in base64. The
// fields that gRPC itself uses (content-type, te, grpc-timeout, grpc-encoding)
// are not among them.
func (c *Call) Metadata(name string) string {
	for i := range c.stream.fields {
		if c.stream.fields[i].Name == name {
			return c.stream.fields[i].Value
		}
	}
	return ""
}

// RemoteAddr is the address of the connection's other end, which is Envoy's.
func (c *Call) RemoteAddr() net.Addr { return c.conn.nc.RemoteAddr() }

// TLS is the state of the connection's TLS, nil on a plaintext one. It must
// not be modified.
func (c *Call) TLS() *tls.ConnectionState { return c.conn.tls }

// Wait has the call answered by finish in one of the server's waiting
// goroutines, and its result is what ServeUnary then returns:
//
//	return call.Wait(func(ctx context.Context, response []byte) ([]byte, Status) { … })
//
// If all Options.MaxWaiting of them are busy, the call fails with UNAVAILABLE
// and finish is never run; so nothing may have been taken yet that only finish
// gives back.
func (c *Call) Wait(finish WaitFunc) ([]byte, Status) {
	c.wait = finish
	return nil, Status{}
}
