package embedded

import (
	"bytes"
	"encoding/base64"
	"strconv"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// cursor reads a consumer as encodeConsumer writes most: without labels, without
// escapes, and tokens with nothing but an id, a hash and when they were made.
// Whatever is not so it leaves to package json, at a tenth of the speed: a million
// consumers are to be read before the server is ready.
type cursor struct{ rest []byte }

// skip passes over text if it comes next.
func (c *cursor) skip(text string) bool {
	if len(c.rest) < len(text) || string(c.rest[:len(text)]) != text {
		return false
	}
	c.rest = c.rest[len(text):]
	return true
}

// text returns what stands before the next quote, if nothing in it is escaped.
func (c *cursor) text() ([]byte, bool) {
	end := bytes.IndexByte(c.rest, '"')
	if end < 0 {
		return nil, false
	}
	text := c.rest[:end]
	for _, b := range text {
		if b == '\\' || b < ' ' || b > '~' {
			return nil, false
		}
	}
	c.rest = c.rest[end+1:]
	return text, true
}

// array returns an array in which no string has a bracket or is escaped.
func (c *cursor) array() ([]byte, bool) {
	end := bytes.IndexByte(c.rest, ']')
	if end < 0 || bytes.IndexByte(c.rest[:end], '\\') >= 0 || bytes.IndexByte(c.rest[1:end], '[') >= 0 {
		return nil, false
	}
	array := c.rest[:end+1]
	c.rest = c.rest[end+1:]
	return array, true
}

// consumer reads a whole value, or reports that it is none of this form.
func (c *cursor) consumer(into *consumers.Consumer, cache limitsCache) bool {
	if !c.skip(`{"version":`) {
		return false
	}
	digits := c.rest[:max(0, bytes.IndexAny(c.rest, ",}"))]
	version, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	into.Version, c.rest = version, c.rest[len(digits):]
	if c.skip(`,"plan":"`) {
		plan, ok := c.text()
		if !ok {
			return false
		}
		into.Plan = string(plan)
	}
	if c.skip(`,"limits":`) {
		if len(c.rest) == 0 || c.rest[0] != '[' {
			return false
		}
		array, ok := c.array()
		if !ok {
			return false
		}
		if into.Limits, err = cache.read(array); err != nil {
			return false
		}
	}
	into.Disabled = c.skip(`,"disabled":true`)
	if c.skip(`,"tokens":[`) {
		for more := true; more; more = c.skip(",") {
			var t consumers.Token
			if !c.token(&t) {
				return false
			}
			into.Tokens = append(into.Tokens, t)
		}
		if !c.skip("]") {
			return false
		}
	}
	return c.skip("}") && len(c.rest) == 0
}

func (c *cursor) token(into *consumers.Token) bool {
	if !c.skip(`{"id":"`) {
		return false
	}
	id, ok := c.text()
	if !ok || !c.skip(`,"sha256":"`) {
		return false
	}
	into.ID = string(id)
	hash, ok := c.text()
	if !ok || len(hash) != base64.StdEncoding.EncodedLen(len(into.Hash)) {
		return false
	}
	var room [36]byte // what so many digits may hold at most
	if n, err := base64.StdEncoding.Decode(room[:], hash); err != nil || n != len(into.Hash) {
		return false
	}
	into.Hash = consumers.Hash(room[:len(into.Hash)])
	if c.skip(`,"created":`) {
		end := bytes.IndexAny(c.rest, ",}")
		if end < 0 || into.Created.UnmarshalJSON(c.rest[:end]) != nil {
			return false
		}
		c.rest = c.rest[end:]
	}
	return c.skip("}")
}
