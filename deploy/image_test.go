package deploy_test

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// rootfs builds what the image holds, as the Dockerfile does.
func rootfs(t *testing.T, env ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program: not in -short")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("make", "-C", "..", "rootfs", "DESTDIR="+dir, "VERSION=v1.2.3")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make rootfs: %v\n%s", err, out)
	}
	return dir
}

// TestImage runs the image's own entry points with nothing around them but what
// the image holds, as the user that it names.
func TestImage(t *testing.T) {
	dir := rootfs(t)
	if needed := libraries(t, dir); len(needed) > 0 {
		t.Errorf("the program needs %v: it must be static", needed)
	}
	if bill := read(t, filepath.Join(dir, "usr/share/doc/tollgate/sbom.cdx.json")); !strings.Contains(bill, `"pkg:golang/github.com/tollgate-dev/tollgate@v1.2.3"`) ||
		!strings.Contains(bill, `"pkg:golang/google.golang.org/grpc@v`) {
		t.Errorf("the bill of materials names neither the program nor what is in it:\n%s", bill)
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can change the root folder: run as root to see the image's entry points run")
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"version", []string{"/bin/tollgate", "version"}, "tollgate v1.2.3 "},
		{"configuration", []string{"/bin/tollgate", "check", "--config", "/etc/tollgate/tollgate.yaml"}, ""},
		{"in place of envoyproxy/ratelimit", []string{"/bin/ratelimit"}, "/srv/runtime_data/current/config"},
		{"the same behind the entry point", []string{"/bin/tollgate", "/bin/ratelimit"}, "/srv/runtime_data/current/config"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A time zone, which the image has no file of.
			config := "limits: {default: none}\nplans: {free: {limits: [{quota: 10/day, timezone: Europe/Berlin}]}}\n"
			if err := os.WriteFile(filepath.Join(dir, "etc/tollgate/tollgate.yaml"), []byte(config), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(dir, c.args[0]), c.args[1:]...)
			cmd.Path = c.args[0]
			cmd.Args[0] = c.args[0]
			cmd.Dir, cmd.Env = "/", []string{"PATH=/bin"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) || !strings.Contains(string(out), c.want) {
				t.Errorf("%s: %v\n%s\nwant %q", strings.Join(c.args, " "), err, out, c.want)
			}
			if fails := strings.HasSuffix(c.args[len(c.args)-1], "ratelimit"); (err != nil) != fails {
				t.Errorf("%s: %v\n%s", strings.Join(c.args, " "), err, out)
			}
		})
	}
}

// machine returns which kind of machine a program is for.
func machine(t *testing.T, path string) string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Machine.String()
}

func libraries(t *testing.T, dir string) []string {
	t.Helper()
	f, err := elf.Open(filepath.Join(dir, "bin/tollgate"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			needed = append(needed, "an interpreter")
		}
	}
	return needed
}

// TestDockerfile holds what a machine without a builder of images can see of it:
// nothing runs as root, the platform's arguments reach the compiler, and the
// context has what is copied.
func TestDockerfile(t *testing.T) {
	text := read(t, "Dockerfile")
	for _, want := range []string{
		`(?m)^FROM --platform=\$BUILDPLATFORM `, `(?m)^ARG TARGETOS TARGETARCH VERSION`, `GOOS=\$TARGETOS GOARCH=\$TARGETARCH make rootfs .*VERSION=\$VERSION`,
		`(?m)^FROM scratch$`, `(?m)^USER 65532:65532$`, `(?m)^ENTRYPOINT \["/bin/tollgate"\]$`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("Dockerfile: nothing matches %s", want)
		}
	}
	sent := read(t, "../.dockerignore")
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		sources, err := filepath.Glob("../" + e.Name() + "/*/*.go")
		if err != nil {
			t.Fatal(err)
		}
		if own, _ := filepath.Glob("../" + e.Name() + "/*/go.mod"); len(own) > 0 || len(sources) == 0 || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if !strings.Contains(sent, "!"+e.Name()+"\n") {
			t.Errorf(".dockerignore keeps the Go code of %s from the build", e.Name())
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
