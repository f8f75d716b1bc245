package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// TestRelease builds the same sources in two places: every byte must agree. The
// folder that they lie in is what differs most often.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program twice: not in -short")
	}
	other := t.TempDir()
	for _, dir := range []string{"cmd", "descriptors", "envoy", "extauthz", "internal", "limits", "go.mod", "go.sum", "CHANGELOG.md"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(root, dir), other).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var sums []string
	for _, source := range []string{root, other} {
		r := release{Source: source, Out: t.TempDir(), Version: "v1.2.3", Revision: "abc", Platforms: []string{"linux/amd64"}}
		if err := r.run(); err != nil {
			t.Fatal(err)
		}
		sum, err := os.ReadFile(filepath.Join(r.Out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(sum))
		check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
		check.Dir = r.Out
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("sha256sum --check: %v\n%s", err, out)
		}
		billed(t, filepath.Join(r.Out, "tollgate_v1.2.3_linux_amd64"+sbomSuffix))
	}
	if sums[0] != sums[1] || strings.Count(sums[0], "\n") != 3 {
		t.Errorf("two builds differ, or are not three files:\n%s%s", sums[0], sums[1])
	}
}

// billed: the bill holds the modules that go.mod requires, at its versions.
func billed(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	refs := map[string]bool{}
	for _, c := range b.Components {
		if refs[c.Ref] || c.Version == "" {
			t.Errorf("%s is there twice or without a version", c.Ref)
		}
		refs[c.Ref] = true
	}
	mod, err := os.ReadFile(root + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"google.golang.org/grpc", "go.etcd.io/bbolt", "github.com/spf13/cobra"} {
		_, rest, found := strings.Cut(string(mod), "\t"+module+" ")
		version, _, _ := strings.Cut(rest, "\n")
		if version, _, _ = strings.Cut(version, " "); !found || !refs["pkg:golang/"+module+"@"+version] {
			t.Errorf("the bill has no %s %s", module, version)
		}
	}
}

func TestNotes(t *testing.T) {
	changelog := "# Changelog\n\nText.\n\n## Unreleased\n\n- new\n\n## 1.2.3 (2026-11-24)\n\n- old\n- older\n"
	for version, want := range map[string]string{
		"v1.2.3":      "# Tollgate v1.2.3\n\n- old\n- older\n",
		"v1.2.3-4-ga": "# Tollgate v1.2.3-4-ga\n\n- new\n",
		"v1.2":        "# Tollgate v1.2\n\n- new\n",
	} {
		if got := string(notes([]byte(changelog), version)); got != want {
			t.Errorf("notes(%s) = %q, want %q", version, got, want)
		}
	}
	if data, err := os.ReadFile(root + "/CHANGELOG.md"); err != nil || len(notes(data, "devel")) < 100 {
		t.Errorf("the changelog says nothing of what is not released yet: %v", err)
	}
}
