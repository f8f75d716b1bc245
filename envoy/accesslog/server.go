package accesslog

import (
	"errors"
	"io"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
)

// Options are what a Server works with. All are required.
type Options struct {
	Upstreams *upstreams.Registry
	Clock     *limits.Clock
}

// Server implements alsv3.AccessLogServiceServer. It is safe for concurrent
// use.
type Server struct {
	alsv3.UnimplementedAccessLogServiceServer

	o Options
}

// New returns a Server.
func New(o Options) *Server { return &Server{o: o} }

// StreamAccessLogs implements alsv3.AccessLogServiceServer. Envoy has one
// stream for each of its workers, for as long as it runs.
func (s *Server) StreamAccessLogs(stream alsv3.AccessLogService_StreamAccessLogsServer) error {
	// The goroutine ends with the stream, at the latest when this returns.
	ended := make(chan error, 1)
	go func() {
		for {
			message, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			s.take(message)
		}
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, io.EOF) {
			return err
		}
	case <-stream.Context().Done(): // the server shuts down; Envoy begins another stream elsewhere
	}
	return stream.SendAndClose(&alsv3.StreamAccessLogsResponse{})
}

// take tells what the entries of a message say. The first message of a stream
// also describes the whole Envoy, which is of no interest.
func (s *Server) take(message *alsv3.StreamAccessLogsMessage) {
	now := s.o.Clock.Now()
	for _, entry := range message.GetHttpLogs().GetLogEntry() {
		answer, ok := readAnswer(entry)
		if !ok {
			continue
		}
		id := entry.GetCommonProperties().GetMetadata().GetFilterMetadata()["envoy.filters.http.ext_authz"].GetFields()["upstream"].GetStringValue()
		if u := s.o.Upstreams.Find(entry.GetRequest().GetAuthority(), id); u != nil {
			u.Observe(now, answer)
		}
	}
}

// readAnswer returns false for what is not the upstream's own answer.
func readAnswer(entry *datav3.HTTPAccessLogEntry) (upstreams.Answer, bool) {
	response := entry.GetResponse()
	// Envoy answers itself where the upstream cannot be reached or does not answer in time, and for ext_authz.
	if response.GetResponseCodeDetails() != "via_upstream" {
		return upstreams.Answer{}, false
	}
	headers := response.GetResponseHeaders()
	return upstreams.Answer{
		Status: int(response.GetResponseCode().GetValue()),
		Header: func(name string) string { return headers[name] },
		Source: "access-log",
	}, true
}
