package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/envoy/envoytest"
)

// builder runs buildah, which builds images without a daemon, on a storage of
// the test's own.
type builder struct{ dir string }

func newBuilder(t *testing.T) builder {
	t.Helper()
	if testing.Short() {
		t.Skip("builds images: not in -short")
	}
	if _, err := exec.LookPath("buildah"); err != nil || os.Getuid() != 0 {
		t.Skip("SKIPPED: building the image needs buildah (`make services`, or apt-get install buildah) and root")
	}
	return builder{t.TempDir()}
}

func (b builder) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("buildah", append([]string{"--root", b.dir + "/root", "--runroot", b.dir + "/run", "--storage-driver", "vfs"}, args...)...)
	cmd.Dir = ".."
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("buildah %s: %v\n%s%s", strings.Join(args, " "), err, out, log.String())
	}
	return strings.TrimSpace(string(out))
}

// here is an image in place of GO_IMAGE, for where no registry can be reached:
// the names of this machine's folders, which the build is then given.
func (b builder) here(t *testing.T, arch string) string {
	t.Helper()
	c := b.run(t, "from", "scratch")
	root := b.run(t, "mount", c)
	for _, name := range []string{"usr", "etc", "tmp", "proc", "sys", "dev", "root"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if target, err := os.Readlink("/" + name); err == nil {
			if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	goroot := goEnv(t, "GOROOT")
	b.run(t, "config", "--arch", arch, "--env", "PATH="+goroot+"/bin:/usr/bin:/bin", "--env", "HOME=/root", c)
	name := "localhost/go:" + arch
	b.run(t, "commit", c, name)
	b.run(t, "rm", c)
	return name
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestDockerfileBuilds builds the Dockerfile itself for both platforms, and runs
// the image as compose and the chart do: not root, on a root folder that nothing
// can write to, without capabilities, under the runtime that Docker uses.
func TestDockerfileBuilds(t *testing.T) {
	b := newBuilder(t)
	cache := []string{"-v", "/usr:/usr:ro", "-v", "/etc:/etc:ro",
		"-v", goEnv(t, "GOMODCACHE") + ":/root/go/pkg/mod", "-v", goEnv(t, "GOCACHE") + ":/root/.cache/go-build"}
	for _, arch := range []string{"amd64", "arm64"} {
		args := []string{"bud", "--isolation", "chroot", "--pull-never", "--platform", "linux/" + arch, "--manifest", "localhost/tollgate", "--file", "deploy/Dockerfile",
			"--build-arg", "GO_IMAGE=" + b.here(t, arch), "--build-arg", "VERSION=v1.2.3", "--build-arg", "REVISION=abc"}
		b.run(t, append(append(args, cache...), ".")...)
	}
	var index struct {
		Manifests []struct {
			Digest   string
			Platform struct{ OS, Architecture string }
		}
	}
	if err := json.Unmarshal([]byte(b.run(t, "manifest", "inspect", "localhost/tollgate")), &index); err != nil {
		t.Fatal(err)
	}
	machines := map[string]string{}
	for _, m := range index.Manifests {
		machines[m.Platform.OS+"/"+m.Platform.Architecture] = b.holds(t, "localhost/tollgate@"+m.Digest)
	}
	if diff := cmp.Diff(map[string]string{"linux/amd64": "EM_X86_64", "linux/arm64": "EM_AARCH64"}, machines); diff != "" {
		t.Errorf("the image's platforms, and the program in each (-want +got):\n%s", diff)
	}
}

// holds checks an image of one platform, runs it if it is this machine's, and
// returns which machine its program is for.
func (b builder) holds(t *testing.T, image string) string {
	t.Helper()
	c := b.run(t, "from", "--pull-never", image)
	root := b.run(t, "mount", c)
	var i struct {
		OCIv1 struct {
			Architecture string
			Config       struct {
				User            string
				Entrypoint, Cmd []string
				ExposedPorts    map[string]struct{}
				Volumes         map[string]struct{}
			}
		}
	}
	if err := json.Unmarshal([]byte(b.run(t, "inspect", "--type", "image", image)), &i); err != nil {
		t.Fatal(err)
	}
	config := i.OCIv1.Config
	if config.User != "65532:65532" || strings.Join(config.Entrypoint, " ") != "/bin/tollgate" || len(config.ExposedPorts) != 2 || len(config.Volumes) != 1 {
		t.Errorf("%s: %+v", image, config)
	}
	state, err := os.Stat(filepath.Join(root, "var/lib/tollgate"))
	if err != nil {
		t.Fatal(err)
	}
	if owner := state.Sys().(*syscall.Stat_t); owner.Uid != 65532 {
		t.Errorf("/var/lib/tollgate is %d's: the image's user cannot write there", owner.Uid)
	}
	if bill := read(t, filepath.Join(root, "usr/share/doc/tollgate/sbom.cdx.json")); !strings.Contains(bill, `"pkg:golang/github.com/tollgate-dev/tollgate@v1.2.3"`) {
		t.Error("no bill of materials of this version")
	}
	if i.OCIv1.Architecture == goEnv(t, "GOHOSTARCH") {
		runs(t, root, append(config.Entrypoint, config.Cmd...))
	}
	return machine(t, filepath.Join(root, "bin/tollgate"))
}

// runs starts a container, changes it from inside, and ends it.
func runs(t *testing.T, root string, command []string) {
	t.Helper()
	if _, err := exec.LookPath("runc"); err != nil {
		t.Log("SKIPPED: running the image needs runc: `make services`, or apt-get install runc")
		return
	}
	dir := t.TempDir()
	bundle := fmt.Sprintf(`{"ociVersion": "1.0.2",
		"process": {"user": {"uid": 65532, "gid": 65532}, "args": %s, "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true, "capabilities": {}},
		"root": {"path": %q, "readonly": true},
		"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/var/lib/tollgate", "type": "tmpfs", "source": "tmpfs", "options": ["uid=65532", "gid=65532", "mode=700"]}],
		"linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]}}`,
		strings.ReplaceAll(fmt.Sprintf("%q", command), `" "`, `", "`), root)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(bundle), 0o600); err != nil {
		t.Fatal(err)
	}
	name := "tollgate-" + filepath.Base(filepath.Dir(dir))
	runc := func(args ...string) *exec.Cmd {
		return exec.Command("runc", append([]string{"--root", dir + "/state"}, args...)...)
	}
	var log strings.Builder
	cmd := runc("run", "--bundle", dir, name)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = runc("delete", "--force", name).Run() })
	inside := func(args ...string) error {
		if out, err := runc(append([]string{"exec", name, "/bin/tollgate"}, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("tollgate %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	envoytest.Eventually(t, func() error { return inside("settings", "get") }) // as compose's health check does
	for _, args := range [][]string{{"consumer", "set", "billing", "--limit", "3/s"}, {"backup", "/var/lib/tollgate/kept.db"}} {
		if err := inside(args...); err != nil {
			t.Error(err)
		}
	}
	if err := inside("backup", "/etc/tollgate/kept.db"); err == nil {
		t.Error("the root folder can be written to")
	}
	if err := runc("kill", name, "TERM").Run(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(log.String(), `"version":"v1.2.3"`) || !strings.Contains(log.String(), "stopped") {
		t.Errorf("the container ended with %v\n%s", err, log.String())
	}
}
