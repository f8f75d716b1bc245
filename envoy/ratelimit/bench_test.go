package ratelimit_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
)

// hot are requests whose limiters exist.
var hot = map[string]string{
	"rules":    "shop 1 path=/ user=a watched=x",
	"refused":  "shop 1 path=/ blocked=x",
	"caller":   "any 1 consumer=billing,token=prod",
	"quotas":   "shop 1 qa=x qb=x",
	"override": "shop 0 user=a|hits=0|limit=5/SECOND*30",
	"refund":   "shop 1 user=a|hits=-1",
	"many":     "shop 1 user=a user=b user=c user=d user=e user=f user=g",
	"long":     "shop 1 user=" + strings.Repeat("a", 300),
}

// policies are those whose answers differ in what they hold.
var policies = map[string]ratelimit.Policy{
	"none":   {Headers: extauthz.HeadersNone},
	"ietf":   {},
	"shadow": {Mode: extauthz.Shadow},
	"plain":  {Plain: &ratelimit.PlainHeaders{Limit: "RateLimit-Limit", Remaining: "RateLimit-Remaining", Reset: "RateLimit-Reset"}},
}

func quiet(tb testing.TB, p ratelimit.Policy) *ratelimit.Server {
	s := start(tb, rules, ratelimit.Policy{})
	s.options.Observer = nil
	if err := s.registry.Put(s.clock.Now(), consumers.Consumer{ID: "billing", Tokens: []consumers.Token{{ID: "prod", Hash: consumers.HashOf("s")}}}); err != nil {
		tb.Fatal(err)
	}
	return ratelimit.New(s.options, p)
}

// TestAllocatesNothing guards what a decision costs the collector, from the
// request to the answer, which is appended to what the caller has.
func TestAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	for name, text := range hot {
		for style, p := range policies {
			s := quiet(t, p)
			data, room := encoded(t, text), make([]byte, 0, 4096)
			got := testing.AllocsPerRun(200, func() {
				if _, err := s.ShouldRateLimitBytes(t.Context(), data, room); err != nil {
					t.Fatal(err)
				}
			})
			if got > 0 {
				t.Errorf("%s, %s: %v allocations, want none", name, style, got)
			}
		}
	}
}

func encoded(tb testing.TB, text string) []byte {
	tb.Helper()
	data, err := proto.Marshal(request(tb, text))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func BenchmarkShouldRateLimit(b *testing.B) {
	s := quiet(b, policies["none"])
	for name, text := range hot {
		r, data := request(b, text), encoded(b, text)
		b.Run("messages/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.ShouldRateLimit(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("bytes/"+name, func(b *testing.B) {
			room := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.ShouldRateLimitBytes(b.Context(), data, room); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
