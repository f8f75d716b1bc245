package envoy

import "github.com/tollgate-dev/tollgate/envoy/fastgrpc"

// FastHandler is what answers a method on the fast listener in bytes.
func (s *Server) FastHandler(method string) fastgrpc.Handler {
	s.metrics.know(s.grpc.GetServiceInfo()) // as when it serves
	return newFastBytes(s, method, s.inBytes[method])
}
