package extauthz

import "strings"

// nextPair takes the first parameter off a query. The key and the value are as
// sent, still escaped.
func nextPair(query string) (key, value, rest string) {
	pair, rest, _ := strings.Cut(query, "&")
	key, value, _ = strings.Cut(pair, "=")
	return key, value, rest
}

// unescape decodes all percent-encoded bytes. A plus sign stays one: no token
// holds a space, so the form encoding's reading of it could never be meant.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		c, ok := escapeAt(s, i)
		if !ok {
			return "", false
		}
		out = append(out, c)
		i += 2
	}
	return string(out), true
}

// isKey reports whether an escaped key means name.
func isKey(escaped, name string) bool {
	if escaped == name {
		return true
	}
	if strings.IndexByte(escaped, '%') < 0 {
		return false
	}
	key, ok := unescape(escaped)
	return ok && key == name
}

// queryValue returns the first value of a parameter, decoded.
func queryValue(query, name string) (string, bool) {
	for query != "" {
		var key, value string
		key, value, query = nextPair(query)
		if isKey(key, name) {
			return unescape(value)
		}
	}
	return "", false
}

// spellings appends how the query spells a parameter that is in it, name
// itself first: Envoy may compare names before or after it decodes them.
func spellings(out []string, query, name string) []string {
	start := len(out)
	for query != "" {
		var key string
		key, _, query = nextPair(query)
		if !isKey(key, name) {
			continue
		}
		if len(out) == start {
			out = append(out, name)
		}
		if key != name {
			out = append(out, key)
		}
	}
	return out
}
