package ratelimit_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/extauthz/wire/wiretest"
	"github.com/tollgate-dev/tollgate/limits"
)

// twins are two services that are asked the same, one in messages and one in
// bytes. Start them in a bubble, where the clock stands still.
type twins struct{ messages, bytes *service }

func startTwins(t testing.TB, p ratelimit.Policy) twins {
	one := func() *service {
		s := start(t, rules, p)
		s.options.Random = func() float64 { return 0.5 }
		s.Server = ratelimit.New(s.options, p)
		err := s.registry.Put(s.clock.Now(), consumers.Consumer{
			ID: "a", Tokens: []consumers.Token{{ID: "b", Hash: consumers.HashOf("x")}},
			Limits: consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: 2, Period: 1, Name: "own"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return twins{one(), one()}
}

// ask decides about an encoded request both ways. Whatever there is must be the
// same: the answer, the class of the error, and what the Observer is told.
func (w twins) ask(t testing.TB, data []byte) {
	t.Helper()
	var r rlsv3.RateLimitRequest
	var want *rlsv3.RateLimitResponse
	wantErr := status.Error(codes.Internal, "")
	if proto.Unmarshal(data, &r) == nil {
		want, wantErr = w.messages.Server.ShouldRateLimit(t.Context(), &r)
	}
	got, err := w.bytes.inBytes(t.Context(), bytes.Clone(data))
	if status.Code(err) != status.Code(wantErr) || wantErr != nil && status.Code(wantErr) != codes.Internal && err.Error() != wantErr.Error() {
		t.Fatalf("%x in bytes: %v, in messages: %v", data, err, wantErr)
	}
	if !proto.Equal(want, got) {
		t.Fatalf("answers to %x (-messages +bytes):\n%s", data, cmp.Diff(want, got, protocmp.Transform()))
	}
	compare := cmp.Comparer(func(a, b *limits.Spec) bool { return (a == nil) == (b == nil) && (a == nil || a.Limit() == b.Limit()) })
	if d := cmp.Diff(w.messages.events, w.bytes.events, compare, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("events of %x (-messages +bytes):\n%s", data, d)
	}
	w.messages.events, w.bytes.events = w.messages.events[:0], w.bytes.events[:0]
	if err != nil {
		if c := status.Code(err); c != codes.InvalidArgument && c != codes.Internal {
			t.Fatalf("%x: %v, want an answer, INVALID_ARGUMENT or INTERNAL", data, err)
		}
		return
	}
	if statuses, asked := len(got.GetStatuses()), len(r.GetDescriptors()); statuses != asked {
		t.Fatalf("%d statuses for %d descriptors of %x", statuses, asked, data)
	}
	if got.GetOverallCode() == rlsv3.RateLimitResponse_UNKNOWN {
		t.Fatalf("overall code UNKNOWN of %x, which lets everything through", data)
	}
}

// several are requests that have all that a request can have.
var several = []string{
	"shop 1 user=a tight=x", "shop 0 user=a|hits=0", "shop 1 user=a|hits=-9 qa=x qb=x", "shop 7 path=/ user=ä+ö watched=x,y=z",
	"shop 4294967295 user=a|limit=1/MINUTE*4294967295", "x 1 consumer=a,token=b token=Bearer+x consumer=a", "shop 1 user=a|limit=0/UNKNOWN",
	"shop 2 user=b|limit=5/SECOND*30|hits=3 blocked=x", "shop 1 user=", "shop 1",
}

func seeds(tb testing.TB) (all [][]byte) {
	for _, text := range several {
		all = append(all, encoded(tb, text))
	}
	return all
}

// FuzzShouldRateLimit: any request is answered, with a status for each
// descriptor, or is INVALID_ARGUMENT or INTERNAL; and the same in bytes as in
// messages.
func FuzzShouldRateLimit(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			w := startTwins(t, ratelimit.Policy{Metadata: true, CountRefused: true})
			for range 3 {
				w.ask(t, b)
			}
		})
	})
}

func TestBytesAfterMutations(t *testing.T) {
	times := 2_000
	if raceEnabled {
		times = 300
	}
	synctest.Test(t, func(t *testing.T) {
		for _, p := range []ratelimit.Policy{{}, {Headers: extauthz.HeadersDraft03}, {Plain: &ratelimit.PlainHeaders{Limit: "a", Reset: "b"}, Quota: true}} {
			w := startTwins(t, p)
			all, r, answered := seeds(t), rand.New(rand.NewPCG(1, 2)), 0
			for range times {
				data := wiretest.Mutate(r, all)
				w.ask(t, data)
				if proto.Unmarshal(data, new(rlsv3.RateLimitRequest)) == nil {
					answered++
				}
			}
			if answered < times/4 || answered == times {
				t.Errorf("%d of %d requests are well-formed: these mutations test little", answered, times)
			}
		}
	})
}

func TestBytesOfEveryField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startTwins(t, ratelimit.Policy{})
		// After a request that is well-formed, so that what is broken decides.
		before := encoded(t, "shop 1 user=a|limit=5/SECOND*30|hits=3")
		tested := wiretest.BreakEachField((&rlsv3.RateLimitRequest{}).ProtoReflect().Descriptor(), func(data []byte) {
			w.ask(t, data)
			w.ask(t, append(bytes.Clone(before), data...))
		})
		if tested < 50 {
			t.Errorf("%d fields were broken, want all", tested)
		}
	})
}

// TestBytesOfTooManyDescriptors does not keep what a small message can name by the million.
func TestBytesOfTooManyDescriptors(t *testing.T) {
	s := start(t, rules, ratelimit.Policy{})
	if _, err := s.inBytes(t.Context(), bytes.Repeat([]byte{2<<3 | 2, 0}, 1<<20)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a million descriptors: %v, want INVALID_ARGUMENT", err)
	}
}
