package extauthz

import "strings"

// cookieCredential looks for a cookie (RFC 6265 section 4.2.1) in all cookie
// headers. Quotes around the value are not part of it.
func cookieCredential(v *View, name string) (string, finding) {
	var token string
	found := absent
	for i := range v.Headers {
		if v.Headers[i].Name != "cookie" {
			continue
		}
		for rest := v.Headers[i].Value; rest != ""; {
			var pair string
			pair, rest = nextCookie(rest)
			if !holdsCookie(pair, name) {
				continue
			}
			if found != absent {
				return "", malformed
			}
			token, found = cookieToken(pair, name)
		}
	}
	return token, found
}

// cookieToken reads the value of a pair that holds the cookie. One that stands
// behind a comma came from a second, joined header.
func cookieToken(pair, name string) (string, finding) {
	key, value, _ := strings.Cut(pair, "=")
	if strings.Trim(key, " \t") != name {
		return "", malformed
	}
	value = strings.Trim(value, " \t")
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		value = value[1 : n-1]
	}
	if value == "" {
		return "", absent
	}
	return token(value)
}

func nextCookie(header string) (pair, rest string) {
	pair, rest, _ = strings.Cut(header, ";")
	return strings.Trim(pair, " \t"), rest
}

// holdsCookie reports whether pair, or a part of it behind a comma, sets name.
func holdsCookie(pair, name string) bool {
	for pair != "" {
		var part string
		part, pair, _ = strings.Cut(pair, ",")
		if key, _, ok := strings.Cut(part, "="); ok && strings.Trim(key, " \t") == name {
			return true
		}
	}
	return false
}

// appendCookies appends the request's cookies without those named. It reports
// whether one of them was there.
func appendCookies(out []byte, v *View, names []string) ([]byte, bool) {
	start, dropped := len(out), false
	for i := range v.Headers {
		if v.Headers[i].Name != "cookie" {
			continue
		}
		for rest := v.Headers[i].Value; rest != ""; {
			var pair string
			pair, rest = nextCookie(rest)
			if holdsAny(pair, names) {
				dropped = true
				continue
			}
			if pair == "" {
				continue
			}
			if len(out) > start {
				out = append(out, "; "...)
			}
			out = append(out, pair...)
		}
	}
	return out, dropped
}

func holdsAny(pair string, names []string) bool {
	for _, name := range names {
		if holdsCookie(pair, name) {
			return true
		}
	}
	return false
}
