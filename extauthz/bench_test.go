package extauthz_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/limits"
)

// crowd returns n consumers with one token and one limit each, and what their
// requests say in the authorization header, in random order. The credentials
// lie in memory as they come, as in a request that has just been read.
func crowd(n int) ([]consumers.Consumer, []string) {
	all := make([]consumers.Consumer, n)
	credentials := make([]string, n)
	for i, at := range rand.Perm(n) {
		secret := fmt.Sprintf("secret-of-consumer-%08d-0123456789abcdef", at)
		credentials[i] = "Bearer " + secret
		all[at] = consumers.Consumer{
			ID:     fmt.Sprintf("consumer-%d", at),
			Limits: []consumers.Limit{{Limit: limits.Limit{Kind: limits.Rate, N: limits.MaxN / 2, Period: time.Second}}},
			Tokens: []consumers.Token{{ID: "t", Hash: consumers.HashOf(secret)}},
		}
	}
	return all, credentials
}

// call is a request with the given authorization header, which is the third.
func call(credential string) *extauthz.View {
	return &extauthz.View{Method: "GET", Path: "/v1/items/42", Host: "api.example.com", Headers: []extauthz.Field{
		{Name: "user-agent", Value: "curl/8.5.0"}, {Name: "accept", Value: "*/*"}, {Name: "authorization", Value: credential},
		{Name: "x-request-id", Value: "0fe9b4d2-6a51-4c6c-9b9c-2f3b3d1d6f0a"}, {Name: "content-type", Value: "application/json"},
	}}
}

// BenchmarkDecision is the whole decision, from the credential in a request to
// the verdict, for one token out of many that each have their own limit.
func BenchmarkDecision(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			all, credentials := crowd(n)
			f := newFixture(b, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Strip: true}, consumers: all})
			for _, c := range credentials { // warm: the limiters exist
				f.decide(b, epoch, call(c))
			}
			b.ReportAllocs()
			var d extauthz.Verdict
			v := call("")
			now, i := epoch, 0
			for b.Loop() {
				now += 100
				if i++; i == len(credentials) {
					i = 0
				}
				v.Headers[2].Value = credentials[i]
				if err := f.Decide(context.Background(), now, v, &d); err != nil || !d.Allowed() {
					b.Fatal(err, d.Reason)
				}
			}
		})
	}
}

// BenchmarkDecisionHotKey is one token from one and from eight goroutines.
func BenchmarkDecisionHotKey(b *testing.B) {
	all, credentials := crowd(1_000)
	f := newFixture(b, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Strip: true}, consumers: all})
	clock := limits.NewClock()
	run := func(b *testing.B, parallel int) {
		b.ReportAllocs()
		b.SetParallelism(parallel)
		b.RunParallel(func(pb *testing.PB) {
			v := call(credentials[0])
			var d extauthz.Verdict
			for pb.Next() {
				if err := f.Decide(context.Background(), clock.Now(), v, &d); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.Run("goroutines=1", func(b *testing.B) {
		b.ReportAllocs()
		v := call(credentials[0])
		var d extauthz.Verdict
		for b.Loop() {
			if err := f.Decide(context.Background(), clock.Now(), v, &d); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("goroutines=8", func(b *testing.B) { run(b, 4) })
}

// BenchmarkCheck is a decision with both translations, without gRPC: of messages
// (which gRPC decodes and encodes besides) and of bytes.
func BenchmarkCheck(b *testing.B) {
	one := rate(1, time.Hour)
	one.Burst = 1
	for _, bb := range []struct {
		name  string
		limit limits.Limit
	}{{"admitted", rate(limits.MaxN/2, time.Second)}, {"refused", one}} {
		f := newFixture(b, setup{policy: extauthz.Policy{Credentials: []extauthz.Place{bearer}, Strip: true}, consumers: limited(bb.limit), unobserved: true})
		data, err := proto.Marshal(usual())
		if err != nil {
			b.Fatal(err)
		}
		f.check(b, usual())
		b.Run(bb.name+"/messages", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var req authv3.CheckRequest
				if err := proto.Unmarshal(data, &req); err != nil {
					b.Fatal(err)
				}
				r, err := f.Server.Check(context.Background(), &req)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := proto.Marshal(r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bb.name+"/bytes", func(b *testing.B) {
			b.ReportAllocs()
			var room []byte
			for b.Loop() {
				if room, err = f.Server.CheckBytes(context.Background(), data, room[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	one := rate(1, time.Hour)
	tests := []struct {
		name   string
		policy extauthz.Policy
		limits []limits.Limit
		view   *extauthz.View
	}{
		{"one limit", extauthz.Policy{Credentials: []extauthz.Place{bearer}, Strip: true}, []limits.Limit{rate(1000, time.Second)}, known("/v1/items")},
		{"refused", extauthz.Policy{Credentials: []extauthz.Place{bearer}}, []limits.Limit{one}, known("/v1/items")},
		{"three limits", extauthz.Policy{Credentials: []extauthz.Place{bearer}}, []limits.Limit{rate(1000, time.Second), rate(2000, 2*time.Second), one}, known("/v1/items")},
		{"wrong token", extauthz.Policy{Credentials: []extauthz.Place{{Header: "authorization"}}}, nil, known("/v1/items")},
		{"query", extauthz.Policy{Credentials: []extauthz.Place{{Cookie: "c"}, {Query: "k"}}}, nil, &extauthz.View{Path: "/?a=b&k=sesame"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{policy: tt.policy, consumers: limited(tt.limits...)})
			var d extauthz.Verdict
			if n := testing.AllocsPerRun(100, func() {
				if err := f.Decide(context.Background(), epoch, tt.view, &d); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("a decision took %v allocations, want 0", n)
			}
		})
	}
}
