package main

import (
	"net"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

func TestRefusalsAreTold(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(int, uint64) (messages, error)
		answer proto.Message
		want   bool
	}{
		{"check ok", newCheck, &authv3.CheckResponse{Status: &rpcstatus.Status{}}, false},
		{"check denied", newCheck, &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 8}}, true},
		{"rate limit ok", newRateLimit, &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, false},
		{"rate limit over", newRateLimit, &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OVER_LIMIT}, true},
	} {
		m, err := c.make(1000, 1)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := proto.Marshal(c.answer)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.refused(encoded); got != c.want {
			t.Errorf("%s: refused = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestMessagesCarryTheTokens(t *testing.T) {
	m, err := newCheck(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 100 {
		var request authv3.CheckRequest
		if err := proto.Unmarshal(m.next(), &request); err != nil {
			t.Fatal(err)
		}
		seen[request.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"]] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 requests carried %d tokens of 1000", len(seen))
	}
}

// TestDriveCountsWhatTheFloorAnswers drives a real server in both loops.
func TestDriveCountsWhatTheFloorAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newFloor()
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	for _, l := range []load{
		{Connections: 2, Streams: 3, Warm: 10 * time.Millisecond, Run: 200 * time.Millisecond},
		{Connections: 2, Rate: 500, Warm: 10 * time.Millisecond, Run: 200 * time.Millisecond},
	} {
		calls := 0
		r, err := drive(listener.Addr().String(), checkPath, l, func(i int) messages {
			m, err := newCheck(10, uint64(i))
			if err != nil {
				t.Fatal(err)
			}
			return m
		}, func() { calls++ })
		if err != nil {
			t.Fatalf("%v: %v", l, err)
		}
		if r.Answered == 0 || r.Failed != 0 || r.Refused != 0 || r.Latency.TotalCount() != r.Answered || calls != 2 {
			t.Errorf("%v: answered %d, failed %d, refused %d, timed %d, measured %d times", l, r.Answered, r.Failed, r.Refused, r.Latency.TotalCount(), calls)
		}
	}
}
