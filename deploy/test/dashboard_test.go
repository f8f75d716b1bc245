package test

import (
	"os"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// TestDashboardIsOneOfGrafanas decodes the dashboard with the types that Grafana
// generates from its own schema: panels, their options, queries and variables,
// in which nothing may be misspelt, missing or of another kind.
func TestDashboardIsOneOfGrafanas(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	text, err := os.ReadFile("../grafana/tollgate.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard.Dashboard
	// Without a problem it returns an error all the same, one that says nothing.
	if err := d.UnmarshalJSONStrict(text); err.Error() != "" {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	if len(d.Panels) < 20 {
		t.Errorf("only %d panels were read", len(d.Panels))
	}
	// The test can fail.
	misspelt := strings.Replace(string(text), `"showHeader"`, `"showHeadr"`, 1)
	if err := new(dashboard.Dashboard).UnmarshalJSONStrict([]byte(misspelt)); !strings.Contains(err.Error(), "showHeadr") {
		t.Errorf("a misspelt option is told as %q", err)
	}
}
