package ratelimit

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/limits"
)

// descriptorStatus tells how a descriptor stands by the limit that matters most.
type descriptorStatus struct {
	over      bool
	remaining uint32
	limited   bool // by a limit, of which the rest tells

	name       string
	requests   uint32
	unit       descriptors.Unit
	multiplier uint32
	reset      time.Duration
}

// conclude composes the answer of a decision.
func (d *decision) conclude() {
	for i := range d.parts {
		d.statuses = append(d.statuses, d.statusOf(&d.parts[i]))
	}
	d.writeHeaders()
}

func (d *decision) statusOf(p *part) (s descriptorStatus) {
	claim, from := &p.spent, p.spentFrom
	if i := d.decisive(p); i >= 0 {
		claim, from = &d.claims[i], d.origins[i]
	}
	if claim.Limiter == nil {
		if p.rule != nil && p.rule.Unlimited {
			s.remaining = math.MaxUint32
		}
		return s
	}
	if claim.Decision.Allowed {
		s.remaining = uint32(min(claim.Decision.Remaining, math.MaxUint32))
	}
	s.over = !claim.Decision.Allowed && !p.refund
	s.describe(claim.Limiter.Spec(), from.rule)
	s.reset = untilReset(d.now, claim)
	return s
}

// untilReset is when to come back: after a refusal when the same request would
// be admitted, else when all is as it was. A fixed window ends in any case.
func untilReset(now limits.Time, c *limits.Claim) time.Duration {
	if d := c.Decision; !d.Allowed && d.Wait != limits.Never {
		return d.Wait
	}
	if l := c.Limiter.Spec().Limit(); l.Kind == limits.FixedWindow && c.Decision.Reset == 0 {
		return l.Period - time.Duration(now)%l.Period
	}
	return c.Decision.Reset
}

// describe writes a limit in the API's terms: a number in so many units.
func (s *descriptorStatus) describe(spec *limits.Spec, rule *descriptors.Rule) {
	s.limited = true
	if rule != nil {
		s.name, s.requests, s.unit, s.multiplier = rule.Name, rule.RequestsPerUnit, rule.Unit, rule.UnitMultiplier
		return
	}
	l := spec.Limit()
	n, unit, multiplier := inUnits(l)
	s.name, s.requests, s.unit, s.multiplier = l.Name, uint32(min(n, math.MaxUint32)), unit, multiplier
}

// inUnits writes a caller's own limit in whole units, the largest that fit. Of
// one that fits none, such as 1/500ms, the unit is unset.
func inUnits(l limits.Limit) (n int64, unit descriptors.Unit, multiplier uint32) {
	if l.Kind == limits.Quota {
		unit, _ = descriptors.ParseUnit(string(l.Calendar))
		return l.N, unit, 1
	}
	for _, u := range []struct {
		unit   descriptors.Unit
		length time.Duration
	}{{descriptors.Day, 24 * time.Hour}, {descriptors.Hour, time.Hour}, {descriptors.Minute, time.Minute}, {descriptors.Second, time.Second}} {
		if times := l.Period / u.length; times > 0 && l.Period%u.length == 0 && times <= math.MaxUint32 {
			return l.N, u.unit, uint32(times)
		}
	}
	return l.N, descriptors.UnitUnset, 1
}

// metadata merges what the rules that admitted have attached; what came first
// wins. It is nil where nobody asks for it or there is nothing, as for metadata
// that the API cannot carry.
func (d *decision) metadata() *structpb.Struct {
	if !d.policy.Metadata {
		return nil
	}
	merged := make(map[string]any)
	for i := range d.parts {
		p := &d.parts[i]
		for r := p.rule; r != nil && !p.over; r = r.Next {
			if !d.replaced(r) {
				descriptors.MergeMetadata(merged, r.Metadata)
			}
		}
	}
	if len(merged) == 0 {
		return nil
	}
	fields, err := structpb.NewStruct(map[string]any{"metadata": merged})
	if err != nil {
		return nil
	}
	return fields
}
