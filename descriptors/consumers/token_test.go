package consumers_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

func TestNewToken(t *testing.T) {
	form := regexp.MustCompile(`^tg_[A-Za-z0-9_-]{43}[A-Za-z0-9]{6}$`)
	seen := map[string]bool{}
	for range 1000 {
		token := consumers.NewToken()
		if !form.MatchString(token) || !consumers.WellFormed(token) {
			t.Fatalf("NewToken() = %q, not well-formed", token)
		}
		if seen[token] {
			t.Fatalf("NewToken() = %q twice", token)
		}
		seen[token] = true
	}
}

func TestWellFormed(t *testing.T) {
	// The checksum is CRC-32 (IEEE) of the 43 characters: computed with another tool.
	const good = "tg_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" + "0DofJ8"
	for _, c := range []struct {
		name, token string
		want        bool
	}{
		{"somebody else's", "sk_live_1234", true},
		{"empty", "", true},
		{"shorter than the prefix", "tg", true},
		{"good", good, true},
		{"prefix alone", "tg_", false},
		{"cut", good[:len(good)-1], false},
		{"longer", good + "0", false},
		{"another secret", strings.Replace(good, "AAAA", "AAAB", 1), false},
		{"another checksum", good[:len(good)-1] + "z", false},
		{"another case", strings.ToUpper(good), true}, // TG_ is not the prefix
	} {
		if got := consumers.WellFormed(c.token); got != c.want {
			t.Errorf("%s: WellFormed(%q) = %v, want %v", c.name, c.token, got, c.want)
		}
	}
}

// FuzzWellFormed changes one byte of a real token: the checksum notices.
func FuzzWellFormed(f *testing.F) {
	f.Add(5, byte('A'))
	f.Add(51, byte('0'))
	f.Fuzz(func(t *testing.T, at int, b byte) {
		token := []byte(consumers.NewToken())
		at = 3 + int(uint(at)%uint(len(token)-3))
		same := token[at] == b
		token[at] = b
		if got := consumers.WellFormed(string(token)); got != same {
			t.Errorf("WellFormed(%q) with byte %d changed = %v, want %v", token, at, got, same)
		}
	})
}
