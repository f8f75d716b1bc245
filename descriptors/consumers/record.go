package consumers

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// record is a consumer as a registry keeps it: one string of length-prefixed
// fields, a part of the text of its bucket in the index. It holds the first 64 bits of each hash; the whole hash stands in the
// index of tokens. Equal consumers have equal records.
type record string

// view is a record's fields. Its strings are parts of the record.
type view struct {
	id       string
	plan     string
	limits   string // its own limits in the form of encodeLimits; empty: none of its own
	labels   string // length-prefixed keys and values, keys ascending
	disabled bool
	tokens   string // token records one after the other
}

// tokenView is one token of a record.
type tokenView struct {
	id            string
	key           uint64 // of the hash
	expires       limits.Time
	previous      uint64      // of the hash before the last rotation
	previousUntil limits.Time // 0: no previous hash
}

// never is an expiry that no clock reaches.
const never = limits.Time(1<<63 - 1)

func newRecord(c *Consumer) record {
	return record(appendRecord(make([]byte, 0, 128), c))
}

// appendRecord is newRecord into a buffer.
func appendRecord(b []byte, c *Consumer) []byte {
	b = appendText(b, c.ID)
	b = appendText(b, c.Plan)
	b = appendText(b, encodeLimits(c.Limits))
	b = appendText(b, encodeLabels(c.Labels))
	if c.Disabled {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	for i := range c.Tokens {
		t := &c.Tokens[i]
		b = appendText(b, t.ID)
		b = binary.BigEndian.AppendUint64(b, t.Hash.key())
		b = appendTime(b, t.Expires)
		if t.Previous.Zero() {
			b = append(b, 0)
			continue
		}
		b = append(b, 1)
		b = binary.BigEndian.AppendUint64(b, t.Previous.key())
		b = appendTime(b, t.PreviousUntil)
	}
	return b
}

func (r record) view() view {
	s := string(r)
	var v view
	v.id, s = cutText(s)
	v.plan, s = cutText(s)
	v.limits, s = cutText(s)
	v.labels, s = cutText(s)
	v.disabled, v.tokens = s[0] == 1, s[1:]
	return v
}

// id is view().id, for comparisons.
func (r record) id() string {
	id, _ := cutText(string(r))
	return id
}

// version is another one whenever the record is, also over restarts.
func (r record) version() uint64 {
	return HashOf(string(r)).key()>>1 | 1 // neither Always nor IfAbsent
}

// eachToken yields the tokens in order.
func (v *view) eachToken(yield func(tokenView) bool) {
	for s := v.tokens; s != ""; {
		var t tokenView
		t.id, s = cutText(s)
		t.key, s = cutUint64(s)
		t.expires, s = cutTime(s)
		rotated := s[0] == 1
		if s = s[1:]; rotated {
			t.previous, s = cutUint64(s)
			t.previousUntil, s = cutTime(s)
		}
		if !yield(t) {
			return
		}
	}
}

// token finds one by the key of its present or its previous hash.
func (v *view) token(key uint64) (tokenView, bool) {
	for t := range v.eachToken {
		if t.key == key || t.previousUntil != 0 && t.previous == key {
			return t, true
		}
	}
	return tokenView{}, false
}

// named finds one by its id.
func (v *view) named(id string) (tokenView, bool) {
	for t := range v.eachToken {
		if t.id == id {
			return t, true
		}
	}
	return tokenView{}, false
}

func encodeLabels(labels map[string]string) string {
	var b []byte
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		b = appendText(appendText(b, k), labels[k])
	}
	return string(b)
}

func decodeLabels(s string) map[string]string {
	if s == "" {
		return nil
	}
	labels := map[string]string{}
	for s != "" {
		var k, v string
		k, s = cutText(s)
		v, s = cutText(s)
		labels[k] = v
	}
	return labels
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// cutText reads what appendText wrote. Records never leave the process, so
// there is no malformed one to guard against.
func cutText(s string) (text, rest string) {
	n, i := 0, 0
	for shift := 0; ; shift += 7 {
		c := s[i]
		i++
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			return s[i : i+n], s[i+n:]
		}
	}
}

func cutUint64(s string) (uint64, string) {
	var n uint64
	for i := range 8 {
		n = n<<8 | uint64(s[i])
	}
	return n, s[8:]
}

// appendTime writes a time in one byte where it is zero, else in nine.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.BigEndian.AppendUint64(append(b, 1), uint64(instant(t)))
}

// instant is limits.At for any year, also those that nanoseconds in 64 bits do
// not reach.
func instant(t time.Time) limits.Time {
	switch {
	case t.Year() > 2261:
		return never
	case t.Year() < 1678:
		return -never
	}
	return limits.At(t)
}

func cutTime(s string) (limits.Time, string) {
	if s[0] == 0 {
		return never, s[1:]
	}
	n, rest := cutUint64(s[1:])
	return limits.Time(n), rest
}
