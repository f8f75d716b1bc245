package ratelimit_test

import (
	"testing"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/envoy/ratelimit"
	"github.com/tollgate-dev/tollgate/extauthz"
)

// hot are requests whose limiters exist.
var hot = map[string]string{
	"rules":  "shop 1 path=/ user=a watched=x",
	"caller": "any 1 consumer=billing,token=prod",
	"quotas": "shop 1 qa=x qb=x",
}

func quiet(tb testing.TB) *ratelimit.Server {
	s := start(tb, rules, ratelimit.Policy{})
	s.options.Observer = nil
	if err := s.registry.Put(s.clock.Now(), consumers.Consumer{ID: "billing", Tokens: []consumers.Token{{ID: "prod", Hash: consumers.HashOf("s")}}}); err != nil {
		tb.Fatal(err)
	}
	return ratelimit.New(s.options, ratelimit.Policy{Headers: extauthz.HeadersNone, Mode: extauthz.Shadow})
}

// TestAllocatesTheAnswerOnly guards what a decision costs the collector: one
// piece of memory, which is the response with its statuses.
func TestAllocatesTheAnswerOnly(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	s := quiet(t)
	for name, text := range hot {
		r := request(t, text)
		got := testing.AllocsPerRun(200, func() {
			if _, err := s.ShouldRateLimit(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		})
		if got > 1 {
			t.Errorf("%s: %v allocations, want 1", name, got)
		}
	}
}

func BenchmarkShouldRateLimit(b *testing.B) {
	s := quiet(b)
	for name, text := range hot {
		r := request(b, text)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.ShouldRateLimit(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
