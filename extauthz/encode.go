package extauthz

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tollgate-dev/tollgate/extauthz/wire"
)

// appendTo appends an answer as an encoded CheckResponse. It says what response
// says: a refusal always has a status other than 0, which Envoy would take for
// an admission, and see options for what the headers' actions mean.
func (a *answer) appendTo(b []byte, d *Verdict) []byte {
	b, status := wire.Begin(b, 1)
	b = wire.AppendNumber(b, 1, uint64(a.code))
	b = wire.End(b, status)
	if a.status == 0 {
		b = a.appendOK(b)
	} else {
		b = a.appendDenied(b)
	}
	b, metadata := wire.Begin(b, 4)
	b = d.appendMetadata(b)
	return wire.End(b, metadata)
}

// appendOK appends an OkHttpResponse.
func (a *answer) appendOK(b []byte) []byte {
	b, ok := wire.Begin(b, 3)
	b = appendOptions(b, 2, a.set, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	for _, name := range a.remove {
		b = wire.AppendText(b, 5, name)
	}
	b = appendOptions(b, 6, a.respond, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	for _, name := range a.removeQuery {
		b = wire.AppendText(b, 8, name)
	}
	return wire.End(b, ok)
}

// appendDenied appends a DeniedHttpResponse.
func (a *answer) appendDenied(b []byte) []byte {
	b, denied := wire.Begin(b, 2)
	b, status := wire.Begin(b, 1)
	b = wire.AppendNumber(b, 1, uint64(a.status))
	b = wire.End(b, status)
	b = appendOptions(b, 2, a.set, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	b = wire.AppendText(b, 3, a.body)
	return wire.End(b, denied)
}

func appendOptions(b []byte, n protowire.Number, headers []ReplyHeader, action corev3.HeaderValueOption_HeaderAppendAction) []byte {
	for i := range headers {
		var option, value int
		b, option = wire.Begin(b, n)
		b, value = wire.Begin(b, 1)
		b = wire.AppendText(b, 1, headers[i].Name)
		b = wire.AppendText(b, 2, headers[i].Value)
		b = wire.End(b, value)
		b = wire.AppendNumber(b, 3, uint64(action))
		b = wire.End(b, option)
	}
	return b
}

// appendMetadata appends the Struct that metadata makes.
func (d *Verdict) appendMetadata(b []byte) []byte {
	b = appendValue(b, "decision", string(d.Outcome))
	b = appendNumberValue(b, "cost", float64(d.Cost))
	if d.Consumer != "" {
		b = appendValue(b, "consumer", d.Consumer)
		b = d.appendLabels(b)
	}
	if d.Token != "" {
		b = appendValue(b, "token", d.Token)
	}
	if d.Upstream != "" {
		b = appendValue(b, "upstream", d.Upstream)
	}
	if d.Limit != nil {
		b = appendValue(b, "limit", d.Limit.Limit().Name)
	}
	if n, unit := inUnit(d.Own); unit != "" {
		b, entry := wire.Begin(b, 1)
		b = wire.AppendText(b, 1, "rate_limit")
		b, value := wire.Begin(b, 2)
		b, fields := wire.Begin(b, 5)
		b = appendNumberValue(b, "requests_per_unit", float64(n))
		b = appendValue(b, "unit", unit)
		return wire.End(wire.End(wire.End(b, fields), value), entry)
	}
	return b
}

// appendNumberValue appends a field of a Struct that is a number.
func appendNumberValue(b []byte, name string, number float64) []byte {
	b, entry := wire.Begin(b, 1)
	b = wire.AppendText(b, 1, name)
	b, value := wire.Begin(b, 2)
	b = protowire.AppendTag(b, 2, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(number))
	return wire.End(wire.End(b, value), entry)
}

func (d *Verdict) appendLabels(b []byte) []byte {
	b, entry := wire.Begin(b, 1)
	b = wire.AppendText(b, 1, "labels")
	b, value := wire.Begin(b, 2)
	b, labels := wire.Begin(b, 5)
	for name, label := range d.Labels {
		b = appendValue(b, name, label)
	}
	return wire.End(wire.End(wire.End(b, labels), value), entry)
}

// appendValue appends a field of a Struct that is a text.
func appendValue(b []byte, name, value string) []byte {
	b, entry := wire.Begin(b, 1)
	b = wire.AppendText(b, 1, validText(name))
	b, in := wire.Begin(b, 2)
	b = wire.AppendText(b, 3, validText(value))
	return wire.End(wire.End(b, in), entry)
}
