package descriptors

import (
	"crypto/sha256"
	"encoding/binary"
)

// maxKey is how long a key may be in clear. A longer one becomes its SHA-256,
// so that what callers send does not decide what a counter costs.
const maxKey = 64

// The forms of a key, its first byte.
const (
	keyPlain  = iota // domain, entries
	keyTagged        // tag, domain, entries
	keyHashed        // SHA-256 of one of the above
)

// The forms of an entry in a key.
const (
	entryPlain  = iota
	entryShared // a pattern stands for all values that match it
)

// AppendKey appends the key of the counter that a rule has for these entries.
// Every text is preceded by its length, so that different domains, entries and
// limits have different keys; the key does not depend on the rule's place or
// values. A key that would be long, or hold a credential in clear, is hashed.
func (r *Rule) AppendKey(dst []byte, entries []Entry) []byte {
	start := len(dst)
	hash := false
	if r.tag == "" {
		dst = append(dst, keyPlain)
	} else {
		dst = appendText(append(dst, keyTagged), r.tag)
	}
	dst = appendText(dst, r.domain)
	for i, e := range entries {
		if i < len(r.shared) && r.shared[i] != (Entry{}) {
			dst = append(dst, entryShared)
			e = r.shared[i]
		} else {
			dst = append(dst, entryPlain)
			hash = hash || e.Key == tokenKey
		}
		dst = appendText(appendText(dst, e.Key), e.Value)
	}
	if hash || len(dst)-start > maxKey {
		sum := sha256.Sum256(dst[start:])
		dst = append(append(dst[:start], keyHashed), sum[:]...)
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
