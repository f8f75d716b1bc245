// Package wiretest makes encoded messages that are hard to read, for tests that
// compare reading in place with the full decoder.
package wiretest

import (
	"bytes"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Mutate returns one of some encoded messages changed a little, in ways that a
// fuzzer is slow to come upon: parts left out, twice, in another order, in each
// other's place, broken.
func Mutate(r *rand.Rand, seeds [][]byte) []byte {
	return mutate(r, seeds, seeds[r.IntN(len(seeds))], 0)
}

// mutate takes a message apart into its fields and puts it together again.
func mutate(r *rand.Rand, seeds [][]byte, data []byte, depth int) []byte {
	if depth == 0 && r.IntN(8) == 0 {
		return append(bytes.Clone(data), seeds[r.IntN(len(seeds))]...) // merged
	}
	var fields [][]byte
	for rest := data; len(rest) > 0; {
		n, wire, length := protowire.ConsumeField(rest)
		if length < 0 {
			return data
		}
		field := bytes.Clone(rest[:length])
		rest = rest[length:]
		if wire == protowire.BytesType && r.IntN(2) == 0 {
			_, _, tag := protowire.ConsumeTag(field)
			content, _ := protowire.ConsumeBytes(field[tag:])
			field = protowire.AppendBytes(protowire.AppendTag(nil, n, wire), mutate(r, seeds, content, depth+1))
		}
		fields = append(fields, field)
	}
	if len(fields) == 0 {
		return data
	}
	i, j := r.IntN(len(fields)), r.IntN(len(fields))
	switch r.IntN(12) {
	case 0:
		fields = slices.Delete(fields, i, i+1)
	case 1:
		fields = append(fields, fields[i])
	case 2:
		fields[i], fields[j] = fields[j], fields[i]
	case 3:
		fields[i] = append(fields[i], protowire.AppendVarint(protowire.AppendTag(nil, protowire.Number(1+r.IntN(20)), protowire.VarintType), r.Uint64())...)
	case 4: // another number or wire type
		fields[i][0] = byte(r.IntN(256))
	case 5: // broken text, length or number
		fields[i][r.IntN(len(fields[i]))] = byte(r.IntN(256))
	case 6:
		fields[i] = append(fields[i], protowire.AppendBytes(protowire.AppendTag(nil, protowire.Number(1+r.IntN(20)), protowire.BytesType), []byte{0xff})...)
	}
	return slices.Concat(fields...)
}

// BreakEachField calls test with messages in each of which one field, down to
// eight levels, holds what it should not: text that is no UTF-8, a message that is
// none, another type's. It returns how many there were.
func BreakEachField(m protoreflect.MessageDescriptor, test func(data []byte)) (tested int) {
	contents := [][]byte{nil, {0xff}, []byte("a"), {0x08, 1}, {0x0a, 1, 'a'}, {0x12, 1, 0xff}, {0x0a, 1, 'a', 0x12, 1, 'b', 0x1a, 0}}
	var visit func(m protoreflect.MessageDescriptor, wrap func([]byte) []byte, depth int)
	visit = func(m protoreflect.MessageDescriptor, wrap func([]byte) []byte, depth int) {
		if depth > 8 {
			return
		}
		for i := range m.Fields().Len() {
			field := m.Fields().Get(i)
			in := func(content []byte) []byte {
				return wrap(protowire.AppendBytes(protowire.AppendTag(nil, field.Number(), protowire.BytesType), content))
			}
			for _, content := range contents {
				tested++
				test(in(content))
			}
			if field.Kind() == protoreflect.MessageKind {
				visit(field.Message(), in, depth+1)
			}
		}
	}
	visit(m, func(b []byte) []byte { return b }, 0)
	return tested
}
