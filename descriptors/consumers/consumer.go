package consumers

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
	"unsafe"
)

// Consumer is who calls, as sources and the admin API speak of it. It is a
// plain value; a [Registry] keeps nothing that the caller could change later.
type Consumer struct {
	ID       string
	Plan     string
	Limits   Limits // its own, in place of its plan's; nil: the plan's or the default
	Labels   map[string]string
	Disabled bool
	Tokens   []Token
	Version  uint64 // set by stores that can be written to: another one with every change, for ETags
}

// Token is one credential of a consumer. Only the hash of its secret is known.
type Token struct {
	ID            string
	Hash          Hash
	Expires       time.Time // zero: never
	Created       time.Time // zero: unknown
	Previous      Hash      // the secret before the last rotation; zero: none
	PreviousUntil time.Time // until when Previous is accepted too
}

// Plan is a named list of limits.
type Plan struct {
	Limits Limits
}

// Set is everything that a source holds.
type Set struct {
	Plans     map[string]Plan
	Consumers []Consumer
}

// Hash is the SHA-256 of a credential. The zero value stands for no credential.
type Hash [sha256.Size]byte

// HashOf hashes a credential as it stands in the request. Nothing is allocated.
func HashOf(credential string) Hash {
	return sha256.Sum256(bytesOf(credential))
}

// bytesOf is the bytes of s, for functions that only read them; the conversion
// []byte(s) would copy.
func bytesOf(s string) []byte {
	return unsafe.Slice(unsafe.StringData(s), len(s))
}

// HashOfBytes is [HashOf] for a credential in a buffer.
func HashOfBytes(credential []byte) Hash {
	return sha256.Sum256(credential)
}

// ParseHash reads the 64 hexadecimal digits of a SHA-256, in either case.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != hex.EncodedLen(len(h)) {
		return h, fmt.Errorf("a SHA-256 has 64 hexadecimal digits, got %d characters: make one with `printf %%s TOKEN | sha256sum`", len(s))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, fmt.Errorf("a SHA-256 has only the digits 0-9 and a-f: %w", err)
	}
	return h, nil
}

// String returns the hash in hexadecimal, as consumers files spell it.
func (h Hash) String() string {
	return hex.EncodeToString(h[:])
}

// Zero reports whether h stands for no credential.
func (h Hash) Zero() bool {
	return h == Hash{}
}

// key is the part of a hash that places it in an index.
func (h Hash) key() uint64 {
	return uint64(h[0])<<56 | uint64(h[1])<<48 | uint64(h[2])<<40 | uint64(h[3])<<32 |
		uint64(h[4])<<24 | uint64(h[5])<<16 | uint64(h[6])<<8 | uint64(h[7])
}
