package main

import (
	"bytes"
	"fmt"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// message is what differs from request to request.
type message struct {
	header []byte // encoded, follows the constant headers
	body   []byte // nil: none
}

// messages makes requests and knows their answers. Each goroutine has its own.
type messages interface {
	// next returns the next request, valid until the call after.
	next() message
	judge(*reply) outcome
}

// outcome is what an answer is.
type outcome int

const (
	admitted outcome = iota
	refused
	failed
)

// call is a kind of request.
type call struct {
	headers []hpack.HeaderField
	make    func(keys int, first uint64) (messages, error)
}

// rpc is a unary gRPC call.
func rpc(path string, make func(keys int, first uint64) (messages, error)) call {
	return call{headers: []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: "tollgate"}, {Name: "te", Value: "trailers"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-timeout", Value: "10000m"}, {Name: "x-envoy-internal", Value: "true"},
	}, make: make}
}

// calls are the calls that Envoy makes.
var calls = map[string]call{
	"check":     rpc("/envoy.service.auth.v3.Authorization/Check", newCheck),
	"ratelimit": rpc("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", newRateLimit),
}

// token is the credential of consumer i, of fixed length so that it can be
// written over another in an encoded message.
func token(i int) string {
	return fmt.Sprintf("bench-token-%08d", i)
}

// patched is a request encoded once; each next writes another number into it.
// The numbers come in an order that jumps about, and all of them come before
// one comes again, from whichever of them on.
type patched struct {
	encoded []byte
	digits  int // where the eight digits stand
	keys    int
	at      int // the last key
	stride  int
	refuses func(answer []byte) bool
}

func newPatched(m proto.Message, keys int, first uint64, refuses func([]byte) bool) (*patched, error) {
	encoded, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	const placeholder = "00000000"
	at := bytes.Index(encoded, []byte(placeholder))
	if at < 0 || bytes.Count(encoded, []byte(placeholder)) != 1 {
		return nil, fmt.Errorf("the request must hold %q once", placeholder)
	}
	return &patched{encoded: encoded, digits: at, keys: keys, at: before(keys, first), stride: stride(keys), refuses: refuses}, nil
}

// before returns the number that comes before the one at a place in the order.
func before(keys int, place uint64) int { return int(place%uint64(keys)) * stride(keys) % keys }

// stride is near the golden section of keys, and coprime to it.
func stride(keys int) int {
	for s := int(0.618*float64(keys)) + 1; ; s++ {
		a, b := s, keys
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return s
		}
	}
}

func (p *patched) next() message {
	var number [8]byte
	p.at = (p.at + p.stride) % p.keys
	text := strconv.AppendInt(number[:0], int64(p.at), 10)
	digits := p.encoded[p.digits : p.digits+8]
	copy(digits, "00000000")
	copy(digits[8-len(text):], text)
	return message{body: p.encoded}
}

func (p *patched) judge(r *reply) outcome {
	const prefix = 5 // gRPC's
	switch {
	case r.grpc != "0" || len(r.body) < prefix:
		return failed
	case p.refuses(r.body[prefix:]):
		return refused
	}
	return admitted
}

// newCheck makes requests as Envoy sends them for a small GET with a token.
func newCheck(keys int, first uint64) (messages, error) {
	return newPatched(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:      &authv3.AttributeContext_Peer{Address: socket("10.1.2.3", 41234)},
		Destination: &authv3.AttributeContext_Peer{Address: socket("10.9.8.7", 8443)},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "7d1f0a54d3e84d0c", Method: "GET", Path: "/v1/orders/42?page=2", Host: "api.example.com", Scheme: "https", Protocol: "HTTP/2", Size: -1,
			Headers: map[string]string{
				":authority": "api.example.com", ":method": "GET", ":path": "/v1/orders/42?page=2", ":scheme": "https",
				"accept": "application/json", "authorization": "Bearer " + token(0), "user-agent": "orders-client/1.4 (linux)",
				"x-envoy-internal": "true", "x-forwarded-proto": "https", "x-request-id": "5b2c1b3f-6a0e-4f6e-9d0a-3f1f7f4b9a11",
			},
		}},
		MetadataContext: &corev3.Metadata{},
	}}, keys, first, func(answer []byte) bool {
		// CheckResponse.status is field 1 and, unless its code is OK, not empty.
		_, _, n := protowire.ConsumeTag(answer)
		if n < 0 || answer[0] != 1<<3|byte(protowire.BytesType) {
			return false
		}
		status, n := protowire.ConsumeBytes(answer[n:])
		return n > 0 && len(status) > 0
	})
}

func socket(address string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// newRateLimit makes requests with one descriptor, user=u-N.
func newRateLimit(keys int, first uint64) (messages, error) {
	return newPatched(&rlsv3.RateLimitRequest{
		Domain: "bench",
		Descriptors: []*rlcommonv3.RateLimitDescriptor{{Entries: []*rlcommonv3.RateLimitDescriptor_Entry{
			{Key: "user", Value: "u-00000000"},
		}}},
	}, keys, first, func(answer []byte) bool {
		// RateLimitResponse.overall_code is field 1; 2 is OVER_LIMIT.
		return len(answer) >= 2 && answer[0] == 1<<3|byte(protowire.VarintType) && answer[1] == byte(rlsv3.RateLimitResponse_OVER_LIMIT)
	})
}

// pages are requests through Envoy: a small GET with a token.
var pages = call{headers: []hpack.HeaderField{
	{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/v1/orders/42?page=2"},
	{Name: ":authority", Value: "api.example.com"}, {Name: "accept", Value: "application/json"}, {Name: "user-agent", Value: "orders-client/1.4 (linux)"},
}, make: newPages}

type pagesWithTokens struct {
	keys, at, stride int
	header           bytes.Buffer
	encoder          *hpack.Encoder
}

func newPages(keys int, first uint64) (messages, error) {
	p := &pagesWithTokens{keys: keys, at: before(keys, first), stride: stride(keys)}
	p.encoder = hpack.NewEncoder(&p.header)
	return p, nil
}

func (p *pagesWithTokens) next() message {
	p.at = (p.at + p.stride) % p.keys
	p.header.Reset()
	// What is sensitive enters no header table, and so can be added to any block.
	_ = p.encoder.WriteField(hpack.HeaderField{Name: "authorization", Value: "Bearer " + token(p.at), Sensitive: true}) // a bytes.Buffer does not fail
	return message{header: p.header.Bytes()}
}

func (p *pagesWithTokens) judge(r *reply) outcome {
	switch r.http {
	case "200":
		return admitted
	case "429":
		return refused
	}
	return failed
}
