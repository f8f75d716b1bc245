package main

import (
	"context"
	"net"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// floor is a server that decides nothing: grpc-go with default options.
type floor struct {
	authv3.UnimplementedAuthorizationServer
	rlsv3.UnimplementedRateLimitServiceServer
}

// Check admits everything.
func (floor) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.OK)}}, nil
}

// ShouldRateLimit admits everything.
func (floor) ShouldRateLimit(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
}

func newFloor() *grpc.Server {
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, floor{})
	rlsv3.RegisterRateLimitServiceServer(s, floor{})
	healthpb.RegisterHealthServer(s, health.NewServer()) // Envoy asks
	return s
}

func serveFloor(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return newFloor().Serve(l)
}
