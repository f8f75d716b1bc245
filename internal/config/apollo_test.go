package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/config"
)

// TestBeforeAPortal: source apollo alone makes a gate that a portal can stand
// behind, and what the file says still counts.
func TestBeforeAPortal(t *testing.T) {
	for _, c := range []struct {
		text, anonymous, sessions string
		strip                     bool
		places                    []extauthz.Place
	}{
		{"consumers: {source: apollo, dsn: 'u:p@tcp(h:1)/d'}", "@portal", "1000/s", false, []extauthz.Place{{Header: "authorization", Scheme: "apollo"}}},
		{"consumers: {source: apollo, dsn: 'u:p@tcp(h:1)/d', sessions: 5/s}\nanonymous: deny\nstrip_credentials: true\ncredentials: [{header: x}]", "", "5/s", true, []extauthz.Place{{Header: "x"}}},
	} {
		path := filepath.Join(t.TempDir(), "tollgate.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, _, err := config.Load(path, none)
		if err != nil {
			t.Fatal(err)
		}
		p := loaded.Config.Policy
		if p.Anonymous != c.anonymous || p.Strip != c.strip || loaded.Config.Consumers.Sessions[0].String() != c.sessions {
			t.Errorf("%s:\nanonymous %q, strip %v, sessions %v", c.text, p.Anonymous, p.Strip, loaded.Config.Consumers.Sessions)
		}
		if diff := cmp.Diff(c.places, p.Credentials); diff != "" {
			t.Errorf("%s: credentials (-want +got):\n%s", c.text, diff)
		}
	}
}
