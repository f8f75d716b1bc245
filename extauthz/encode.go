package extauthz

import (
	"math"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
)

// appendTo appends an answer as an encoded CheckResponse. It says what response
// says: a refusal always has a status other than 0, which Envoy would take for
// an admission, and see options for what the headers' actions mean.
func (a *answer) appendTo(b []byte, d *Verdict) []byte {
	b, status := begin(b, 1)
	b = appendNumber(b, 1, uint64(a.code))
	b = end(b, status)
	if a.status == 0 {
		b = a.appendOK(b)
	} else {
		b = a.appendDenied(b)
	}
	b, metadata := begin(b, 4)
	b = d.appendMetadata(b)
	return end(b, metadata)
}

// appendOK appends an OkHttpResponse.
func (a *answer) appendOK(b []byte) []byte {
	b, ok := begin(b, 3)
	b = appendOptions(b, 2, a.set, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	for _, name := range a.remove {
		b = appendText(b, 5, name)
	}
	b = appendOptions(b, 6, a.respond, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	for _, name := range a.removeQuery {
		b = appendText(b, 8, name)
	}
	return end(b, ok)
}

// appendDenied appends a DeniedHttpResponse.
func (a *answer) appendDenied(b []byte) []byte {
	b, denied := begin(b, 2)
	b, status := begin(b, 1)
	b = appendNumber(b, 1, uint64(a.status))
	b = end(b, status)
	b = appendOptions(b, 2, a.set, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	b = appendText(b, 3, a.body)
	return end(b, denied)
}

func appendOptions(b []byte, n protowire.Number, headers []header, action corev3.HeaderValueOption_HeaderAppendAction) []byte {
	for i := range headers {
		var option, value int
		b, option = begin(b, n)
		b, value = begin(b, 1)
		b = appendText(b, 1, headers[i].name)
		b = appendText(b, 2, headers[i].value)
		b = end(b, value)
		b = appendNumber(b, 3, uint64(action))
		b = end(b, option)
	}
	return b
}

// appendMetadata appends the Struct that metadata makes.
func (d *Verdict) appendMetadata(b []byte) []byte {
	b = appendValue(b, "decision", string(d.Outcome))
	b, cost := begin(b, 1)
	b = appendText(b, 1, "cost")
	b, number := begin(b, 2)
	b = protowire.AppendTag(b, 2, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(float64(d.Cost)))
	b = end(end(b, number), cost)
	if d.Consumer != "" {
		b = appendValue(b, "consumer", d.Consumer)
		b = d.appendLabels(b)
	}
	if d.Token != "" {
		b = appendValue(b, "token", d.Token)
	}
	if d.Limit != nil {
		b = appendValue(b, "limit", d.Limit.Limit().Name)
	}
	return b
}

func (d *Verdict) appendLabels(b []byte) []byte {
	b, entry := begin(b, 1)
	b = appendText(b, 1, "labels")
	b, value := begin(b, 2)
	b, labels := begin(b, 5)
	for name, label := range d.Labels {
		b = appendValue(b, name, label)
	}
	return end(end(end(b, labels), value), entry)
}

// appendValue appends a field of a Struct that is a text.
func appendValue(b []byte, name, value string) []byte {
	b, entry := begin(b, 1)
	b = appendText(b, 1, validText(name))
	b, in := begin(b, 2)
	b = appendText(b, 3, validText(value))
	return end(end(b, in), entry)
}

func appendText[T string | []byte](b []byte, n protowire.Number, text T) []byte {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(text)))
	return append(b, text...)
}

func appendNumber(b []byte, n protowire.Number, value uint64) []byte {
	if value == 0 {
		return b
	}
	b = protowire.AppendTag(b, n, protowire.VarintType)
	return protowire.AppendVarint(b, value)
}

// begin begins a message, with one byte left for its length, and returns where
// its content starts.
func begin(b []byte, n protowire.Number) ([]byte, int) {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	b = append(b, 0)
	return b, len(b)
}

// end writes the length of the message whose content starts at start, and makes
// room where a byte is not enough.
func end(b []byte, start int) []byte {
	length := len(b) - start
	if more := protowire.SizeVarint(uint64(length)) - 1; more > 0 {
		b = append(b, make([]byte, more)...)
		copy(b[start+more:], b[start:start+length])
	}
	protowire.AppendVarint(b[:start-1], uint64(length))
	return b
}
