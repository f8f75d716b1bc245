package ratelimit

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tollgate-dev/tollgate/descriptors"
)

// read takes a decoded request in. What it means is complete's to say.
func (d *decision) read(r *rlsv3.RateLimitRequest) {
	d.domain, d.hits, d.asked = r.GetDomain(), r.GetHitsAddend(), len(r.GetDescriptors())
	if d.asked > maxDescriptors {
		return
	}
	for _, p := range r.GetDescriptors() {
		d.parts = append(d.parts, part{asked: d.readDescriptor(p)})
	}
}

func (d *decision) readDescriptor(p *rlcommonv3.RateLimitDescriptor) asked {
	a := asked{
		from: len(d.entries), negative: p.GetIsNegativeHits(),
		hasHits: p.GetHitsAddend() != nil, ownHits: p.GetHitsAddend().GetValue(),
		overrides: p.GetLimit() != nil,
		override: descriptors.Override{
			Unit:            descriptors.Unit(p.GetLimit().GetUnit()),
			UnitMultiplier:  p.GetLimit().GetUnitMultiplier().GetValue(),
			RequestsPerUnit: p.GetLimit().GetRequestsPerUnit(),
		},
	}
	for _, e := range p.GetEntries() {
		d.entries = append(d.entries, descriptors.Entry{Key: e.GetKey(), Value: e.GetValue()})
	}
	a.to = len(d.entries)
	return a
}

// response writes the answer as a message.
func (d *decision) response() *rlsv3.RateLimitResponse {
	r := &rlsv3.RateLimitResponse{OverallCode: code(d.refused), RawBody: append([]byte(nil), d.body...), DynamicMetadata: d.metadata()}
	for i := range d.statuses {
		r.Statuses = append(r.Statuses, d.statuses[i].message())
	}
	for _, h := range d.headers {
		r.ResponseHeadersToAdd = append(r.ResponseHeadersToAdd, &corev3.HeaderValue{Key: h.Name, Value: string(h.Value)})
	}
	return r
}

func (s *descriptorStatus) message() *rlsv3.RateLimitResponse_DescriptorStatus {
	m := &rlsv3.RateLimitResponse_DescriptorStatus{Code: code(s.over), LimitRemaining: s.remaining}
	if !s.limited {
		return m
	}
	m.CurrentLimit = &rlsv3.RateLimitResponse_RateLimit{
		Name: s.name, RequestsPerUnit: s.requests, Unit: rlsv3.RateLimitResponse_RateLimit_Unit(s.unit),
	}
	if s.multiplier > 1 {
		m.CurrentLimit.UnitMultiplier = wrapperspb.UInt32(s.multiplier)
	}
	m.DurationUntilReset = durationpb.New(s.reset)
	return m
}

func code(over bool) rlsv3.RateLimitResponse_Code {
	if over {
		return rlsv3.RateLimitResponse_OVER_LIMIT
	}
	return rlsv3.RateLimitResponse_OK
}
