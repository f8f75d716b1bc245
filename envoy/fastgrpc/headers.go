package fastgrpc

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// A headerBlock is what one HEADERS frame and its CONTINUATIONs say, gathered
// field by field as HPACK decodes them. There is one per connection, since
// header blocks never interleave (RFC 9113, section 4.3), and it is reused.
//
// Decoding allocates for literal fields only: what the client sends by index
// is a string that the decoder's table already holds.
type headerBlock struct {
	stream    uint32 // the stream it belongs to; 0: no block is open
	endStream bool
	wire      uint32 // encoded bytes so far
	size      uint32 // decoded, as RFC 9113 section 6.5.2 counts
	limit     uint32 // on size
	tooLarge  bool
	malformed string // why, if it breaks RFC 9113 section 8; only the first reason
	regular   bool   // a field that is no pseudo-header has come

	fields                          []hpack.HeaderField // all that the following are not
	method, scheme, path, authority string
	host, contentType, encoding     string
	authorities, hosts              int
	timeout                         time.Duration
	timeoutSet                      bool
	badField                        string // a gRPC field that cannot be read, and why
	contentLength                   int64  // -1: none
}

// begin empties the block for a new one.
func (b *headerBlock) begin(stream uint32, endStream bool) {
	*b = headerBlock{
		stream: stream, endStream: endStream, limit: b.limit,
		fields: b.fields[:0], contentLength: -1,
	}
}

// add is the decoder's emit function.
func (b *headerBlock) add(f hpack.HeaderField) {
	if b.tooLarge {
		return
	}
	if b.size += f.Size(); b.size > b.limit {
		b.tooLarge = true
		b.fields = b.fields[:0]
		return
	}
	switch {
	case b.malformed != "":
	case !httpguts.ValidHeaderFieldValue(f.Value):
		b.malformed = "invalid field value"
	case f.IsPseudo():
		b.addPseudo(f)
	case !validName(f.Name):
		b.malformed = "invalid field name"
	default:
		b.regular = true
		b.addRegular(f)
	}
}

// addPseudo takes a pseudo-header field (RFC 9113, section 8.3.1).
func (b *headerBlock) addPseudo(f hpack.HeaderField) {
	var into *string
	switch f.Name {
	case ":method":
		into = &b.method
	case ":scheme":
		into = &b.scheme
	case ":path":
		into = &b.path
	case ":authority":
		b.authorities++
		into = &b.authority
	default:
		b.malformed = "unknown pseudo-header field"
		return
	}
	if b.regular || *into != "" {
		b.malformed = "pseudo-header field repeated or after others"
		return
	}
	*into = f.Value
}

func (b *headerBlock) addRegular(f hpack.HeaderField) {
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		b.malformed = "connection-specific field" // RFC 9113, section 8.2.2
	case "te":
		if f.Value != "trailers" {
			b.malformed = "te is not trailers"
		}
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 63)
		if err != nil || b.contentLength >= 0 {
			b.malformed = "invalid content-length"
			return
		}
		b.contentLength = int64(n)
	case "content-type":
		b.contentType = f.Value
	case "host":
		b.hosts++
		b.host = f.Value
	case "grpc-encoding":
		b.encoding = f.Value
	case "grpc-timeout":
		b.timeoutSet = true
		var ok bool
		if b.timeout, ok = parseTimeout(f.Value); !ok {
			b.badField = "malformed grpc-timeout: want digits and a unit"
		}
	default:
		if strings.HasSuffix(f.Name, "-bin") && !validBinary(f.Value) {
			b.badField = "malformed binary metadata: want base64"
		}
		b.fields = append(b.fields, f)
	}
}

// check says whether the block opens a call of gRPC. If not, it is to be
// answered with this HTTP status and this gRPC status; the order in which
// faults count and the codes are grpc-go's.
func (b *headerBlock) check() (httpStatus int, status Status) {
	switch {
	case b.tooLarge:
		return http.StatusRequestHeaderFieldsTooLarge, statusf(ResourceExhausted, "header list larger than max (%d)", b.limit)
	case b.hosts > 1:
		return http.StatusBadRequest, Status{Code: Internal, Message: "several host fields"}
	case !isGRPC(b.contentType):
		return http.StatusUnsupportedMediaType, statusf(InvalidArgument, "invalid gRPC request content-type %q", b.contentType)
	case b.badField != "":
		return http.StatusBadRequest, Status{Code: Internal, Message: b.badField}
	case b.authorities == 0 && b.hosts == 0:
		return http.StatusBadRequest, Status{Code: Internal, Message: "no host or :authority header present"}
	case b.method != http.MethodPost:
		return http.StatusMethodNotAllowed, statusf(Internal, "method %q, want POST", b.method)
	case b.timeoutSet && b.timeout == 0:
		return http.StatusOK, Status{Code: DeadlineExceeded, Message: "deadline passed before the call began"}
	}
	return http.StatusOK, Status{}
}

// incomplete says why the block cannot open a request at all.
func (b *headerBlock) incomplete() string {
	if b.tooLarge || b.malformed != "" {
		return b.malformed
	}
	if b.method == "" || b.scheme == "" || b.path == "" {
		return "missing pseudo-header field"
	}
	return ""
}

// isGRPC reports whether a content-type is application/grpc or one with a
// subtype ("+proto", ";charset=…").
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// validName reports whether a field's name is a token without capitals
// (RFC 9113, section 8.2.1).
func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !httpguts.IsTokenRune(rune(c)) || c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return name != ""
}

func validBinary(value string) bool {
	encoding := base64.RawStdEncoding
	if len(value)%4 == 0 {
		encoding = base64.StdEncoding
	}
	_, err := encoding.DecodeString(value)
	return err == nil
}
