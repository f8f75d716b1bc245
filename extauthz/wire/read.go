package wire

import (
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// The two types of fields that hold anything here, the low bits of a tag.
const (
	Varint = uint64(protowire.VarintType)
	Bytes  = uint64(protowire.BytesType)
)

// Field is one field of a message, in place.
type Field struct {
	Tag   uint64 // its number << 3 | its type
	Bytes []byte // the content of a text, of bytes or of a message
	Value uint64 // that of a Varint
}

// Number returns the field's number.
func (f Field) Number() protowire.Number { return protowire.Number(f.Tag >> 3) }

// Next takes the first field off a message that is not empty. It reports false
// when the message is malformed.
func Next(b []byte) (f Field, rest []byte, ok bool) {
	tag, n := protowire.ConsumeVarint(b)
	number := tag >> 3
	if n < 0 || number < uint64(protowire.MinValidNumber) || number > uint64(protowire.MaxValidNumber) {
		return f, nil, false
	}
	f.Tag, b = tag, b[n:]
	switch tag & 7 {
	case Bytes:
		f.Bytes, n = protowire.ConsumeBytes(b)
	case Varint:
		f.Value, n = protowire.ConsumeVarint(b)
	default:
		n = protowire.ConsumeFieldValue(protowire.Number(number), protowire.Type(tag&7), b)
	}
	if n < 0 {
		return f, nil, false
	}
	return f, b[n:], true
}

// Each calls field for every field of a message that has a length: text, bytes
// and messages. It reports false when the message is malformed or field does.
func Each(b []byte, field func(protowire.Number, []byte) bool) bool {
	for len(b) > 0 {
		f, rest, ok := Next(b)
		if !ok || f.Tag&7 == Bytes && !field(f.Number(), f.Bytes) {
			return false
		}
		b = rest
	}
	return true
}

// Text sets to to a field's text, in place. It reports false for what is not
// UTF-8, which protobuf does not let pass.
func Text(b []byte, to *string) bool {
	if !utf8.Valid(b) {
		return false
	}
	*to = InPlace(b)
	return true
}

// InPlace returns b as a string without a copy, which is valid as long as nobody
// writes to b.
func InPlace(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
