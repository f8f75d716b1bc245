package extauthz_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/extauthz/wire/wiretest"
)

// Check asks both paths, so that every test of an answer is one of both.
func (f *fixture) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	f.tb.Helper()
	data, err := proto.Marshal(req)
	if err != nil { // nobody can send this
		return f.Server.Check(ctx, req)
	}
	return f.both(f.tb, ctx, data)
}

// both decides about an encoded request by way of the whole message and, on the
// twin, in bytes. Whatever there is must be the same: the view, the answer, the
// class of the error, and what the Observer is told.
func (f *fixture) both(t testing.TB, ctx context.Context, data []byte) (*authv3.CheckResponse, error) {
	t.Helper()
	var req authv3.CheckRequest
	malformed := proto.Unmarshal(data, &req)
	if malformed == nil {
		f.compareViews(t, ctx, &req, data)
	}
	told, toldTwin := len(f.seen.events), len(f.twin.seen.events)
	var want *authv3.CheckResponse
	wantErr := status.Error(codes.Internal, "")
	if malformed == nil {
		want, wantErr = f.Server.Check(ctx, &req)
	}
	given := bytes.Clone(data)
	out, err := f.twin.CheckBytes(ctx, given, []byte("before"))
	for i := range given { // nothing may refer to it any more
		given[i] = '#'
	}
	if status.Code(err) != status.Code(wantErr) {
		t.Fatalf("CheckBytes(%x): %v, but Check: %v", data, err, wantErr)
	}
	out, ok := bytes.CutPrefix(out, []byte("before"))
	if !ok || err != nil && len(out) > 0 {
		t.Fatalf("CheckBytes(%x) = %x: want an answer appended, or nothing with an error", data, out)
	}
	if d := cmp.Diff(events(f.seen.events[told:]), events(f.twin.seen.events[toldTwin:])); d != "" {
		t.Fatalf("events of %x (-messages +bytes):\n%s", data, d)
	}
	if err != nil {
		return nil, wantErr
	}
	var got authv3.CheckResponse
	if err := proto.Unmarshal(out, &got); err != nil {
		t.Fatalf("CheckBytes(%x) = %x: %v", data, out, err)
	}
	if a, b := comparable(want), comparable(&got); !proto.Equal(a, b) {
		t.Fatalf("answers to %x (-messages +bytes):\n%s", data, cmp.Diff(a, b, protocmp.Transform()))
	}
	return want, nil
}

func (f *fixture) compareViews(t testing.TB, ctx context.Context, req *authv3.CheckRequest, data []byte) {
	t.Helper()
	want, wantErr := f.Read(ctx, req)
	got, ok, err := f.Scan(ctx, data)
	if !ok {
		return
	}
	for _, v := range []*extauthz.View{&want, &got} {
		for _, fields := range [][]extauthz.Field{v.Headers, v.Context} {
			slices.SortStableFunc(fields, func(a, b extauthz.Field) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	if !reflect.DeepEqual(want, got) || (err == nil) != (wantErr == nil) {
		t.Fatalf("views of %x: %v and %v (-messages +bytes):\n%s", data, wantErr, err, cmp.Diff(want, got))
	}
}

var timestamp = regexp.MustCompile(`^\{"timestamp":"[^"]*"`)

// comparable returns an answer without what depends on the time or on a map's order.
func comparable(r *authv3.CheckResponse) *authv3.CheckResponse {
	r = proto.CloneOf(r)
	if ok := r.GetOkResponse(); ok != nil {
		slices.Sort(ok.HeadersToRemove)
	}
	if denied := r.GetDeniedResponse(); denied != nil {
		denied.Body = timestamp.ReplaceAllString(denied.Body, "{")
	}
	return r
}

// events writes events down without their times, by the names of their limits.
func events(list []extauthz.Event) (out []string) {
	for _, e := range list {
		out = append(out, strings.Join([]string{e.API, string(e.Outcome), e.Domain, e.Rule, e.Consumer, e.Token, e.Method, e.Path, e.RequestID, fmt.Sprint(e.Trace)}, "|"))
		if e.Limit != nil {
			out = append(out, e.Limit.Limit().Name)
		}
	}
	return out
}

// usual is a request as Envoy sends it.
func usual() *authv3.CheckRequest {
	req := request("/v1/items/42?page=2", map[string]string{
		"authorization": "Bearer sesame", "user-agent": "curl/8.5.0", "accept": "*/*", "content-type": "application/json",
		":method": "GET", ":path": "/v1/items/42?page=2", ":authority": "api.example.com", ":scheme": "https",
		"x-request-id": "0fe9b4d2-6a51-4c6c-9b9c-2f3b3d1d6f0a", "x-forwarded-proto": "https",
	})
	a := req.Attributes
	a.Request.Time = &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 1}
	a.Request.Http.Size = -1
	a.Source, a.Destination = &authv3.AttributeContext_Peer{Address: socket("192.0.2.7")}, &authv3.AttributeContext_Peer{Address: socket("192.0.2.1")}
	a.MetadataContext, a.RouteMetadataContext = &corev3.Metadata{}, &corev3.Metadata{}
	return req
}

func socket(address string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711},
	}}}
}

// full is a request with everything that Envoy can be told to send.
func full() *authv3.CheckRequest {
	req := withContext(rawRequest("/v1/items?k=sesame", [2]string{"cookie", "c=1"}, [2]string{"cookie", "c=2"}, [2]string{"x-tollgate-plan", "\xff"}),
		"mode", "both", "cost", "2", "answer", "keeper", "domain", "other")
	a := req.Attributes
	a.Source = &authv3.AttributeContext_Peer{
		Address: socket("192.0.2.7"), Service: "s", Labels: map[string]string{"a": "b"}, Principal: "spiffe://cluster.local/ns/shop/sa/cart", Certificate: "-----BEGIN",
	}
	a.Destination = &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/x", Mode: 0o600}}}}
	a.TlsSession = &authv3.AttributeContext_TLSSession{Sni: "api.example.com"}
	a.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"n": {Fields: map[string]*structpb.Value{
		"a": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"b": structpb.NewStringValue("billing")}}),
	}}}}
	a.RouteMetadataContext = a.MetadataContext
	a.Request.Http.Body, a.Request.Http.RawBody, a.Request.Http.Query, a.Request.Http.Fragment = "body", []byte{0xff}, "q", "f"
	return req
}

// everywhere reads all places that a policy can name.
func everywhere() extauthz.Policy {
	return extauthz.Policy{
		Strip:       true,
		Credentials: []extauthz.Place{bearer, {Query: "k"}, {Cookie: "c"}, {Principal: true}, {Metadata: []string{"n", "a", "b"}}},
		Descriptors: [][]extauthz.Source{{{Key: "path", From: "path"}, {Key: "ip", From: "remote_address"}, {Key: "plan", From: "metadata", Name: "n", Field: "plan"}}},
	}
}

// TestBytesAfterMutations changes real requests a little, which a fuzzer is
// slow to come upon: parts left out, twice, in another order, in each other's place.
func TestBytesAfterMutations(t *testing.T) {
	f := newFixture(t, setup{policy: everywhere(), rules: "domain: other\ndescriptors: [{key: ip, rate_limit: {unit: second, requests_per_unit: 1}}]"})
	internal := usual()
	internal.Attributes.Source.Address = &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{EndpointId: "e"}}}
	var seeds [][]byte
	for _, req := range []*authv3.CheckRequest{usual(), full(), internal, request("/", nil)} {
		data, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, data)
	}
	r := rand.New(rand.NewPCG(1, 2))
	read, scanned := 0, 0
	for range 10_000 {
		data := wiretest.Mutate(r, seeds)
		if _, ok, _ := f.Scan(context.Background(), data); ok {
			scanned++
		}
		if proto.Unmarshal(data, new(authv3.CheckRequest)) == nil {
			read++
		}
		_, _ = f.both(t, context.Background(), data)
	}
	if scanned < 500 || scanned > read || read == 10_000 {
		t.Errorf("%d requests are well-formed and %d were scanned: these mutations test little", read, scanned)
	}
}

// TestBytesOfEveryField breaks each field of the message in turn, those included
// that nobody reads: text that is no UTF-8, and a message that is none.
func TestBytesOfEveryField(t *testing.T) {
	f := newFixture(t, setup{policy: everywhere()})
	tested := wiretest.BreakEachField((&authv3.CheckRequest{}).ProtoReflect().Descriptor(), func(data []byte) {
		_, _ = f.both(t, context.Background(), data)
	})
	if tested < 300 {
		t.Errorf("%d fields were broken, want all", tested)
	}
}

// TestBytesAllocateNothing is for the requests that Envoy sends all day. That
// they are not decoded in full is the point of it all.
func TestBytesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	unknown := usual()
	unknown.Attributes.Request.Http.Headers["authorization"] = "Bearer guess"
	listed := withContext(rawRequest("/v1/items", [2]string{"authorization", "Bearer sesame"}, [2]string{"x-b", "1"}, [2]string{"x-b", "2"}), "mode", "both", "cost", "2")
	one := rate(1, 1<<40)
	for name, tt := range map[string]struct {
		req   *authv3.CheckRequest
		setup setup
	}{
		"admitted":  {usual(), setup{}},
		"refused":   {usual(), setup{consumers: limited(one)}},
		"unknown":   {unknown, setup{}},
		"raw":       {listed, setup{}},
		"described": {usual(), setup{rules: "domain: d\ndescriptors: [{key: path, rate_limit: {unit: hour, requests_per_unit: 1000000}}]"}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.setup.unobserved = true
			tt.setup.policy = extauthz.Policy{Domain: "d", Strip: true, Credentials: []extauthz.Place{bearer}, Descriptors: [][]extauthz.Source{{source("path", "path", "")}}}
			f := newFixture(t, tt.setup)
			data, err := proto.Marshal(tt.req)
			if err != nil {
				t.Fatal(err)
			}
			room := make([]byte, 0, 4096)
			if n := testing.AllocsPerRun(200, func() {
				if _, err := f.CheckBytes(context.Background(), data, room); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("a call took %v allocations, want 0", n)
			}
		})
	}
}
