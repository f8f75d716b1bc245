package envoy

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// fastBytes answers a method in bytes, in the goroutine that serves the
// connection. A request that would have to wait there is asked again in a
// goroutine where it can.
type fastBytes struct {
	server *Server
	method string
	handle BytesHandler
	counts *methodMetrics

	contexts sync.Pool // of *inlineContext
}

func newFastBytes(s *Server, method string, h BytesHandler) *fastBytes {
	m := &fastBytes{server: s, method: method, handle: h, counts: s.metrics.method(method)}
	inline := limits.WithoutWaiting(context.Background())
	m.contexts.New = func() any { return &inlineContext{Context: inline} }
	return m
}

// ServeUnary implements [fastgrpc.Handler].
func (m *fastBytes) ServeUnary(call *fastgrpc.Call, request, response []byte) ([]byte, fastgrpc.Status) {
	ctx := m.contexts.Get().(*inlineContext)
	ctx.call = call
	answer, err := m.decide(ctx, request, response)
	ctx.call = nil
	m.contexts.Put(ctx)
	if !errors.Is(err, limits.ErrWouldWait) {
		return answer, statusOf(err)
	}
	request, fields, received := bytes.Clone(request), kept(call), call.Received()
	return call.Wait(func(ctx context.Context, response []byte) ([]byte, fastgrpc.Status) {
		counts := m.counts.beginAt(received)
		answer, err := m.decide(metadata.NewIncomingContext(ctx, fields), request, response)
		counts.end(status.Code(err))
		return answer, statusOf(err)
	})
}

// Answered implements [fastgrpc.Counter].
func (m *fastBytes) Answered(calls int, code fastgrpc.Code, took time.Duration) {
	m.counts.add(uint64(calls), codes.Code(code), took)
}

func (m *fastBytes) decide(ctx context.Context, request, response []byte) (answer []byte, err error) {
	defer m.server.recovers(m.method, &err)
	return m.handle(ctx, request, response)
}

func statusOf(err error) fastgrpc.Status {
	if err != nil {
		return fastStatus(err)
	}
	return fastgrpc.Status{}
}

// inlineContext is the context of a call that is decided in line. It lasts as
// long as the call of the handler, and tells metadata and deadline only to those
// who ask, since most do not.
type inlineContext struct {
	context.Context
	call *fastgrpc.Call
}

// Deadline implements [context.Context].
func (c *inlineContext) Deadline() (time.Time, bool) { return c.call.Deadline() }

// Value implements [context.Context].
func (c *inlineContext) Value(key any) any {
	if key == (extauthz.MetadataKey{}) {
		return c.call
	}
	return c.Context.Value(key)
}

// keptFields are the fields of a call's metadata that handlers ask for.
var keptFields = []string{"traceparent", "tracestate", "x-client-ip"}

// kept is what outlives the call of its metadata.
func kept(call *fastgrpc.Call) metadata.MD {
	fields := metadata.MD{}
	for _, name := range keptFields {
		if value := call.Metadata(name); value != "" {
			fields[name] = []string{value}
		}
	}
	return fields
}
