package extauthz

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// Options are what a Server decides with.
type Options struct {
	Registry  *consumers.Registry // required
	Book      *descriptors.Book   // required
	Upstreams *upstreams.Registry // where requests may lead out to; nil: nowhere
	Clock     *limits.Clock       // required
	Queue     *limits.Queue       // holds requests; nil: none is held, whatever its limits say
	Shared    limits.Taker        // decides where instances share limits; nil: this one counts for itself
	Observer  Observer            // nil: nobody is told
	Traced    bool                // tell the Observer the trace of each request, not only of refused ones
	Random    func() float64      // draws from [0,1) for Retry-After, from many goroutines; nil: math/rand/v2
}

// Server answers Envoy's authorization calls. It implements
// authv3.AuthorizationServer. All methods are safe for concurrent use.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	registry  *consumers.Registry
	book      *descriptors.Book
	upstreams *upstreams.Registry
	clock     *limits.Clock
	queue     *limits.Queue
	shared    limits.Taker
	observer  Observer
	traced    bool
	random    func() float64

	plan  atomic.Pointer[plan]
	works sync.Pool // of *work
}

// New returns a Server that decides by the given policy.
func New(o Options, p *Policy) *Server {
	s := &Server{registry: o.Registry, book: o.Book, upstreams: o.Upstreams, clock: o.Clock, queue: o.Queue, shared: o.Shared, observer: o.Observer, traced: o.Traced, random: o.Random}
	if s.random == nil {
		s.random = rand.Float64
	}
	s.works.New = func() any { return new(work) }
	s.SetPolicy(p)
	return s
}

// SetPolicy puts a policy in force, whole: a decision sees all of it or nothing.
func (s *Server) SetPolicy(p *Policy) { s.plan.Store(newPlan(p)) }

// work is the memory of one call.
type work struct {
	view    View
	scanner scanner
	verdict Verdict
	answer  answer
	event   Event
}

// maxKept bounds the text that a work keeps between calls.
const maxKept = 64 << 10

// release gives w back without what it holds of the request.
func (s *Server) release(w *work) {
	w.view.reset()
	w.scanner = scanner{}
	w.verdict.reset()
	w.event = Event{}
	if cap(w.answer.text) > maxKept {
		w.answer = answer{}
	}
	s.works.Put(w)
}
