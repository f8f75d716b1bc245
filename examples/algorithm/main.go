// Algorithm is an authorization service for Envoy whose limit is an algorithm of
// its own, in a table of limiters that Tollgate's packages keep. See README.md.
package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"net"
	"os"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/limits"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

// run answers Envoy on an address.
func run(address string) error {
	kinds := limits.Kinds{"session": newSession}
	spec, err := kinds.Compile(limits.Limit{Kind: "session", N: 3, Period: 5 * time.Second})
	if err != nil {
		return err
	}
	server, err := envoy.NewServer(envoy.ServerOptions{})
	if err != nil {
		return err
	}
	authv3.RegisterAuthorizationServer(server, &gate{spec: spec, clock: limits.NewClock(), table: limits.NewTable(limits.TableOptions{Size: 10_000})})
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return server.Serve(lis)
}

// gate limits every value of the header x-api-key by itself.
type gate struct {
	authv3.UnimplementedAuthorizationServer
	spec  *limits.Spec
	clock *limits.Clock
	table *limits.Table
}

func (g *gate) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	key := r.GetAttributes().GetRequest().GetHttp().GetHeaders()["x-api-key"]
	now := g.clock.Now()
	d := g.table.LimiterString(now, key, g.spec).Take(now, 1)
	if d.Allowed {
		return &authv3.CheckResponse{}, nil
	}
	wait := fmt.Sprint(int64(math.Ceil(d.Wait.Seconds())))
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.ResourceExhausted)}, // anything but 0 refuses
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode_TooManyRequests},
			Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "retry-after", Value: wait}}},
		}},
	}, nil
}
