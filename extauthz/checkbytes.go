package extauthz

import (
	"context"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// CheckBytes is [Server.Check] for a transport that hands requests and answers
// through as bytes: request is an encoded CheckRequest, and the encoded
// CheckResponse is appended to response. Where Envoy sends what it usually does,
// nothing is allocated. Both stay the caller's; request must not change before the return,
// and nothing refers to it afterwards. Beside the errors of Check, there is
// INTERNAL for a request that is no CheckRequest, as from grpc-go itself, and
// limits.ErrWouldWait under a context that must not wait.
func (s *Server) CheckBytes(ctx context.Context, request, response []byte) ([]byte, error) {
	w := s.works.Get().(*work)
	defer s.release(w)
	p, now := s.plan.Load(), s.clock.Now()
	ok, err := w.scanner.scan(ctx, p, &w.view, request)
	if !ok {
		var full authv3.CheckRequest
		if err := proto.Unmarshal(request, &full); err != nil {
			return response, status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
		}
		w.view.reset()
		err = w.view.read(ctx, p, &full)
	}
	if err := s.settle(ctx, p, now, w, err); err != nil {
		return response, err
	}
	return w.answer.appendTo(response, &w.verdict), nil
}
