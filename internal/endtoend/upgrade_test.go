package endtoend_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// program builds tollgate as a version.
func program(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tollgate")
	build := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", path, "./cmd/tollgate")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// instance is a process of Tollgate that is replaced by another.
type instance struct {
	dir  string
	cmd  *exec.Cmd
	logs []string
}

func (i *instance) start(t *testing.T, program string) {
	t.Helper()
	log := filepath.Join(i.dir, fmt.Sprintf("log-%d", len(i.logs)))
	i.logs = append(i.logs, log)
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // the process has it too
	i.cmd = exec.Command(program, "serve", "--config", i.dir+"/tollgate.yaml", "--data-dir", i.dir+"/state")
	i.cmd.Stderr, i.cmd.SysProcAttr = f, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// end tells the process to end, and waits until it has.
func (i *instance) end(t *testing.T) {
	t.Helper()
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := i.cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v", err)
	}
}

// TestUpgradeLosesNothing does what docs/upgrade.md says: the processes of two
// instances are replaced by those of another version, one after the other, while
// requests go through a real Envoy. None fails.
func TestUpgradeLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program, and takes ten seconds")
	}
	binary := envoytest.Binary(t)
	old, next := program(t, "v1.0.0"), program(t, "v1.1.0")
	var all []*instance
	var addrs []string
	for range 2 {
		i := &instance{dir: t.TempDir()}
		addr := unixSocket(t)
		for name, text := range map[string]string{
			"tollgate.yaml":  "listen: {grpc: \"" + addr + "\", http: \"127.0.0.1:0\", drain: 3s}\nconsumers: {source: file, file: consumers.yaml}\n",
			"consumers.yaml": "consumers: [{id: steady, limit: none, tokens: [{id: prod, value: " + secretOf("steady", "prod") + "}]}]\n",
		} {
			if err := os.WriteFile(filepath.Join(i.dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		i.start(t, old)
		t.Cleanup(func() { _ = i.cmd.Process.Kill(); _ = i.cmd.Wait() })
		all, addrs = append(all, i), append(addrs, addr)
	}
	e := wireTo(t, binary, config.Options{Mode: config.Fused, Tollgate: addrs})
	envoytest.Eventually(t, func() error { return allHealthy(e, len(all)) })
	var askers []*asker
	for _, client := range clients(t, e) {
		askers = append(askers, ask(t, client, 2, 4*time.Millisecond, secretOf("steady", "prod"), mustReach(t)))
	}
	for _, i := range all {
		i.end(t)
		i.start(t, next)
		envoytest.Eventually(t, func() error { return allHealthy(e, len(all)) })
	}
	for _, a := range askers {
		before := a.total.Load()
		envoytest.Eventually(t, func() error { return sent(a, before+100) })
		a.stop()
		if n := a.total.Load(); n < 500 {
			t.Errorf("only %d requests were sent", n)
		}
	}
	for _, i := range all {
		for n, version := range []string{"v1.0.0", "v1.1.0"} {
			log, err := os.ReadFile(i.logs[n])
			if err != nil || !strings.Contains(string(log), `"version":"`+version+`"`) {
				t.Errorf("process %d is not of version %s: %v\n%s", n, version, err, log)
			}
		}
	}
}
