package ratelimit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// Options are what a Server decides with. All but Observer are required.
type Options struct {
	Book     *descriptors.Book
	Registry *consumers.Registry
	Queue    *limits.Queue // holds requests of limits with a max_wait
	Clock    *limits.Clock
	Observer extauthz.Observer // nil: nobody is told
	Stats    *Stats            // nil: none
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
	s.pool.New = func() any { return new(decision) }
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
func (s *Server) ShouldRateLimit(ctx context.Context, r *rlsv3.RateLimitRequest) (response *rlsv3.RateLimitResponse, err error) {
	start := s.o.Clock.Now()
	if s.o.Stats != nil {
		defer func() { s.o.Stats.called(time.Duration(s.o.Clock.Now()-start), err) }()
	}
	d := s.pool.Get().(*decision)
	defer s.release(d)
	d.start(s, start)
	if d.policy.Waiting {
		s.tell(ctx, r, d, extauthz.Failed)
		return nil, status.Error(codes.Unavailable, "no rate limit configuration loaded: waiting for the first rules")
	}
	if err := d.read(r); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := d.decide(ctx); err != nil {
		s.tell(ctx, r, d, extauthz.Failed)
		return nil, contextStatus(err)
	}
	s.tell(ctx, r, d, d.outcome())
	if s.o.Stats != nil {
		s.o.Stats.count(d)
	}
	return d.answer(), nil
}

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

// keepRoom bounds what a pooled decision may hold on to.
const keepRoom = 64

func (s *Server) release(d *decision) {
	if cap(d.parts) > keepRoom || cap(d.entries) > 8*keepRoom {
		return
	}
	d.clear()
	s.pool.Put(d)
}
