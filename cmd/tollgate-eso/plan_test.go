package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollgate-dev/tollgate/internal/commandline"
)

// TestK26Plan runs the verb as people do: what it prints and how it ends.
func TestK26Plan(t *testing.T) {
	dir := t.TempDir()
	var all strings.Builder
	for i := range 500 {
		fmt.Fprintf(&all, "---\n{apiVersion: external-secrets.io/v1, kind: ExternalSecret, metadata: {name: s%d, namespace: a}, spec: {refreshInterval: 5m, secretStoreRef: {name: keeper}, data: [{secretKey: x, remoteRef: {key: k%d}}]}}\n", i, i)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secrets := write("secrets.yaml", all.String())
	tollgate := write("tollgate.conf", "upstreams: [{preset: keeper, budget: {calls: [1000/day], price: 0.01}}]\n")
	broken := write("broken.conf", "kind: [\n")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", "application/json")
		fmt.Fprint(w, `{"upstreams":[{"id":"keeper","state":"open","limits":[{"name":"l","kind":"idle_reset","limit":"100/10s","working":"46/10.15s","remaining":46}],"budget":[]}]}`)
	}))
	defer server.Close()
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"fits the preset", []string{"-f", secrets}, 0, "calls a day      144000", ""},
		{"a folder", []string{"-f", dir}, 0, "objects          500", ""},
		{"standard input", []string{"-f", "-"}, 0, "objects          500", ""},
		{"a budget", []string{"-f", secrets, "--budget", "1000/day"}, 1, "does not fit: 144000 calls per day are more than the budget of 1000", "it does not fit"},
		{"the configuration", []string{"-f", secrets, "--config", tollgate}, 1, "cost a month     44640.00", "it does not fit"},
		{"a running server", []string{"-f", secrets, "--server", server.URL}, 0, "46 calls together", ""},
		{"a server without it", []string{"-f", secrets, "--server", server.URL, "--upstream", "other"}, 2, "", "Tollgate has none of this id"},
		{"a limit", []string{"-f", secrets, "--limit", "{window: 10/10s}"}, 1, "", "it does not fit"},
		{"json", []string{"-f", secrets, "-o", "json"}, 0, `"planned_peak": 92`, ""},
		{"yaml", []string{"-f", secrets, "-o", "yaml"}, 0, "smallest_refresh_interval: 1m30s", ""},
		{"shell", []string{"-f", secrets, "-o", "shell"}, 0, "kubectl patch externalsecret -n 'a' 's499'", ""},
		{"nothing", nil, 2, "", "nothing to plan"},
		{"no such file", []string{"-f", filepath.Join(dir, "none")}, 2, "", "no such file"},
		{"broken manifests", []string{"-f", broken}, 2, "", "broken.conf: document 1"},
		{"a broken limit", []string{"-f", secrets, "--limit", "{windo: 1/s}"}, 2, "", `unknown key "windo"`},
		{"two sources", []string{"-f", secrets, "--limit", "{window: 1/s}", "--config", tollgate}, 2, "", "want one of them"},
		{"a broken store", []string{"-f", secrets, "--store", "keeper"}, 2, "", "ClusterSecretStore/NAME"},
		{"a broken output", []string{"-f", secrets, "-o", "xml"}, 2, "", "want text, json, yaml or shell"},
	} {
		root := newRoot()
		root.SetIn(strings.NewReader(all.String()))
		var stdout, stderr bytes.Buffer
		code := commandline.Run(context.Background(), root, append([]string{"plan"}, c.args...), &stdout, &stderr)
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%s: exit code %d, want %d\n%.600s\n%s", c.name, code, c.code, &stdout, &stderr)
		}
	}
}
