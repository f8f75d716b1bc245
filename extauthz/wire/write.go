package wire

import "google.golang.org/protobuf/encoding/protowire"

// AppendText appends a field of text, of bytes or of an encoded message, be it empty.
func AppendText[T string | []byte](b []byte, n protowire.Number, text T) []byte {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(text)))
	return append(b, text...)
}

// AppendNumber appends a field of an integer, a boolean or an enumeration. 0 is
// what protobuf leaves out.
func AppendNumber(b []byte, n protowire.Number, value uint64) []byte {
	if value == 0 {
		return b
	}
	b = protowire.AppendTag(b, n, protowire.VarintType)
	return protowire.AppendVarint(b, value)
}

// Begin begins a message, with one byte left for its length, and returns where
// its content starts.
func Begin(b []byte, n protowire.Number) ([]byte, int) {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	b = append(b, 0)
	return b, len(b)
}

// End writes the length of the message whose content starts at start, and makes
// room where a byte is not enough.
func End(b []byte, start int) []byte {
	length := len(b) - start
	if more := protowire.SizeVarint(uint64(length)) - 1; more > 0 {
		b = append(b, make([]byte, more)...)
		copy(b[start+more:], b[start:start+length])
	}
	protowire.AppendVarint(b[:start-1], uint64(length))
	return b
}
