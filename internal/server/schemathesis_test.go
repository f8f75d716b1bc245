package server_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTheDocumentIsTrue lets schemathesis call everything that /openapi.yaml
// describes, with data that fits and data that does not, in sequences that use
// what earlier calls made. It fails on a 5xx, and on every answer, header and
// body that is not described. `make schemathesis` installs it.
func TestTheDocumentIsTrue(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	pinned, err := os.ReadFile("testdata/schemathesis.txt")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^schemathesis==(.*)$`).FindSubmatch(pinned)
	if version == nil {
		t.Fatal("testdata/schemathesis.txt names no version")
	}
	program, err := filepath.Abs("../../.tools/schemathesis-" + string(version[1]) + "/bin/schemathesis")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skipf("NOT TESTED that the admin API is as described: %v: run `make schemathesis`, which needs Python 3 with venv and PyPI", err)
	}
	config, err := filepath.Abs("testdata/schemathesis.toml")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, base+"plans: {free: {limit: 5/s}}\ntelemetry: {log: {level: error}}\n")
	r.newToken(t, "billing", "5/s")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--no-color", "--config-file", config, "run",
		"--url", "http://"+r.HTTPAddr(), "--exclude-path", "/v1/events", // without end: tested by TestEventsTellEveryChange
		"--generation-deterministic", "--suppress-health-check", "all", "--max-examples", "15", "--max-time", "30",
		"http://"+r.HTTPAddr()+"/openapi.yaml")
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), " generated") {
		t.Errorf("schemathesis tested nothing: %s", out)
	}
	if log := r.log.String(); strings.Contains(log, "admin call failed") || strings.Contains(log, "panic") {
		t.Errorf("calls failed: %s", log)
	}
}
