package extproc

import (
	"net/http"
	"strconv"
	"strings"

	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
)

// answer is what the first message tells of an upstream's answer.
type answer struct {
	upstream string // the id that ext_authz found, if it was asked
	host     string // that the caller wanted
	status   int
	header   http.Header
	length   int64 // of the body; -1: not announced
	complete bool  // there is no body
}

// ownRefusal is a header of Tollgate's refusals. Printed configurations take it
// away from what an upstream sends.
const ownRefusal = "X-Tollgate-Reason"

// readAnswer returns false for what is not the upstream's own answer.
func readAnswer(req *extprocv3.ProcessingRequest) (answer, bool) {
	h := req.GetResponseHeaders()
	if h == nil {
		return answer{}, false
	}
	attributes := req.GetAttributes()["envoy.filters.http.ext_proc"].GetFields()
	// Envoy answers itself where the upstream cannot be reached or does not answer in time, and for ext_authz.
	if details := attributes["response.code_details"].GetStringValue(); details != "" && details != "via_upstream" {
		return answer{}, false
	}
	a := answer{
		host:     attributes["request.host"].GetStringValue(),
		upstream: req.GetMetadataContext().GetFilterMetadata()["envoy.filters.http.ext_authz"].GetFields()["upstream"].GetStringValue(),
		header:   make(http.Header, len(h.GetHeaders().GetHeaders())),
		length:   -1,
		complete: h.GetEndOfStream(),
	}
	for _, field := range h.GetHeaders().GetHeaders() {
		value := string(field.GetRawValue())
		if value == "" {
			value = field.GetValue()
		}
		if field.GetKey() == ":status" {
			a.status, _ = strconv.Atoi(value)
			continue
		}
		if !strings.HasPrefix(field.GetKey(), ":") {
			a.header.Add(field.GetKey(), value)
		}
	}
	if n, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		a.length = n
	}
	return a, a.status >= 100 && a.header.Get(ownRefusal) == ""
}

// observed is the answer with what Envoy sent of its body.
func (a *answer) observed(body []byte) upstreams.Answer {
	return upstreams.Answer{Status: a.status, Header: a.header.Get, Body: readBody(body, a.header.Get("Content-Encoding"))}
}

// wholeUpTo is the length up to which a body is asked for as a whole. That
// keeps its content-length, which a part would lose, but Envoy answers 500 when
// a whole body exceeds the connection's buffer; nobody sets that so low.
const wholeUpTo = 16 << 10

// askForBody lets Envoy go on to the body, of which the headers wait.
func askForBody(length int64) *extprocv3.ProcessingResponse {
	mode := extprocfilterv3.ProcessingMode_BUFFERED_PARTIAL
	if length >= 0 && length <= wholeUpTo {
		mode = extprocfilterv3.ProcessingMode_BUFFERED
	}
	return &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{}},
		ModeOverride: &extprocfilterv3.ProcessingMode{
			RequestHeaderMode:  extprocfilterv3.ProcessingMode_SKIP,
			ResponseHeaderMode: extprocfilterv3.ProcessingMode_SEND,
			ResponseBodyMode:   mode,
		},
	}
}
