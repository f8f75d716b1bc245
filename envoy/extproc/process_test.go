package extproc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/envoy/extproc"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// fakeStream is what Envoy says on a stream, and what it is told.
type fakeStream struct {
	grpc.ServerStream
	ctx      context.Context
	requests chan *extprocv3.ProcessingRequest // closed: Envoy has nothing more to say
	answers  []*extprocv3.ProcessingResponse
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Recv() (*extprocv3.ProcessingRequest, error) {
	select {
	case r, ok := <-s.requests:
		if !ok {
			return nil, io.EOF
		}
		return r, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *fakeStream) Send(r *extprocv3.ProcessingResponse) error {
	s.answers = append(s.answers, r)
	return nil
}

// newStream returns a stream on which Envoy has said all that it will.
func newStream(t *testing.T, requests ...*extprocv3.ProcessingRequest) *fakeStream {
	s := &fakeStream{ctx: t.Context(), requests: make(chan *extprocv3.ProcessingRequest, len(requests))}
	for _, r := range requests {
		s.requests <- r
	}
	return s
}

// headers is Envoy's message about the headers of an answer; pairs are header
// names and values, and attributes where they begin with @.
func headers(upstream string, end bool, pairs ...string) *extprocv3.ProcessingRequest {
	attributes, list := map[string]*structpb.Value{}, []*corev3.HeaderValue{}
	for i := 0; i < len(pairs); i += 2 {
		if name, ok := strings.CutPrefix(pairs[i], "@"); ok {
			attributes[name] = structpb.NewStringValue(pairs[i+1])
			continue
		}
		list = append(list, &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
	}
	return &extprocv3.ProcessingRequest{
		Request: &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: &extprocv3.HttpHeaders{Headers: &corev3.HeaderMap{Headers: list}, EndOfStream: end}},
		MetadataContext: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"envoy.filters.http.ext_authz": {Fields: map[string]*structpb.Value{"upstream": structpb.NewStringValue(upstream)}}}},
		Attributes: map[string]*structpb.Struct{"envoy.filters.http.ext_proc": {Fields: attributes}},
	}
}

func body(text string) *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: &extprocv3.HttpBody{Body: []byte(text), EndOfStream: true}}}
}

func keeper(t *testing.T) (*upstreams.Registry, *limits.Clock) {
	clock := limits.NewClock()
	r := upstreams.New(upstreams.Options{Clock: clock})
	r.Configure([]*upstreams.Config{{ID: "keeper", Hosts: []string{"*.keeper.example"}, Signals: []upstreams.Signal{{Status: 429}, {Status: 403, Body: "throttled"}, {Status: 503, Header: "retry-after"}}}})
	t.Cleanup(func() { _ = r.Close() })
	return r, clock
}

func TestProcess(t *testing.T) {
	for _, c := range []struct {
		name     string
		requests []*extprocv3.ProcessingRequest
		asks     extprocfilterv3.ProcessingMode_BodySendMode // for the body; NONE: not at all
		state    upstreams.State
		seen     int64 // answers that count
	}{
		{"bare, by id", []*extprocv3.ProcessingRequest{headers("keeper", true, ":status", "429")}, 0, upstreams.Frozen, 1},
		{"by host", []*extprocv3.ProcessingRequest{headers("", true, ":status", "429", "@request.host", "EU.keeper.example:443")}, 0, upstreams.Frozen, 1},
		{"another host", []*extprocv3.ProcessingRequest{headers("", true, ":status", "429", "@request.host", "keeper.example")}, 0, upstreams.Open, 0},
		{"an upstream that is gone", []*extprocv3.ProcessingRequest{headers("gone", true, ":status", "429", "@request.host", "eu.keeper.example")}, 0, upstreams.Open, 0},
		{"the upstream's", []*extprocv3.ProcessingRequest{headers("keeper", true, ":status", "429", "@response.code_details", "via_upstream")}, 0, upstreams.Frozen, 1},
		{"Envoy's own", []*extprocv3.ProcessingRequest{headers("keeper", true, ":status", "503", "retry-after", "1", "@response.code_details", "upstream_reset_before_response_started")}, 0, upstreams.Open, 0},
		{"Tollgate's own", []*extprocv3.ProcessingRequest{headers("keeper", true, ":status", "429", "x-tollgate-reason", "upstream-pressure")}, 0, upstreams.Open, 0},
		{"short body", []*extprocv3.ProcessingRequest{headers("keeper", false, ":status", "403", "content-length", "9"), body("throttled")}, extprocfilterv3.ProcessingMode_BUFFERED, upstreams.Frozen, 1},
		{"long body", []*extprocv3.ProcessingRequest{headers("keeper", false, ":status", "403", "content-length", "99999"), body("throttled")}, extprocfilterv3.ProcessingMode_BUFFERED_PARTIAL, upstreams.Frozen, 1},
		{"body of any length", []*extprocv3.ProcessingRequest{headers("keeper", false, ":status", "403"), body("denied")}, extprocfilterv3.ProcessingMode_BUFFERED_PARTIAL, upstreams.Open, 1},
		{"a status of which no body matters", []*extprocv3.ProcessingRequest{headers("keeper", false, ":status", "200")}, 0, upstreams.Open, 1},
		{"no status", []*extprocv3.ProcessingRequest{headers("keeper", true, "retry-after", "1")}, 0, upstreams.Open, 0},
		{"no headers", []*extprocv3.ProcessingRequest{body("throttled")}, 0, upstreams.Open, 0},
		{"an empty message", []*extprocv3.ProcessingRequest{{}}, 0, upstreams.Open, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			registry, clock := keeper(t)
			stream := newStream(t, c.requests...)
			if err := extproc.New(extproc.Options{Upstreams: registry, Clock: clock}).Process(stream); err != nil {
				t.Errorf("Process = %v, want a good end", err)
			}
			status := registry.ByID("keeper").Status(clock.Now())
			if seen := status.Counts.Taken + status.Counts.Refused + status.Counts.Failed; status.State != c.state || seen != c.seen {
				t.Errorf("%s after %d answers, want %s after %d", status.State, seen, c.state, c.seen)
			}
			var asked extprocfilterv3.ProcessingMode_BodySendMode
			for _, a := range stream.answers {
				asked = a.GetModeOverride().GetResponseBodyMode()
				if a.GetImmediateResponse() != nil || a.GetResponseHeaders().GetResponse().GetHeaderMutation() != nil {
					t.Errorf("answered %v, which changes the upstream's answer", a)
				}
			}
			if asked != c.asks || len(stream.answers) > 1 {
				t.Errorf("%d answers, asked for the body as %v, want %v", len(stream.answers), asked, c.asks)
			}
		})
	}
}

// TestEnvoyThatLeaves: what is known without the body counts.
func TestEnvoyThatLeaves(t *testing.T) {
	registry, clock := keeper(t)
	stream := newStream(t, headers("keeper", false, ":status", "429"))
	close(stream.requests)
	if err := extproc.New(extproc.Options{Upstreams: registry, Clock: clock}).Process(stream); err != nil {
		t.Errorf("Process = %v, want a good end", err)
	}
	if s := registry.ByID("keeper").Status(clock.Now()); s.State != upstreams.Frozen {
		t.Errorf("%s, want frozen", s.State)
	}
}

// TestPatience: a body that never comes ends the stream after a while.
func TestPatience(t *testing.T) {
	for name, c := range map[string]struct {
		requests []*extprocv3.ProcessingRequest
		leave    time.Duration // when Envoy goes; 0: never
		want     time.Duration
	}{
		"no body":        {[]*extprocv3.ProcessingRequest{headers("keeper", false, ":status", "403")}, 0, 10 * time.Second},
		"nothing at all": {nil, 0, 10 * time.Second},
		"Envoy goes":     {nil, time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry, clock := keeper(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel() // as grpc-go when Process returns
				if c.leave > 0 {
					time.AfterFunc(c.leave, cancel)
				}
				stream := newStream(t, c.requests...)
				stream.ctx = ctx
				began := time.Now()
				err := extproc.New(extproc.Options{Upstreams: registry, Clock: clock}).Process(stream)
				if took := time.Since(began); took != c.want || err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("Process = %v after %v, want a good end after %v", err, took, c.want)
				}
			})
		})
	}
}

// TestStreamsAreBounded: more streams than allowed pass at once.
func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry, clock := keeper(t)
		s := extproc.New(extproc.Options{Upstreams: registry, Clock: clock, MaxStreams: 2})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 3)
		for range 3 {
			stream := newStream(t)
			stream.ctx = ctx
			go func() { ended <- s.Process(stream) }()
		}
		synctest.Wait()
		if len(ended) != 1 {
			t.Errorf("%d streams ended at once, want the one too many", len(ended))
		}
		cancel()
		synctest.Wait()
		if err := s.Process(newStream(t, headers("keeper", true, ":status", "429"))); err != nil || registry.ByID("keeper").Status(clock.Now()).State != upstreams.Frozen {
			t.Errorf("afterwards: %v, want it looked at", err)
		}
	})
}
