package extauthz

import (
	"context"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// What tests in the external package look into.
var (
	RetryAfter = retryAfter
	PerSeconds = perSeconds
)

// Read reads a decoded request.
func (s *Server) Read(ctx context.Context, req *authv3.CheckRequest) (v View, err error) {
	err = v.read(ctx, s.plan.Load(), req)
	return v, err
}

// Scan reads an encoded one, if it can.
func (s *Server) Scan(ctx context.Context, req []byte) (v View, ok bool, err error) {
	ok, err = new(scanner).scan(ctx, s.plan.Load(), &v, req)
	return v, ok, err
}

// Credential returns what a header of a request holds at places, and what kind
// of finding that is.
func Credential(places []Place, header, value string) (string, string) {
	p := newPlan(&Policy{Credentials: places})
	var v View
	v.Headers = append(v.Headers, Field{Name: header, Value: value})
	credential, f := p.credential(&v)
	return credential, map[finding]string{absent: "absent", malformed: "malformed", secret: "secret", identity: "identity"}[f]
}
