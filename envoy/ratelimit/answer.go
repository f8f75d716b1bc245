package ratelimit

import (
	"math"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/limits"
)

// few is how many descriptors an answer has room for in one piece of memory.
const few = 4

// answerRoom is an answer and all that it points to.
type answerRoom struct {
	response rlsv3.RateLimitResponse
	pointers [few]*rlsv3.RateLimitResponse_DescriptorStatus
	rooms    [few]statusRoom
}

type statusRoom struct {
	status     rlsv3.RateLimitResponse_DescriptorStatus
	limit      rlsv3.RateLimitResponse_RateLimit
	multiplier wrapperspb.UInt32Value
	reset      durationpb.Duration
}

// answer writes the response.
func (d *decision) answer() *rlsv3.RateLimitResponse {
	room := new(answerRoom)
	pointers, rooms := room.pointers[:0], room.rooms[:]
	if n := len(d.parts); n > few {
		pointers, rooms = make([]*rlsv3.RateLimitResponse_DescriptorStatus, 0, n), make([]statusRoom, n)
	}
	for i := range d.parts {
		d.writeStatus(&rooms[i], &d.parts[i])
		pointers = append(pointers, &rooms[i].status)
	}
	r := &room.response
	r.Statuses = pointers
	r.OverallCode = rlsv3.RateLimitResponse_OK
	if d.refused {
		r.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT
	}
	d.writeHeaders(r)
	if d.policy.Metadata {
		r.DynamicMetadata = d.metadata()
	}
	return r
}

// writeStatus tells how a descriptor stands by the limit that matters most.
func (d *decision) writeStatus(room *statusRoom, p *part) {
	s := &room.status
	s.Code = rlsv3.RateLimitResponse_OK
	claim, from := &p.spent, p.spentFrom
	if i := d.decisive(p); i >= 0 {
		claim, from = &d.claims[i], d.origins[i]
	}
	if claim.Limiter == nil {
		if p.rule != nil && p.rule.Unlimited {
			s.LimitRemaining = math.MaxUint32
		}
		return
	}
	if claim.Decision.Allowed {
		s.LimitRemaining = uint32(min(claim.Decision.Remaining, math.MaxUint32))
	} else {
		s.Code = rlsv3.RateLimitResponse_OVER_LIMIT
	}
	if p.refund {
		s.Code = rlsv3.RateLimitResponse_OK
	}
	writeLimit(room, claim.Limiter.Spec().Limit(), from.rule)
	s.CurrentLimit = &room.limit
	reset := untilReset(d.now, claim)
	room.reset.Seconds, room.reset.Nanos = int64(reset/time.Second), int32(reset%time.Second)
	s.DurationUntilReset = &room.reset
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

// writeLimit writes a limit in the API's terms: a number in so many units.
func writeLimit(room *statusRoom, l limits.Limit, rule *descriptors.Rule) {
	out := &room.limit
	out.Name = l.Name
	n, unit, multiplier := inUnits(l)
	if rule != nil {
		out.Name = rule.Name
		n, unit, multiplier = int64(rule.RequestsPerUnit), rule.Unit, rule.UnitMultiplier
	}
	out.RequestsPerUnit = uint32(min(n, math.MaxUint32))
	out.Unit = rlsv3.RateLimitResponse_RateLimit_Unit(unit)
	if multiplier > 1 {
		room.multiplier.Value = multiplier
		out.UnitMultiplier = &room.multiplier
	}
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
// wins. It is nil where there is nothing, as for metadata that the API cannot
// carry.
func (d *decision) metadata() *structpb.Struct {
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
