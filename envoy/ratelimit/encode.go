package ratelimit

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/extauthz/wire"
)

// appendTo appends the answer as an encoded RateLimitResponse. It says what
// response says.
func (d *decision) appendTo(b []byte) []byte {
	b = wire.AppendNumber(b, 1, uint64(code(d.refused)))
	for i := range d.statuses {
		b = d.statuses[i].appendTo(b)
	}
	for i := range d.headers {
		var at int
		b, at = wire.Begin(b, 3)
		b = wire.AppendText(b, 1, d.headers[i].Name)
		b = wire.AppendText(b, 2, d.headers[i].Value)
		b = wire.End(b, at)
	}
	if len(d.body) > 0 {
		b = wire.AppendText(b, 5, d.body)
	}
	if m := d.metadata(); m != nil {
		kept := len(b)
		b, at := wire.Begin(b, 6)
		b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
		if err != nil { // text that is no UTF-8, which the API cannot carry
			return b[:kept]
		}
		return wire.End(b, at)
	}
	return b
}

// appendTo appends a DescriptorStatus.
func (s *descriptorStatus) appendTo(b []byte) []byte {
	b, at := wire.Begin(b, 2)
	b = wire.AppendNumber(b, 1, uint64(code(s.over)))
	if s.limited {
		var limit int
		b, limit = wire.Begin(b, 2)
		b = wire.AppendNumber(b, 1, uint64(s.requests))
		b = wire.AppendNumber(b, 2, uint64(s.unit))
		if s.name != "" {
			b = wire.AppendText(b, 3, s.name)
		}
		if s.multiplier > 1 {
			var multiplier int
			b, multiplier = wire.Begin(b, 4)
			b = wire.AppendNumber(b, 1, uint64(s.multiplier))
			b = wire.End(b, multiplier)
		}
		b = wire.End(b, limit)
	}
	b = wire.AppendNumber(b, 3, uint64(s.remaining))
	if s.limited {
		var reset int
		b, reset = wire.Begin(b, 4)
		b = wire.AppendNumber(b, 1, uint64(s.reset/time.Second))
		b = wire.AppendNumber(b, 2, uint64(s.reset%time.Second))
		b = wire.End(b, reset)
	}
	return wire.End(b, at)
}
