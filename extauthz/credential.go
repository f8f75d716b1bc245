package extauthz

import (
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// maxCredential is the longest credential that is looked at. Envoy takes at
// most 60 KiB of headers by default; nothing that anybody issues is near this.
const maxCredential = 16 << 10

// finding is what a place held.
type finding int

const (
	absent finding = iota
	malformed
	secret   // a token, to be hashed
	identity // a consumer's id that Envoy vouches for
)

// credential returns what stands in the first place that holds anything.
func (p *plan) credential(v *View) (string, finding) {
	for i := range p.policy.Credentials {
		place := &p.policy.Credentials[i]
		var value string
		var f finding
		switch {
		case place.Header != "":
			value, f = headerCredential(v, place.Header, place.Scheme)
		case place.Query != "":
			value, f = queryCredential(v.query(), place.Query)
		case place.Cookie != "":
			value, f = cookieCredential(v, place.Cookie)
		case place.Principal:
			value, f = principalCredential(v.Principal)
		default:
			value, f = metadataCredential(v, place.Metadata)
		}
		if f != absent {
			return value, f
		}
	}
	return "", absent
}

// headerCredential looks at every value of a header: one of several, or one
// joined with others by a comma, is malformed whatever the others are.
func headerCredential(v *View, name, scheme string) (string, finding) {
	var value string
	found, count := absent, 0
	for i := range v.Headers {
		if v.Headers[i].Name != name {
			continue
		}
		count++
		one, f := headerValue(v.Headers[i].Value, scheme)
		if f != absent {
			value, found = one, f
		}
	}
	if found != absent && count > 1 {
		return "", malformed
	}
	return value, found
}

func headerValue(value, scheme string) (string, finding) {
	if wholeValue(scheme) {
		if value == "" {
			return "", absent
		}
		return token(value)
	}
	if scheme == SchemeApollo {
		return apolloToken(value)
	}
	rest, ok := cutScheme(value, scheme)
	if ok {
		return token(strings.TrimLeft(rest, " "))
	}
	for {
		_, joined, more := strings.Cut(value, ",")
		if !more {
			return "", absent
		}
		if _, ok := cutScheme(strings.TrimLeft(joined, " \t"), scheme); ok {
			return "", malformed
		}
		value = joined
	}
}

// SchemeApollo is the scheme of Apollo's portal: no scheme at all before a
// token of 40 or 64 hexadecimal digits, in either case, or Bearer before a user's
// token.
const SchemeApollo = "apollo"

const apolloUserPrefix = "apollo_pat_"

// apolloToken reads a token in any spelling that the portal takes for it, and
// refuses everything else.
func apolloToken(value string) (string, finding) {
	if value == "" {
		return "", absent
	}
	if rest, ok := strings.CutPrefix(value, "Bearer "); ok {
		if t, f := token(strings.Trim(rest, " \t")); f == secret && strings.HasPrefix(t, apolloUserPrefix) {
			return t, secret
		}
		return "", malformed
	}
	if len(value) != 40 && len(value) != 64 {
		return "", malformed
	}
	for i := range len(value) {
		if c := lower(value[i]); (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", malformed
		}
	}
	return consumers.FoldHex(value), secret
}

func wholeValue(scheme string) bool { return scheme == "" || scheme == "none" }

// cutScheme takes the scheme off a value (RFC 9110 section 11.1: its case does
// not matter) if it is that scheme's.
func cutScheme(value, scheme string) (string, bool) {
	n := len(scheme)
	if len(value) < n || !equalFold(value[:n], scheme) {
		return "", false
	}
	if len(value) > n && value[n] != ' ' && value[n] != '\t' && value[n] != ',' {
		return "", false
	}
	return value[n:], true
}

// equalFold compares ASCII; strings.EqualFold would take a Kelvin sign for a K.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// token checks a credential: visible ASCII without a comma, so that no two
// spellings of one token differ only in what a proxy or a database ignores.
func token(s string) (string, finding) {
	if s == "" || len(s) > maxCredential {
		return "", malformed
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ',' {
			return "", malformed
		}
	}
	return s, secret
}

func queryCredential(query, name string) (string, finding) {
	var value string
	found, count := absent, 0
	for query != "" {
		var key, escaped string
		key, escaped, query = nextPair(query)
		if !isKey(key, name) {
			continue
		}
		count++
		if escaped == "" {
			continue
		}
		found = malformed
		if one, ok := unescape(escaped); ok {
			value, found = token(one)
		}
	}
	if found != absent && count > 1 {
		return "", malformed
	}
	return value, found
}

// principalCredential makes a consumer's id of a certificate's principal. SPIFFE
// ids hold no @, so that writing it for the slash keeps different ids different;
// any other principal that holds one could be mistaken for such an id.
func principalCredential(principal string) (string, finding) {
	if principal == "" {
		return "", absent
	}
	if strings.IndexByte(principal, '@') >= 0 {
		return "", malformed
	}
	if id, ok := strings.CutPrefix(principal, "spiffe://"); ok {
		return strings.ReplaceAll(id, "/", "@"), identity
	}
	return principal, identity
}

func metadataCredential(v *View, path []string) (string, finding) {
	id, ok := v.metadata(path...)
	switch {
	case !ok:
		return "", absent
	case id == "":
		return "", malformed
	}
	return id, identity
}
