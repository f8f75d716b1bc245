package ratelimit

import (
	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/extauthz/wire"
)

// The fields that are read of envoy/service/ratelimit/v3/rls.proto and
// envoy/extensions/common/ratelimit/v3/ratelimit.proto, by number and type.
// Fields of another number or type are unknown, and skipped.
const (
	requestDomain      = 1<<3 | wire.Bytes
	requestDescriptors = 2<<3 | wire.Bytes
	requestHits        = 3<<3 | wire.Varint

	descriptorEntries  = 1<<3 | wire.Bytes
	descriptorLimit    = 2<<3 | wire.Bytes
	descriptorHits     = 3<<3 | wire.Bytes
	descriptorNegative = 4<<3 | wire.Varint

	entryKey   = 1<<3 | wire.Bytes
	entryValue = 2<<3 | wire.Bytes

	limitRequests   = 1<<3 | wire.Varint
	limitUnit       = 2<<3 | wire.Varint
	limitMultiplier = 3<<3 | wire.Bytes

	wrapped = 1<<3 | wire.Varint // google.protobuf.UInt32Value and UInt64Value
)

// scan takes an encoded request in, in place: its texts are valid as long as b
// is. It finds what read would find in the decoded message or, for what is
// malformed or has too many descriptors, reports false.
func (d *decision) scan(b []byte) bool {
	for len(b) > 0 {
		f, rest, ok := wire.Next(b)
		switch b = rest; f.Tag {
		case requestDomain:
			ok = ok && wire.Text(f.Bytes, &d.domain)
		case requestDescriptors:
			d.parts = append(d.parts, part{})
			ok = ok && len(d.parts) <= maxDescriptors && d.scanDescriptor(f.Bytes, &d.parts[len(d.parts)-1].asked)
		case requestHits:
			d.hits = uint32(f.Value)
		}
		if !ok {
			return false
		}
	}
	d.asked = len(d.parts)
	return true
}

func (d *decision) scanDescriptor(b []byte, a *asked) bool {
	a.from = len(d.entries)
	for len(b) > 0 {
		f, rest, ok := wire.Next(b)
		switch b = rest; f.Tag {
		case descriptorEntries:
			d.entries = append(d.entries, descriptors.Entry{})
			ok = ok && scanEntry(f.Bytes, &d.entries[len(d.entries)-1])
		case descriptorLimit:
			a.overrides = true
			ok = ok && scanLimit(f.Bytes, &a.override)
		case descriptorHits:
			a.hasHits = true
			ok = ok && scanWrapped(f.Bytes, &a.ownHits)
		case descriptorNegative:
			a.negative = f.Value != 0
		}
		if !ok {
			return false
		}
	}
	a.to = len(d.entries)
	return true
}

func scanEntry(b []byte, e *descriptors.Entry) bool {
	for len(b) > 0 {
		f, rest, ok := wire.Next(b)
		switch b = rest; f.Tag {
		case entryKey:
			ok = ok && wire.Text(f.Bytes, &e.Key)
		case entryValue:
			ok = ok && wire.Text(f.Bytes, &e.Value)
		}
		if !ok {
			return false
		}
	}
	return true
}

func scanLimit(b []byte, o *descriptors.Override) bool {
	for len(b) > 0 {
		f, rest, ok := wire.Next(b)
		switch b = rest; f.Tag {
		case limitRequests:
			o.RequestsPerUnit = uint32(f.Value)
		case limitUnit:
			o.Unit = descriptors.Unit(f.Value)
		case limitMultiplier:
			multiplier := uint64(o.UnitMultiplier)
			ok = ok && scanWrapped(f.Bytes, &multiplier)
			o.UnitMultiplier = uint32(multiplier)
		}
		if !ok {
			return false
		}
	}
	return true
}

func scanWrapped(b []byte, to *uint64) bool {
	for len(b) > 0 {
		f, rest, ok := wire.Next(b)
		if !ok {
			return false
		}
		if b = rest; f.Tag == wrapped {
			*to = f.Value
		}
	}
	return true
}
