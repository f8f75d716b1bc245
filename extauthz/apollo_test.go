package extauthz_test

import (
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/extauthz"
)

// TestApolloSpellings: every spelling that a portal takes for a token finds the
// same consumer; everything else is refused, and nothing at all is a session.
func TestApolloSpellings(t *testing.T) {
	hex := "0a4d55a8d778e5022fab701977c5d840bbc486d0"
	for _, c := range []struct{ value, want string }{
		{hex, hex},
		{strings.ToUpper(hex), hex},
		{"Bearer apollo_pat_abc_secret", "apollo_pat_abc_secret"},
		{"Bearer  apollo_pat_abc_secret", "apollo_pat_abc_secret"},
		{"bearer apollo_pat_abc_secret", "!"},
		{"apollo_pat_abc_secret", "!"},
		{"Bearer " + hex, "!"},
		{hex + "," + hex, "!"},
		{hex + " ", "!"},
		{hex[:39], "!"},
		{hex[:39] + "g", "!"},
		{strings.Replace(hex, "a", "\xe1", 1), "!"},
		{strings.Replace(hex, "a", "!", 1), "!"},
		{"", ""},
	} {
		got, found := extauthz.Credential([]extauthz.Place{{Header: "authorization", Scheme: extauthz.SchemeApollo}}, "authorization", c.value)
		switch {
		case c.want == "!" && found != "malformed", c.want != "!" && got != c.want, c.want == "" && found != "absent":
			t.Errorf("authorization %q is %q, %s, want %q", c.value, got, found, c.want)
		}
	}
}
