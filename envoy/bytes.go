package envoy

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// BytesHandler answers a unary call in the encoding of its messages: it appends
// the answer to response and returns it. It must not change request, nor keep
// either or the context after it returns. The error is the call's status, or, under a context
// of limits.WithoutWaiting, limits.ErrWouldWait.
type BytesHandler func(ctx context.Context, request, response []byte) ([]byte, error)

// RegisterBytes registers a service of which h answers one unary method, in
// bytes, and impl the others.
func (s *Server) RegisterBytes(d grpc.ServiceDesc, impl any, method string, h BytesHandler) {
	d.Methods = slices.Clone(d.Methods)
	s.inBytes["/"+d.ServiceName+"/"+method] = h
	for i := range d.Methods {
		if d.Methods[i].MethodName == method {
			d.Methods[i].Handler = h.method(&grpc.UnaryServerInfo{Server: impl, FullMethod: "/" + d.ServiceName + "/" + method})
		}
	}
	s.RegisterService(&d, impl)
}

// encodedRequest and encodedResponse are the messages of such a method. The
// codec, which knows them, hands the bytes over.
type (
	encodedRequest  struct{ mem.Buffer }
	encodedResponse struct{ pooled *[]byte } // from mem.DefaultBufferPool
)

// usualAnswer has room for the headers of a few limits. The smallest buffers
// that grpc-go returns to its pool are a little over 1 KiB.
const usualAnswer = 2 << 10

// method makes h what calls a method.
func (h BytesHandler) method(info *grpc.UnaryServerInfo) grpc.MethodHandler {
	handle := func(ctx context.Context, req any) (any, error) {
		out := mem.DefaultBufferPool().Get(usualAnswer)
		b, err := h(ctx, req.(*encodedRequest).ReadOnlyData(), (*out)[:0])
		if err != nil {
			mem.DefaultBufferPool().Put(out)
			return nil, err
		}
		*out = b
		return encodedResponse{out}, nil
	}
	return func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		var req encodedRequest
		if err := decode(&req); err != nil {
			return nil, err
		}
		defer req.Free()
		return intercept(ctx, &req, info, handle)
	}
}

// codec is grpc-go's for protobuf, and hands bytes through to a BytesHandler.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements [encoding.CodecV2]. The buffer goes back to its pool when
// grpc-go has written it.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(encodedResponse); ok {
		return mem.BufferSlice{mem.NewBuffer(r.pooled, mem.DefaultBufferPool())}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*encodedRequest); ok {
		r.Buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
