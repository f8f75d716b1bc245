package xds

import (
	"cmp"
	"fmt"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rlsconfigv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tollgate-dev/tollgate/descriptors"
)

// TypeURL is the type of the resources that hold rules.
const TypeURL = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"

// Rules checks resources and makes them ready to match. The error names every
// problem with its resource and descriptor.
func Rules(resources []*rlsconfigv3.RateLimitConfig, o descriptors.Options) (*descriptors.Rules, error) {
	configs := make([]descriptors.Config, len(resources))
	for i, r := range resources {
		configs[i] = descriptors.Config{
			Name:        cmp.Or(r.GetName(), r.GetDomain(), fmt.Sprintf("resource %d", i)),
			Domain:      r.GetDomain(),
			Descriptors: translate(r.GetDescriptors()),
		}
	}
	return descriptors.Build(configs, o)
}

func translate(list []*rlsconfigv3.RateLimitDescriptor) []descriptors.Descriptor {
	ds := make([]descriptors.Descriptor, len(list))
	for i, d := range list {
		ds[i] = descriptors.Descriptor{
			Key:            d.GetKey(),
			Value:          d.GetValue(),
			Descriptors:    translate(d.GetDescriptors()),
			Shadow:         d.GetShadowMode(),
			Quota:          d.GetQuotaMode(),
			DetailedMetric: d.GetDetailedMetric(),
			Metadata:       d.GetMetadata().AsMap(),
		}
		if p := d.GetRateLimit(); p != nil {
			ds[i].Limits = []descriptors.RateLimit{policy(p)}
		}
	}
	return ds
}

// policy relies on the numbers of the units, which are those of
// [descriptors.Unit]. An absent requests_per_unit cannot be told from 0 here.
func policy(p *rlsconfigv3.RateLimitPolicy) descriptors.RateLimit {
	l := descriptors.RateLimit{
		Name:            p.GetName(),
		Unit:            descriptors.Unit(p.GetUnit()),
		RequestsPerUnit: p.GetRequestsPerUnit(),
		Unlimited:       p.GetUnlimited(),
	}
	for _, r := range p.GetReplaces() {
		l.Replaces = append(l.Replaces, r.GetName())
	}
	return l
}

// unpack reads the resources of a response, with or without the wrapper that
// gives a resource its own name and version.
func unpack(resources []*anypb.Any) ([]*rlsconfigv3.RateLimitConfig, error) {
	configs := make([]*rlsconfigv3.RateLimitConfig, len(resources))
	for i, r := range resources {
		if r.MessageIs((*discoveryv3.Resource)(nil)) {
			var wrapper discoveryv3.Resource
			if err := r.UnmarshalTo(&wrapper); err != nil {
				return nil, fmt.Errorf("resource %d: %w", i, err)
			}
			r = wrapper.GetResource()
		}
		configs[i] = &rlsconfigv3.RateLimitConfig{}
		if err := anypb.UnmarshalTo(r, configs[i], proto.UnmarshalOptions{}); err != nil {
			return nil, fmt.Errorf("resource %d: %w", i, err)
		}
	}
	return configs, nil
}
