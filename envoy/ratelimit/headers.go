package ratelimit

import (
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// writeHeaders adds what the client sees beside the status: the rate-limit
// headers, and of a refusal the same as ext_authz answers.
func (d *decision) writeHeaders(r *rlsv3.RateLimitResponse) {
	if p := d.policy.Plain; p != nil {
		d.writePlain(r, p)
		return
	}
	refusal := -1
	if d.refused {
		refusal = d.decisive(&d.parts[d.deciding])
	}
	reply := extauthz.ReplyAboutLimits(d.policy.Headers, d.claims, refusal)
	for _, h := range reply.Headers {
		r.ResponseHeadersToAdd = append(r.ResponseHeadersToAdd, header(h.Name, h.Value))
	}
	r.RawBody = reply.Body
}

// writePlain adds envoyproxy/ratelimit's three headers, of the limit that
// refuses or else the one with the least left.
func (d *decision) writePlain(r *rlsv3.RateLimitResponse, names *PlainHeaders) {
	var found *rlsv3.RateLimitResponse_DescriptorStatus
	for _, s := range r.GetStatuses() {
		if s.GetCurrentLimit() != nil && (found == nil || before(s, found)) {
			found = s
		}
	}
	if found == nil {
		return
	}
	reset := ceilSeconds(found)
	for _, h := range []struct {
		name  string
		value int64
	}{
		{names.Limit, int64(found.GetCurrentLimit().GetRequestsPerUnit())},
		{names.Remaining, int64(found.GetLimitRemaining())},
		{names.Reset, reset},
	} {
		if h.name != "" {
			r.ResponseHeadersToAdd = append(r.ResponseHeadersToAdd, header(h.name, strconv.FormatInt(h.value, 10)))
		}
	}
}

// before reports whether the headers should rather tell of a than of b.
func before(a, b *rlsv3.RateLimitResponse_DescriptorStatus) bool {
	if a.GetCode() != b.GetCode() {
		return a.GetCode() == rlsv3.RateLimitResponse_OVER_LIMIT
	}
	return a.GetLimitRemaining() < b.GetLimitRemaining()
}

func ceilSeconds(s *rlsv3.RateLimitResponse_DescriptorStatus) int64 {
	seconds := s.GetDurationUntilReset().GetSeconds()
	if s.GetDurationUntilReset().GetNanos() > 0 {
		seconds++
	}
	return seconds
}

func header(name, value string) *corev3.HeaderValue {
	return &corev3.HeaderValue{Key: name, Value: value}
}
