package extauthz

import "strings"

// NormalPath returns the path that all spellings of one resource share, without
// its query: ;parameters are cut from every segment, percent-encoded unreserved
// characters (RFC 3986 section 2.3) are decoded and all that is not visible
// ASCII is escaped, slashes are merged and dot segments resolved. The case of letters
// is kept. Nothing is allocated for a path that is normal already.
func NormalPath(path string) string {
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	if isNormal(path) {
		return path
	}
	out := make([]byte, 0, len(path)+1)
	for segment := range strings.SplitSeq(path, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		start := len(out)
		out = appendDecoded(append(out, '/'), segment)
		switch string(out[start+1:]) {
		case "", ".":
			out = out[:start]
		case "..":
			out = out[:max(0, lastSlash(out[:start]))]
		}
	}
	if len(out) == 0 || endsInDirectory(path) {
		out = append(out, '/')
	}
	return string(out)
}

// isNormal reports whether NormalPath would change nothing: the path begins
// with a slash and holds no escape, parameter, empty or dot segment.
func isNormal(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '%' || c == ';' || c <= ' ' || c > '~':
			return false
		case c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.'):
			return false
		}
	}
	return true
}

// endsInDirectory reports whether the last segment of a path is empty or made of dots.
func endsInDirectory(path string) bool {
	last, _, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ";")
	switch string(appendDecoded(nil, last)) {
	case "", ".", "..":
		return true
	}
	return false
}

func lastSlash(path []byte) int {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return i
		}
	}
	return -1
}

// appendDecoded decodes the escapes of unreserved characters, once: a percent
// sign comes out escaped, so that what it hides is not decoded the next time.
func appendDecoded(out []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c, escaped := escapeAt(s, i)
		if escaped {
			i += 2
		} else {
			c = s[i]
		}
		if unreserved(c) || !escaped && c > ' ' && c <= '~' && c != '%' {
			out = append(out, c)
			continue
		}
		const digits = "0123456789ABCDEF"
		out = append(out, '%', digits[c>>4], digits[c&15])
	}
	return out
}

// escapeAt reads the percent-encoded byte at s[i:].
func escapeAt(s string, i int) (byte, bool) {
	if s[i] != '%' || i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := hexDigit(s[i+1])
	lo, ok2 := hexDigit(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func unreserved(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == '.' || c == '_' || c == '~'
}
