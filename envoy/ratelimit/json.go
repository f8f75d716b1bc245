package ratelimit

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// maxJSON bounds the body of a request to /json.
const maxJSON = 1 << 20

// ServeHTTP answers a RateLimitRequest in JSON, whatever the method, as
// envoyproxy/ratelimit does at /json: 200 for OK, 429 for OVER_LIMIT, 400 for
// what cannot be read or meant, each of the first two with the response in JSON.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJSON))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var request rlsv3.RateLimitRequest
	if err := protojson.Unmarshal(body, &request); err != nil {
		http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
		return
	}
	ctx := context.WithValue(r.Context(), extauthz.MetadataKey{}, extauthz.Metadata(traceFields(r.Header)))
	response, err := s.ShouldRateLimit(ctx, &request)
	if err != nil {
		http.Error(w, status.Convert(err).Message(), httpStatus(status.Code(err)))
		return
	}
	out, err := protojson.Marshal(response)
	if err != nil {
		http.Error(w, "write response: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("content-type", "application/json")
	if response.GetOverallCode() == rlsv3.RateLimitResponse_OVER_LIMIT {
		w.WriteHeader(http.StatusTooManyRequests)
	}
	_, _ = w.Write(out) // a client that has left needs no answer
}

// traceFields are the headers that tell of the caller's span.
type traceFields http.Header

// Metadata implements [extauthz.Metadata].
func (f traceFields) Metadata(name string) string {
	if name != "traceparent" && name != "tracestate" {
		return ""
	}
	return strings.Join(http.Header(f).Values(name), ",")
}

func httpStatus(c codes.Code) int {
	switch c {
	case codes.InvalidArgument:
		return http.StatusBadRequest
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.Unavailable, codes.Canceled:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
