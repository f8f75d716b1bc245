package extauthz

import (
	"context"
	"encoding/hex"
	"strings"
)

// Trace is the span that a decision belongs to (W3C Trace Context, level 1).
// The zero value is none.
type Trace struct {
	ID      [16]byte
	Span    [8]byte
	Sampled bool   // whoever began the trace records it
	State   string // tracestate, of a sampled trace only
}

// Valid reports whether t is a span of a trace.
func (t *Trace) Valid() bool { return t.ID != [16]byte{} && t.Span != [8]byte{} }

// TraceOf returns the trace of a call from its gRPC metadata, where Envoy tells
// its own span.
func TraceOf(ctx context.Context) Trace {
	t := ParseTrace(callField(ctx, "traceparent"))
	if t.Sampled {
		t.State = callField(ctx, "tracestate")
	}
	return t
}

// trace returns the trace of a call, else that of the checked request.
func trace(ctx context.Context, v *View) Trace {
	if t := TraceOf(ctx); t.Valid() {
		return t
	}
	parent, _ := v.header("traceparent")
	t := ParseTrace(parent)
	if t.Sampled {
		state, _ := v.header("tracestate")
		t.State = strings.Clone(state)
	}
	return t
}

// ParseTrace reads a traceparent header; what is none gives the zero value.
func ParseTrace(parent string) Trace {
	// version "-" trace-id "-" parent-id "-" trace-flags, and of a version to come more.
	if len(parent) < 55 || parent[2] != '-' || parent[35] != '-' || parent[52] != '-' {
		return Trace{}
	}
	var version, flags [1]byte
	var t Trace
	if !unhex(version[:], parent[:2]) || !unhex(t.ID[:], parent[3:35]) || !unhex(t.Span[:], parent[36:52]) || !unhex(flags[:], parent[53:55]) {
		return Trace{}
	}
	if version[0] == 0xff || version[0] == 0 && len(parent) > 55 || len(parent) > 55 && parent[55] != '-' || !t.Valid() {
		return Trace{}
	}
	t.Sampled = flags[0]&1 != 0
	return t
}

// unhex decodes lower-case hexadecimal digits that fill b.
func unhex(b []byte, s string) bool {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'F' {
			return false
		}
	}
	var digits [32]byte // no conversion that allocates
	_, err := hex.Decode(b, digits[:copy(digits[:], s)])
	return err == nil
}
