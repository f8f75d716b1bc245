package extauthz

import (
	"context"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tollgate-dev/tollgate/extauthz/wire"
)

// scanner reads a View out of an encoded CheckRequest in place. It finds what
// View.read would find in the decoded message, or gives up: on whatever is
// malformed, so that there is one judge of that, and on what Envoy does not send.
//
// The rules of protobuf that it keeps: of a field that stands twice the last
// counts, messages are merged, fields that are unknown or of another wire type
// are skipped, and text is valid UTF-8, in fields that nobody reads as well.
type scanner struct {
	view     *View
	query    string
	source   party
	ignored  party
	metadata *corev3.Metadata // nil if there is none
	mapped   bool             // headers stand in the map
	listed   bool             // headers stand in the list
}

// scan fills v, or reports false, having filled v with anything. The error is
// View.read's.
func (s *scanner) scan(ctx context.Context, p *plan, v *View, request []byte) (bool, error) {
	s.view = v
	if !wire.Each(request, s.checkRequest) || s.mapped && s.listed {
		return false, nil
	}
	v.Principal = s.source.principal
	v.readMetadata(p, s.metadata)
	return true, v.complete(ctx, p, s.query, s.source.address)
}

// The field numbers below are those of envoy/service/auth/v3/attribute_context.proto
// and the files that it imports. Fields that are not named hold no text.

func (s *scanner) checkRequest(n protowire.Number, b []byte) bool {
	if n == 1 { // attributes
		return wire.Each(b, s.attributes)
	}
	return true
}

func (s *scanner) attributes(n protowire.Number, b []byte) bool {
	switch n {
	case 1: // source
		return wire.Each(b, s.source.field)
	case 2: // destination
		return wire.Each(b, s.ignored.field)
	case 4: // request
		return wire.Each(b, s.request)
	case 10: // context_extensions
		return s.extension(b)
	case 11: // metadata_context
		return s.dynamicMetadata(b)
	case 12: // tls_session: its name of the server
		return wire.Each(b, texts)
	case 13: // route_metadata_context
		return len(b) == 0 || unmarshal(b, new(corev3.Metadata))
	}
	return true
}

// dynamicMetadata decodes this part in full, since its values are of any shape.
func (s *scanner) dynamicMetadata(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if s.metadata == nil {
		s.metadata = new(corev3.Metadata)
	}
	return unmarshal(b, s.metadata)
}

// unmarshal merges a message into m that lies two deep in the whole.
func unmarshal(b []byte, m proto.Message) bool {
	return proto.UnmarshalOptions{Merge: true, RecursionLimit: protowire.DefaultRecursionLimit - 2}.Unmarshal(b, m) == nil
}

func (s *scanner) request(n protowire.Number, b []byte) bool {
	switch n {
	case 1: // time
		return wire.Each(b, ignore)
	case 2: // http
		return wire.Each(b, s.http)
	}
	return true
}

func (s *scanner) http(n protowire.Number, b []byte) bool {
	switch n {
	case 1:
		return wire.Text(b, &s.view.ID)
	case 2:
		return wire.Text(b, &s.view.Method)
	case 3: // headers
		return s.header(b)
	case 4:
		return wire.Text(b, &s.view.Path)
	case 5:
		return wire.Text(b, &s.view.Host)
	case 7:
		return wire.Text(b, &s.query)
	case 13: // header_map
		return wire.Each(b, s.headerMap)
	case 6, 8, 10, 11: // scheme, fragment, protocol, body
		return utf8.Valid(b)
	}
	return true
}

// header reads an entry of the map of headers. Protobuf lets one name stand
// twice; Envoy does not.
func (s *scanner) header(b []byte) bool {
	var e pair
	if !wire.Each(b, e.field) || !isLower(e.key) {
		return false
	}
	if _, twice := s.view.header(e.key); twice {
		return false
	}
	s.mapped = true
	s.view.Headers = append(s.view.Headers, Field{e.key, e.value})
	return true
}

// headerMap reads the other shape, a list, where a name may stand twice.
func (s *scanner) headerMap(n protowire.Number, b []byte) bool {
	if n != 1 { // headers
		return true
	}
	var e pair
	if !wire.Each(b, e.field) || !isLower(e.key) {
		return false
	}
	if len(e.raw) > 0 {
		e.value = wire.InPlace(e.raw)
	}
	s.listed = true
	s.view.Headers = append(s.view.Headers, Field{e.key, e.value})
	return true
}

func (s *scanner) extension(b []byte) bool {
	var e pair
	if !wire.Each(b, e.field) {
		return false
	}
	if _, twice := s.view.extension(e.key); twice {
		return false
	}
	s.view.Context = append(s.view.Context, Field{e.key, e.value})
	return true
}

// pair is an entry of a map of text, or a HeaderValue.
type pair struct {
	key, value string
	raw        []byte // of a HeaderValue
}

func (e *pair) field(n protowire.Number, b []byte) bool {
	switch n {
	case 1:
		return wire.Text(b, &e.key)
	case 2:
		return wire.Text(b, &e.value)
	case 3:
		e.raw = b
	}
	return true
}

// party is one end of the client's connection.
type party struct {
	address   string // of a socket
	principal string
}

func (p *party) field(n protowire.Number, b []byte) bool {
	switch n {
	case 1:
		return wire.Each(b, p.anyAddress)
	case 3: // labels
		return wire.Each(b, texts)
	case 4:
		return wire.Text(b, &p.principal)
	case 2, 5: // service, certificate
		return utf8.Valid(b)
	}
	return true
}

// anyAddress reads an Address, of whose shapes the last one counts.
func (p *party) anyAddress(n protowire.Number, b []byte) bool {
	switch n {
	case 1:
		return wire.Each(b, p.socketAddress)
	case 2, 3: // pipe, envoy_internal_address
		p.address = ""
		return wire.Each(b, texts)
	}
	return true
}

func (p *party) socketAddress(n protowire.Number, b []byte) bool {
	switch n {
	case 2:
		return wire.Text(b, &p.address)
	case 4, 5, 7: // named_port, resolver_name, network_namespace_filepath
		return utf8.Valid(b)
	}
	return true
}

// texts is for messages whose fields 1 and 2 are text, if they have them, and the only such.
func texts(n protowire.Number, b []byte) bool { return n > 2 || utf8.Valid(b) }

func ignore(protowire.Number, []byte) bool { return true }

// isLower reports whether a name is ASCII without capitals, as Envoy's are.
func isLower(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}
