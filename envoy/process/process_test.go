package process_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/envoy/process"
)

func TestFetchedNewestFirst(t *testing.T) {
	root := t.TempDir()
	for _, v := range []string{"1.9.3", "1.40.0", "1.36.4"} {
		write(t, filepath.Join(root, ".tools", "envoy-"+v, "envoy"), "")
	}
	below := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(below)
	var got []string
	for _, path := range process.Fetched() {
		got = append(got, filepath.Base(filepath.Dir(path)))
	}
	if diff := cmp.Diff([]string{"envoy-1.40.0", "envoy-1.36.4", "envoy-1.9.3"}, got); diff != "" {
		t.Errorf("Fetched (-want +got):\n%s", diff)
	}
}

func TestFindLooksAtENVOYFirst(t *testing.T) {
	fake := filepath.Join(t.TempDir(), "my-envoy")
	write(t, fake, "#!/bin/sh\n")
	t.Setenv("ENVOY", fake)
	if got, err := process.Find(); got != fake || err != nil {
		t.Errorf("Find = %q, %v, want %q", got, err, fake)
	}
	t.Setenv("ENVOY", fake+"-absent")
	if _, err := process.Find(); err == nil || !strings.Contains(err.Error(), "ENVOY") {
		t.Errorf("Find with ENVOY naming nothing: %v, want an error that names ENVOY", err)
	}
}

func TestFindNothing(t *testing.T) {
	t.Setenv("ENVOY", "")
	t.Setenv("PATH", t.TempDir())
	t.Chdir(t.TempDir())
	if _, err := process.Find(); err == nil || !strings.Contains(err.Error(), "make envoy") {
		t.Errorf("Find = %v, want an error that says what to run", err)
	}
}

func TestStartTellsWhatEnvoySaid(t *testing.T) {
	fake := filepath.Join(t.TempDir(), "envoy")
	write(t, fake, "#!/bin/sh\necho no such field: wombat\nexit 1\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := process.Start(ctx, process.Options{Path: fake})
	if err == nil || !strings.Contains(err.Error(), "wombat") {
		t.Errorf("Start = %v, want an error with Envoy's log", err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}
