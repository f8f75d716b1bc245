package extauthz

import (
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
)

// problemBase is what the types of all problems begin with (RFC 9457 section
// 3.1.1). It names them; nothing needs to be there to be read.
const problemBase = "https://github.com/tollgate-dev/tollgate/problems/"

func contentType(d *Verdict) string {
	switch {
	case d.GRPC:
		return "text/plain; charset=utf-8"
	case d.Answer == AnswerApollo, d.Answer == AnswerKeeper:
		return "application/json"
	}
	return "application/problem+json"
}

// appendBody appends the body of a refusal. A gRPC client reads it as grpc-message.
func appendBody(b []byte, v *View, d *Verdict) []byte {
	switch {
	case d.GRPC:
		return appendDetail(b, d)
	case d.Answer == AnswerApollo:
		return appendApollo(b, v, d)
	case d.Answer == AnswerKeeper:
		return appendKeeper(b, d)
	}
	return appendProblem(b, d)
}

func appendProblem(b []byte, d *Verdict) []byte {
	b = append(b, `{"type":"`+problemBase...)
	b = append(b, d.Reason...)
	b = append(b, `","title":"`...)
	b = append(b, d.title()...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(d.status()), 10)
	b = append(b, `,"detail":`...)
	b = appendQuoted(b, func(b []byte) []byte { return appendDetail(b, d) })
	if d.Limit != nil {
		b = append(b, `,"limit":`...)
		b = appendQuoted(b, func(b []byte) []byte { return append(b, d.Limit.Limit().Name...) })
	}
	return append(appendRetryAfter(b, d), '}')
}

// appendApollo writes the error JSON of Spring Boot, which Apollo's own clients know.
func appendApollo(b []byte, v *View, d *Verdict) []byte {
	b = append(b, `{"timestamp":"`...)
	b = d.At.Std().AppendFormat(b, "2006-01-02T15:04:05.000-07:00")
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(d.status()), 10)
	b = append(b, `,"error":"`...)
	b = append(b, http.StatusText(d.status())...)
	b = append(b, `","message":`...)
	b = appendQuoted(b, func(b []byte) []byte { return appendDetail(b, d) })
	b = append(b, `,"path":`...)
	path, _, _ := strings.Cut(v.Path, "?")
	b = appendQuoted(b, func(b []byte) []byte { return append(b, path...) })
	return append(b, '}')
}

// appendKeeper writes what the SDKs of Keeper Secrets Manager retry upon.
func appendKeeper(b []byte, d *Verdict) []byte {
	word := "access_denied"
	if d.Reason == RateLimited || d.Reason == UpstreamPressure {
		word = "throttled"
	}
	b = append(b, `{"error":"`...)
	b = append(b, word...)
	b = append(b, `","message":`...)
	b = appendQuoted(b, func(b []byte) []byte { return appendDetail(b, d) })
	return append(appendRetryAfter(b, d), '}')
}

func appendRetryAfter(b []byte, d *Verdict) []byte {
	if d.RetryAfter == 0 {
		return b
	}
	b = append(b, `,"retry_after":`...)
	return strconv.AppendInt(b, d.RetryAfter, 10)
}

// title returns the short name of the problem's type.
func (d *Verdict) title() string {
	switch d.Reason {
	case MissingCredentials:
		return "Missing credentials"
	case InvalidCredentials:
		return "Invalid credentials"
	case ConsumerDisabled:
		return "Consumer disabled"
	}
	if d.Reason == UpstreamPressure {
		return "Upstream under pressure"
	}
	if d.Reason == StoreUnavailable {
		return "Limits unavailable"
	}
	return "Rate limited"
}

// appendDetail says what happened to this request, and what to do about it.
func appendDetail(b []byte, d *Verdict) []byte {
	switch d.Reason {
	case MissingCredentials:
		return append(b, d.plan.missing...)
	case InvalidCredentials:
		return append(b, "The token is unknown, malformed, expired or revoked."...)
	case ConsumerDisabled:
		b = append(b, "The consumer "...)
		b = append(b, d.Consumer...)
		return append(b, " is disabled."...)
	case StoreUnavailable:
		return append(b, "The store that counts this limit cannot be asked."...)
	}
	switch {
	case d.Limit == nil || d.why != "" && d.why != upstreams.Limited:
		b = appendOutward(b, d)
	case d.RetryAfter == 0:
		b = append(b, "The limit "...)
		b = append(b, d.Limit.Limit().Name...)
		return append(b, " does not admit this request, however long it waits."...)
	default:
		b = append(b, "The limit "...)
		b = append(b, d.Limit.Limit().Name...)
		b = append(b, " is exhausted"...)
	}
	b = append(b, ": try again in "...)
	b = strconv.AppendInt(b, d.RetryAfter, 10)
	return append(b, " s."...)
}

// appendQuoted appends what write appends, as a JSON string (RFC 8259 section
// 7): control characters escaped, broken UTF-8 replaced.
func appendQuoted(b []byte, write func([]byte) []byte) []byte {
	b = append(b, '"')
	start := len(b)
	b = write(b)
	if isPlain(b[start:]) {
		return append(b, '"')
	}
	raw := string(b[start:])
	b = b[:start]
	for _, r := range raw { // ranging replaces broken UTF-8
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// isPlain reports whether b needs no escape in JSON.
func isPlain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
