package ratelimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// Options are what a Server decides with. All that need not be there say so.
type Options struct {
	Book     *descriptors.Book
	Registry *consumers.Registry
	Queue    *limits.Queue // holds requests of limits with a max_wait
	Shared   limits.Taker  // decides where instances share limits; nil: this one counts for itself
	Clock    *limits.Clock
	Observer extauthz.Observer // nil: nobody is told
	Traced   bool              // tell the Observer the trace of each request, not only of refused ones
	Stats    *Stats            // nil: none
	Random   func() float64    // draws from [0,1) for Retry-After, from many goroutines; nil: math/rand/v2
}

// Server is a rate limit service. All methods are safe for concurrent use.
type Server struct {
	rlsv3.UnimplementedRateLimitServiceServer

	o       Options
	policy  atomic.Pointer[Policy]
	unknown atomic.Uint64
	pool    sync.Pool // of *decision
}

// New returns a server under the given policy.
func New(o Options, p Policy) *Server {
	s := &Server{o: o}
	if s.o.Random == nil {
		s.o.Random = rand.Float64
	}
	s.pool.New = func() any { return &decision{reply: new(extauthz.Reply)} }
	s.SetPolicy(p)
	return s
}

// SetPolicy puts a policy in force with the next decision.
func (s *Server) SetPolicy(p Policy) { s.policy.Store(&p) }

// UnknownDomains returns how many requests named a domain that has no rules,
// and no caller whose own limits could count.
func (s *Server) UnknownDomains() uint64 { return s.unknown.Load() }

// ShouldRateLimit implements the API. An error means that nothing was decided
// and nothing taken; it is INVALID_ARGUMENT for what cannot be meant, and the
// context's for a caller that has left.
func (s *Server) ShouldRateLimit(ctx context.Context, r *rlsv3.RateLimitRequest) (_ *rlsv3.RateLimitResponse, err error) {
	d := s.begin()
	defer func() { s.end(d, err) }()
	d.read(r)
	if err = s.settle(ctx, d); err != nil {
		return nil, err
	}
	return d.response(), nil
}

// ShouldRateLimitBytes is ShouldRateLimit for a transport that hands requests
// and answers through as bytes: request is an encoded RateLimitRequest, and the
// encoded RateLimitResponse is appended to response. Nothing is allocated but
// for metadata in answers. Both stay the caller's; request must not change before
// the return, and nothing refers to it afterwards. Beside the errors of
// ShouldRateLimit, there is INTERNAL for a request that is no RateLimitRequest,
// as from grpc-go itself, and limits.ErrWouldWait under a context that must not
// wait.
func (s *Server) ShouldRateLimitBytes(ctx context.Context, request, response []byte) (_ []byte, err error) {
	d := s.begin()
	defer func() { s.end(d, err) }()
	if !d.scan(request) {
		var full rlsv3.RateLimitRequest
		if err := proto.Unmarshal(request, &full); err != nil {
			return response, status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
		}
		d.forget()
		d.read(&full)
	}
	if err = s.settle(ctx, d); err != nil {
		return response, err
	}
	return d.appendTo(response), nil
}

// settle decides about the request that was read into d, tells whoever wants to
// know, and composes the answer.
func (s *Server) settle(ctx context.Context, d *decision) error {
	if d.policy.Waiting {
		s.tell(ctx, d, extauthz.Failed)
		return status.Error(codes.Unavailable, "no rate limit configuration loaded: waiting for the first rules or for the consumers")
	}
	if err := d.complete(); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	switch err := d.decide(ctx); {
	case errors.Is(err, limits.ErrWouldWait):
		return err // to be asked again
	case err != nil:
		s.tell(ctx, d, extauthz.Failed)
		return contextStatus(err)
	}
	s.tell(ctx, d, d.outcome())
	if s.o.Observer != nil {
		d.tally()
	}
	if s.o.Stats != nil {
		s.o.Stats.count(d)
	}
	d.conclude()
	return nil
}

func (s *Server) begin() *decision {
	d := s.pool.Get().(*decision)
	d.server, d.policy, d.now, d.deciding = s, s.policy.Load(), s.o.Clock.Now(), -1
	d.began = d.now
	return d
}

// end counts a call that is over, and gives its memory back.
func (s *Server) end(d *decision, err error) {
	if s.o.Stats != nil && !errors.Is(err, limits.ErrWouldWait) {
		s.o.Stats.called(s.o.Clock.Now().Sub(d.began), err)
	}
	if cap(d.parts) > keepRoom || cap(d.entries) > 8*keepRoom {
		return
	}
	d.clear()
	s.pool.Put(d)
}

// keepRoom bounds what a pooled decision may hold on to.
const keepRoom = 64

// contextStatus turns the error of a caller that has left into a status.
func contextStatus(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}
