package extproc_test

import (
	"testing"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/envoy/extproc"
)

// FuzzProcess: whatever is sent, the stream has a good end, and at most the body
// is asked for.
func FuzzProcess(f *testing.F) {
	for _, r := range []*extprocv3.ProcessingRequest{
		headers("keeper", true, ":status", "429", "@response.code_details", "via_upstream"),
		headers("", false, ":status", "403", "content-length", "-1", "content-encoding", "gzip", "@request.host", "[::1]:x"),
		headers("keeper", false, ":status", "99999999999999999999", "retry-after", "Thu, 01 Jan 1970"), {},
	} {
		first, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		second, err := proto.Marshal(body(zipped(throttled)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(first, second)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var requests [2]extprocv3.ProcessingRequest
		if proto.Unmarshal(first, &requests[0]) != nil || proto.Unmarshal(second, &requests[1]) != nil {
			return
		}
		registry, clock := keeper(t)
		stream := newStream(t, &requests[0], &requests[1])
		if err := extproc.New(extproc.Options{Upstreams: registry, Clock: clock}).Process(stream); err != nil {
			t.Errorf("Process = %v, want a good end", err)
		}
		if len(stream.answers) > 1 {
			t.Errorf("%d answers, want one at most", len(stream.answers))
		}
		for _, a := range stream.answers {
			if length := int64(-1); !proto.Equal(a, extproc.AskForBody(length)) && !proto.Equal(a, extproc.AskForBody(0)) {
				t.Errorf("answered %v, want nothing but a question for the body", a)
			}
		}
	})
}

// FuzzReadBody: what is read is bounded, whatever a body says of itself.
func FuzzReadBody(f *testing.F) {
	f.Add([]byte(zipped(throttled)), "gzip")
	f.Add([]byte(throttled), " X-GZIP ")
	f.Add([]byte(throttled), "br")
	f.Fuzz(func(t *testing.T, body []byte, encoding string) {
		if n := len(extproc.ReadBody(body, encoding)); n > 64<<10 {
			t.Errorf("%d bytes", n)
		}
	})
}
