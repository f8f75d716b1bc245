package internal_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestChanged holds .ci/changed, which decides what CI may leave out, to a
// history of three commits.
func TestChanged(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("SKIPPED: no git: apt-get install git")
	}
	old, noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	run := func(in string, at time.Time, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = in
		date := fmt.Sprintf("%d +0000", at.Unix())
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_COMMITTER_DATE="+date, "GIT_AUTHOR_DATE="+date)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	commit := func(at time.Time, path, text string) {
		t.Helper()
		write(t, filepath.Join(dir, path), text)
		run(dir, at, git, "add", "--all")
		run(dir, at, git, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--message", path)
	}
	script, err := os.ReadFile("../.ci/changed")
	if err != nil {
		t.Fatal(err)
	}
	run(dir, old, git, "init", "--quiet")
	commit(old, ".ci/changed", string(script))
	commit(old.Add(time.Hour), "early/file", "1")
	commit(noon, "late/file", "1")
	shallow := t.TempDir()
	run(dir, noon, git, "clone", "--quiet", "--depth", "1", "file://"+dir, shallow)
	bare := t.TempDir()
	write(t, filepath.Join(bare, ".ci/changed"), string(script))

	for _, c := range []struct {
		name, in, base string
		paths          []string
		want           int
	}{
		{"in the last day", dir, "", []string{"late"}, 0},
		{"before", dir, "", []string{"early"}, 1},
		{"one of two", dir, "", []string{"early", "late"}, 0},
		{"since a commit that is named", dir, "HEAD~2", []string{"early"}, 0},
		{"not since", dir, "HEAD~1", []string{"early"}, 1},
		{"since one that is not there", dir, "HEAD~9", []string{"early"}, 0},
		{"in a shallow clone", shallow, "", []string{"early"}, 0},
		{"without git", bare, "", []string{"early"}, 0},
		{"nothing asked", dir, "", nil, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("bash", append([]string{filepath.Join(c.in, ".ci/changed")}, c.paths...)...)
			cmd.Env = append(os.Environ(), "CI_BASE="+c.base, "GIT_CEILING_DIRECTORIES="+filepath.Dir(bare))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != c.want {
				t.Errorf("changed %v: exit %d, want %d\n%s", c.paths, got, c.want, out)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
