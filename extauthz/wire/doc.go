// Package wire reads and writes protobuf in place, for the few messages that
// Envoy sends with every request. A message decoded in full costs several
// allocations for each of its fields; read in place, it costs none.
//
// Reading keeps protobuf's rules for what it is handed: [Next] gives one field
// after another and gives up on what is malformed. What a field means, that of one
// that stands twice the last counts, and that messages are merged, is up to the
// caller, who keeps the full decoder as a fallback and as the judge in tests.
//
// Writing appends. A message is begun, filled and ended:
//
//	b, at := wire.Begin(b, 2)
//	b = wire.AppendText(b, 1, "name")
//	b = wire.End(b, at)
package wire
