package apollo_test

import (
	"os/exec"
	"testing"

	"github.com/tollgate-dev/tollgate/envoy/process"
)

// TestTry runs the example, which fails when what it prints is not so.
func TestTry(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a database and an Envoy")
	}
	if _, err := exec.LookPath("mariadbd"); err != nil {
		t.Skip("SKIPPED: mariadbd is not installed: apt-get install mariadb-server")
	}
	envoy, err := process.Find()
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "./try.sh")
	cmd.Env = append(cmd.Environ(), "ENVOY="+envoy)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
