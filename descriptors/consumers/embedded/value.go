package embedded

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// seal puts a checksum before a value: bbolt notices a damaged page of its own
// but not a damaged value.
func seal(value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(value)), crc32.ChecksumIEEE(value)), value...)
}

var errChecksum = errors.New("a value's checksum is wrong")

func unseal(sealed []byte) ([]byte, error) {
	if len(sealed) < 4 || binary.BigEndian.Uint32(sealed) != crc32.ChecksumIEEE(sealed[4:]) {
		return nil, errChecksum
	}
	return sealed[4:], nil
}

// consumerValue is a consumer as it stands in the file.
type consumerValue struct {
	Version  uint64            `json:"version"`
	Plan     string            `json:"plan,omitempty"`
	Limits   json.RawMessage   `json:"limits,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Disabled bool              `json:"disabled,omitempty"`
	Tokens   []tokenValue      `json:"tokens,omitempty"`
}

type tokenValue struct {
	ID            string     `json:"id"`
	Hash          []byte     `json:"sha256"`
	Expires       *time.Time `json:"expires,omitempty"`
	Created       *time.Time `json:"created,omitempty"`
	Previous      []byte     `json:"previous,omitempty"`
	PreviousUntil *time.Time `json:"previous_until,omitempty"`
}

func encodeConsumer(c *consumers.Consumer) ([]byte, error) {
	v := consumerValue{Version: c.Version, Plan: c.Plan, Labels: c.Labels, Disabled: c.Disabled}
	if c.Limits != nil {
		ls, err := c.Limits.MarshalJSON()
		if err != nil {
			return nil, err
		}
		v.Limits = ls
	}
	for i := range c.Tokens {
		t := &c.Tokens[i]
		tv := tokenValue{ID: t.ID, Hash: t.Hash[:], Expires: given(t.Expires), Created: given(t.Created)}
		if !t.Previous.Zero() {
			tv.Previous, tv.PreviousUntil = t.Previous[:], given(t.PreviousUntil)
		}
		v.Tokens = append(v.Tokens, tv)
	}
	b, err := json.Marshal(&v)
	return seal(b), err
}

// limitsCache keeps limits by their text: in a large file they are often alike,
// and reading them is most of the work. Those it returns are shared.
type limitsCache map[string]consumers.Limits

// maxCached bounds a cache.
const maxCached = 10_000

func (c limitsCache) read(text []byte) (ls consumers.Limits, err error) {
	if ls, ok := c[string(text)]; ok {
		return ls, nil
	}
	if err = ls.UnmarshalJSON(text); err == nil && c != nil && len(c) < maxCached {
		c[string(text)] = ls
	}
	return ls, err
}

// decodeConsumer reads what encodeConsumer wrote. The cache may be nil.
func decodeConsumer(id string, sealed []byte, cache limitsCache) (consumers.Consumer, error) {
	b, err := unseal(sealed)
	if err != nil {
		return consumers.Consumer{}, err
	}
	if c := (consumers.Consumer{ID: id}); (&cursor{b}).consumer(&c, cache) {
		return c, nil
	}
	return decodeJSON(id, b, cache)
}

// decodeJSON reads any consumer.
func decodeJSON(id string, b []byte, cache limitsCache) (consumers.Consumer, error) {
	var v consumerValue
	if err := json.Unmarshal(b, &v); err != nil {
		return consumers.Consumer{}, err
	}
	c := consumers.Consumer{ID: id, Version: v.Version, Plan: v.Plan, Labels: v.Labels, Disabled: v.Disabled}
	if v.Limits != nil {
		var err error
		if c.Limits, err = cache.read(v.Limits); err != nil {
			return c, err
		}
	}
	for _, tv := range v.Tokens {
		t := consumers.Token{ID: tv.ID, Expires: at(tv.Expires), Created: at(tv.Created), PreviousUntil: at(tv.PreviousUntil)}
		if copy(t.Hash[:], tv.Hash) != len(t.Hash) {
			return c, errors.New("a hash is cut short")
		}
		copy(t.Previous[:], tv.Previous)
		c.Tokens = append(c.Tokens, t)
	}
	return c, nil
}

func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func at(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
