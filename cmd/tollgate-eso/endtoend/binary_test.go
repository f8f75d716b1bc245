package endtoend_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is tollgate-eso as a process.
type program struct {
	cmd    *exec.Cmd
	addr   string // of the webhooks
	status string // of the status
}

func startProgram(t *testing.T, binary, config, dir string) *program {
	t.Helper()
	cmd := exec.Command(binary, "run", "--config", config, "--data-dir", dir)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig)
	return follow(t, cmd)
}

// follow starts the program and reads where it listens.
func follow(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{cmd: cmd}
	log, err := p.cmd.StderrPipe()
	must(t, err)
	must(t, p.cmd.Start())
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, Webhooks, Status string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "running" {
			p.addr, p.status = line.Webhooks, line.Status
			go func() { _, _ = io.Copy(io.Discard, log) }() // ends with the process
			return p
		}
		t.Log(lines.Text())
	}
	t.Fatal("tollgate-eso has ended")
	return nil
}

// buildCompanion builds tollgate-eso, once for all tests.
func buildCompanion(t *testing.T) string {
	t.Helper()
	binary, err := builtCompanion()
	must(t, err)
	return binary
}

var builtCompanion = sync.OnceValues(func() (string, error) { return build("..", ".", "tollgate-eso") })

// build builds a program, from a folder, beside the cluster's files.
func build(dir, pkg, name string) (string, error) {
	binary := filepath.Join(cluster.Dir, name)
	cmd := exec.Command("go", "build", "-o", binary, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return binary, nil
}

// TestKillLosesNothing: what was answered with 202 outlives kill -9, SIGTERM ends
// it well, and a second process on the same folder is refused.
func TestKillLosesNothing(t *testing.T) {
	cl := root(t)
	const ns = "kill"
	binary := buildCompanion(t)
	create(t, cl, store(ns), externalSecret(ns, "one", nil, uid(1)), externalSecret(ns, "two", nil, uid(2)))
	f := newFakeTollgate(t, ns)
	f.freeze(ns, time.Now().Add(time.Hour), 1)
	o := startOperator(t, ns, func(int) {})
	dir := t.TempDir()
	file := filepath.Join(dir, "tollgate-eso.yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `
listen: 127.0.0.1:0
status: 127.0.0.1:0
tollgate: {server: %q}
upstreams: [{id: %s, stores: [SecretStore/%s/keeper]}]
webhooks: [{name: %s, preset: keeper, upstream: %s, secret: 0123456789abcdef}]
`, f.URL, ns, ns, ns, ns), 0o600))

	p := startProgram(t, binary, file, dir)
	event(t, p.addr, ns, uid(1))
	event(t, p.addr, ns, uid(2))
	second := exec.Command(binary, "run", "--config", file, "--data-dir", dir)
	second.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig)
	if out, err := second.CombinedOutput(); second.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "is in use") {
		t.Errorf("a second process: %v\n%s\nwant exit 1, and that the queue is in use", err, out)
	}
	must(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait()
	f.open(ns, 90)
	p = startProgram(t, binary, file, dir)
	within(t, 30*time.Second, "what was taken before the kill is pushed", func() bool { n, _ := o.counts(); return n == 2 })
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v, want exit 0", err)
	}
}
