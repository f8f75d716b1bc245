package extproc

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// Options are what a Server works with.
type Options struct {
	Upstreams *upstreams.Registry // required
	Clock     *limits.Clock       // required

	// MaxStreams bounds how many answers are looked at at once; those beyond
	// pass unseen. 0 means 16384.
	MaxStreams int64
	// Patience is how long Envoy may take to send what it was asked for, and
	// with it the end of the server may wait. 0 means ten seconds.
	Patience time.Duration
}

// Server implements extprocv3.ExternalProcessorServer. It is safe for
// concurrent use.
type Server struct {
	extprocv3.UnimplementedExternalProcessorServer

	o       Options
	streams atomic.Int64
}

// New returns a Server.
func New(o Options) *Server {
	if o.MaxStreams == 0 {
		o.MaxStreams = 16 << 10
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	return &Server{o: o}
}

// errPassed ends a stream whose answer is of no interest any more. To Envoy
// that is a good end, after which it asks nothing further.
var errPassed = errors.New("nothing more to look at")

// Process implements extprocv3.ExternalProcessorServer for one answer of an
// upstream.
func (s *Server) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	if s.streams.Add(1) > s.o.MaxStreams {
		s.streams.Add(-1)
		return nil
	}
	defer s.streams.Add(-1)
	switch err := s.process(stream); {
	case errors.Is(err, io.EOF), errors.Is(err, errPassed):
		return nil
	default:
		return err
	}
}

func (s *Server) process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	req, err := s.receive(stream)
	if err != nil {
		return err
	}
	a, ok := readAnswer(req)
	if !ok {
		return errPassed
	}
	upstream := s.o.Upstreams.Find(a.host, a.upstream)
	if upstream == nil {
		return errPassed
	}
	if a.complete || !upstream.WantsBody(a.status) {
		upstream.Observe(s.o.Clock.Now(), a.observed(nil))
		return errPassed
	}
	if err := stream.Send(askForBody(a.length)); err != nil {
		return err
	}
	// Without the body the status and the headers count all the same.
	body := req
	if body, err = s.receive(stream); err != nil {
		body = nil
	}
	upstream.Observe(s.o.Clock.Now(), a.observed(body.GetResponseBody().GetBody()))
	return err
}

// receive waits for Envoy's next message, but not for ever: an upstream may
// begin an answer and never end it. The end of the server is no reason to leave
// an answer unseen, and so its context is not looked at; that Envoy has gone
// Recv says itself.
func (s *Server) receive(stream extprocv3.ExternalProcessor_ProcessServer) (*extprocv3.ProcessingRequest, error) {
	type received struct {
		req *extprocv3.ProcessingRequest
		err error
	}
	// The goroutine ends with the stream, at the latest when Process returns.
	got := make(chan received, 1)
	go func() {
		req, err := stream.Recv()
		got <- received{req, err}
	}()
	patience := time.NewTimer(s.o.Patience)
	defer patience.Stop()
	select {
	case r := <-got:
		return r.req, r.err
	case <-patience.C:
		return nil, errPassed
	}
}
