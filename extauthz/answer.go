package extauthz

import (
	"slices"
	"strconv"
	"strings"
)

// Headers that only Tollgate sets.
const (
	reservedPrefix = "x-tollgate-"
	consumerHeader = "x-tollgate-consumer"
	tokenHeader    = "x-tollgate-token"
	reasonHeader   = "x-tollgate-reason"
)

// gRPC codes of refusals, as google.golang.org/grpc/codes numbers them.
const (
	codePermissionDenied  = 7
	codeResourceExhausted = 8
	codeUnavailable       = 14
	codeUnauthenticated   = 16
)

// answer is a Verdict as HTTP, ready to be written in whatever form the caller
// reads. It may be used again and again; what it holds is valid until then.
type answer struct {
	status int   // of a refusal; 0 admits
	code   int32 // the gRPC code that goes with it

	set         []ReplyHeader // admitted: for the upstream; refused: for the client
	respond     []ReplyHeader // admitted: for the client, with the upstream's answer
	remove      []string      // admitted: headers that the upstream must not see
	removeQuery []string      // admitted: query parameters likewise
	body        []byte        // of a refusal

	shown []shown // the limits that headers tell of
	text  []byte  // memory of the values and the body
}

// compose fills a with the answer to the request in v.
func (a *answer) compose(v *View, d *Verdict) {
	*a = answer{set: a.set[:0], respond: a.respond[:0], remove: a.remove[:0], removeQuery: a.removeQuery[:0], shown: a.shown[:0], text: a.text[:0]}
	if d.Allowed() {
		a.admit(v, d)
		return
	}
	a.refuse(v, d)
}

func (a *answer) admit(v *View, d *Verdict) {
	if d.Consumer != "" {
		a.set = a.add(a.set, consumerHeader, d.Consumer)
	}
	if d.Token != "" {
		a.set = a.add(a.set, tokenHeader, d.Token)
	}
	a.respond = a.limitHeaders(a.respond, d)
	for i := range v.Headers {
		name := v.Headers[i].Name
		if !strings.HasPrefix(name, reservedPrefix) || !isToken(name) {
			continue
		}
		// What Tollgate sets replaces what the client sent; removing it would
		// take away what was just set.
		if name == consumerHeader && d.Consumer != "" || name == tokenHeader && d.Token != "" {
			continue
		}
		a.drop(name)
	}
	if d.Strip {
		a.strip(v, d.plan)
	}
}

// strip takes the credentials off the request. A header is left alone where it
// holds another scheme than Tollgate's, for that is the upstream's.
func (a *answer) strip(v *View, p *plan) {
	for i := range p.policy.Credentials {
		c := &p.policy.Credentials[i]
		if c.Header != "" && !a.foreign(v, c) {
			a.drop(c.Header)
		}
	}
	query := v.query()
	for _, name := range p.queries {
		a.removeQuery = spellings(a.removeQuery, query, name)
	}
	if len(p.cookies) == 0 {
		return
	}
	start := len(a.text)
	var dropped bool
	if a.text, dropped = appendCookies(a.text, v, p.cookies); !dropped {
		return
	}
	if len(a.text) == start {
		a.drop("cookie")
		return
	}
	a.set = a.cut(a.set, "cookie", start)
}

// foreign reports whether a credential header is there and holds only other
// schemes. A header that Envoy does not show is removed unseen.
func (a *answer) foreign(v *View, c *Place) bool {
	if wholeValue(c.Scheme) {
		return false
	}
	seen := false
	for i := range v.Headers {
		if v.Headers[i].Name != c.Header {
			continue
		}
		seen = true
		if _, f := headerValue(v.Headers[i].Value, c.Scheme); f != absent {
			return false
		}
	}
	return seen
}

func (a *answer) refuse(v *View, d *Verdict) {
	a.status = d.status()
	switch d.Reason.Status() {
	case 401:
		a.code = codeUnauthenticated
	case 403:
		a.code = codePermissionDenied
	case 503:
		a.code = codeUnavailable
	default:
		a.code = codeResourceExhausted
	}
	a.set = a.tell(a.set, reasonHeader, string(d.Reason))
	switch d.Reason {
	case MissingCredentials:
		a.set = a.tell(a.set, "www-authenticate", "Bearer")
	case InvalidCredentials:
		a.set = a.tell(a.set, "www-authenticate", `Bearer error="invalid_token"`)
	case RateLimited, UpstreamPressure, StoreUnavailable:
		if d.RetryAfter > 0 {
			start := len(a.text)
			a.text = strconv.AppendInt(a.text, d.RetryAfter, 10)
			a.set = a.take(a.set, "retry-after", start)
		}
		if d.Reason != StoreUnavailable {
			a.set = a.limitHeaders(a.set, d)
		}
	}
	if d.GRPC {
		// Without it Envoy tells gRPC clients UNAVAILABLE, which many retry at once.
		start := len(a.text)
		a.text = strconv.AppendInt(a.text, int64(a.code), 10)
		a.set = a.take(a.set, "grpc-status", start)
	}
	a.set = a.tell(a.set, "content-type", contentType(d))
	start := len(a.text)
	a.text = appendBody(a.text, v, d)
	a.body = a.text[start:len(a.text):len(a.text)]
}

// add appends a header with a copy of value that is safe to send: visible ASCII
// and spaces, anything else as a question mark.
func (a *answer) add(to []ReplyHeader, name, value string) []ReplyHeader {
	start := len(a.text)
	a.text = append(a.text, value...)
	return a.cut(to, name, start)
}

// tell is add for what Tollgate itself says.
func (a *answer) tell(to []ReplyHeader, name, value string) []ReplyHeader {
	start := len(a.text)
	a.text = append(a.text, value...)
	return a.take(to, name, start)
}

// cut appends a header whose value is what was written to text since start, and
// makes it safe to send.
func (a *answer) cut(to []ReplyHeader, name string, start int) []ReplyHeader {
	for i, c := range a.text[start:] {
		if c < ' ' || c > '~' {
			a.text[start+i] = '?'
		}
	}
	return a.take(to, name, start)
}

// take is cut for what is safe as it is.
func (a *answer) take(to []ReplyHeader, name string, start int) []ReplyHeader {
	return append(to, ReplyHeader{Name: name, Value: a.text[start:len(a.text):len(a.text)]})
}

func (a *answer) drop(name string) {
	if !slices.Contains(a.remove, name) {
		a.remove = append(a.remove, name)
	}
}

// isToken reports whether a name can be one of a header (RFC 9110 section 5.6.2).
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c > '~' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return name != ""
}
