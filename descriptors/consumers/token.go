package consumers

import (
	"crypto/rand"
	"encoding/base64"
	"hash/crc32"
	"strings"
)

// An issued token is the prefix, 32 random bytes and their checksum. The
// checksum lets a secret scanner tell a real token from one that was made up,
// and the server refuse a mistyped one without looking for it.
const (
	TokenPrefix  = "tg_"
	secretLen    = 43 // 32 bytes in base64url without padding
	checksumLen  = 6  // CRC-32 (IEEE) of the secret's text, in base 62 with leading zeros
	tokenLen     = len(TokenPrefix) + secretLen + checksumLen
	base62Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// NewToken returns a fresh secret of the form tg_<43 characters><6 characters>:
// 256 random bits and a checksum. Show it once and keep only its [HashOf].
func NewToken() string {
	var secret [32]byte
	rand.Read(secret[:]) // never returns an error: crypto/rand ends the program instead
	t := make([]byte, 0, tokenLen)
	t = append(t, TokenPrefix...)
	t = base64.RawURLEncoding.AppendEncode(t, secret[:])
	sum := checksum(string(t[len(TokenPrefix):]))
	return string(append(t, sum[:]...))
}

// WellFormed reports whether a token that claims to be Tollgate's, by its
// prefix, can be one. Tokens without the prefix are somebody else's and always
// well-formed. Nothing is allocated.
func WellFormed(token string) bool {
	if len(token) < len(TokenPrefix) || token[:len(TokenPrefix)] != TokenPrefix {
		return true
	}
	if len(token) != tokenLen {
		return false
	}
	secret, sum := token[len(TokenPrefix):tokenLen-checksumLen], token[tokenLen-checksumLen:]
	want := checksum(secret)
	return string(want[:]) == sum
}

func checksum(secret string) [checksumLen]byte {
	rest := crc32.ChecksumIEEE(bytesOf(secret))
	var digits [checksumLen]byte
	for i := checksumLen - 1; i >= 0; i-- {
		digits[i] = base62Digits[rest%62]
		rest /= 62
	}
	return digits
}

// FoldHex returns a token of 40 or 64 hexadecimal digits in lower case and any
// other as it is: Apollo's portal, whose tokens look so, takes either case.
// Nothing is allocated for what is in lower case already.
func FoldHex(token string) string {
	if len(token) != 40 && len(token) != 64 {
		return token
	}
	for i := range len(token) {
		if c := token[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return token
		}
	}
	return strings.ToLower(token)
}
