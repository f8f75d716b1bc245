package ratelimit_test

import (
	"testing"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
)

// FuzzShouldRateLimit: any request is answered, with a status for each
// descriptor, or is INVALID_ARGUMENT.
func FuzzShouldRateLimit(f *testing.F) {
	for _, text := range []string{"shop 1 user=a tight=x", "shop 0 user=a|hits=0", "shop 1 user=a|hits=-9 qa=x qb=x",
		"shop 4294967295 user=a|limit=1/MINUTE*4294967295", "x 1 consumer=a,token=b token=Bearer+x", "shop 1 user=a|limit=0/UNKNOWN"} {
		b, err := proto.Marshal(request(f, text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := start(f, rules, ratelimit.Policy{Metadata: true, CountRefused: true})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r rlsv3.RateLimitRequest
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		s.events = s.events[:0]
		answer, err := s.ShouldRateLimit(t.Context(), &r)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%v", err)
			}
			return
		}
		if got, want := len(answer.GetStatuses()), len(r.GetDescriptors()); got != want {
			t.Errorf("%d statuses for %d descriptors", got, want)
		}
		if answer.GetOverallCode() == rlsv3.RateLimitResponse_UNKNOWN {
			t.Error("overall code UNKNOWN, which lets everything through")
		}
		if _, err := proto.Marshal(answer); err != nil {
			t.Error(err)
		}
	})
}
