package testcluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Cluster is a running API server.
type Cluster struct {
	Config     *rest.Config // as an administrator
	Kubeconfig string       // a file that says the same
	Dir        string       // its files
	procs      []process
}

// process is a program that runs.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// Tools returns the folder of the programs.
func Tools() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..", ".tools")
}

// path returns where a program is. ESO_OPERATOR is another build of the operator than
// the one that `make eso-tools` makes, ESO_CRDS the folder of its definitions.
func path(name string) string {
	switch other := os.Getenv("ESO_OPERATOR"); {
	case name == "etcd":
		return name
	case name == "operator" && other != "":
		return other
	}
	return filepath.Join(Tools(), name, name)
}

// Missing says what of the programs is not there, or "".
func Missing(names ...string) string {
	for _, n := range names {
		path := path(n)
		if _, err := exec.LookPath(path); err != nil {
			return fmt.Sprintf("SKIPPED: no %s: run `make eso-tools`", n)
		}
	}
	return ""
}

// Open runs a cluster with its files in a folder. It is to be closed.
func Open(dir string) (*Cluster, error) {
	c, err := start(dir)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "kube-apiserver.log"))
		c.Close()
		return nil, fmt.Errorf("%w\n%s", err, tail(log))
	}
	return c, nil
}

// Close stops the cluster.
func (c *Cluster) Close() {
	for i := range c.procs { // the API server before its etcd
		p := c.procs[len(c.procs)-1-i]
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-3000):] }

// start returns a cluster in every case: what runs of it has to be stopped.
func start(dir string) (*Cluster, error) {
	c := &Cluster{Dir: dir}
	ports, err := freePorts(3)
	if err != nil {
		return c, err
	}
	etcd := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	peer := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	err = c.run("etcd", path("etcd"), "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err != nil {
		return c, err
	}
	key, tokens := filepath.Join(dir, "sa.key"), filepath.Join(dir, "tokens.csv")
	policy := filepath.Join(dir, "audit.yaml")
	if err := errors.Join(writeKey(key), os.WriteFile(tokens, []byte("admin,admin,admin,system:masters\n"), 0o600),
		os.WriteFile(policy, []byte(auditPolicy), 0o600)); err != nil {
		return c, err
	}
	err = c.run("kube-apiserver", path("kube-apiserver"),
		"--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(ports[2]), "--cert-dir", filepath.Join(dir, "certs"),
		"--service-account-issuer", "https://127.0.0.1", "--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--authorization-mode", "RBAC", "--token-auth-file", tokens, "--service-cluster-ip-range", "10.0.0.0/24",
		"--audit-policy-file", policy, "--audit-log-path", c.auditLog(),
		"--disable-admission-plugins", "ServiceAccount", "--allow-privileged")
	if err != nil {
		return c, err
	}
	c.Config = &rest.Config{Host: fmt.Sprintf("https://127.0.0.1:%d", ports[2]), BearerToken: "admin",
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 500, Burst: 1000}
	if err := c.ready(); err != nil {
		return c, err
	}
	if err := c.writeKubeconfig(); err != nil {
		return c, err
	}
	return c, c.define()
}

// freePorts returns ports that nobody has just now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func writeKey(file string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return os.WriteFile(file, block, 0o600)
}

// run starts a program with a log of its own. It ends with this process, also
// when that is killed.
func (c *Cluster) run(name, path string, args ...string) error {
	log, err := os.Create(filepath.Join(c.Dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, p := make(chan error), process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		runtime.LockOSThread() // the child dies with the thread that started it
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c.procs = append(c.procs, p)
	return nil
}

// ready waits for the API server.
func (c *Cluster) ready() error {
	hc, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Config.Host+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := hc.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kube-apiserver is not ready: %w", cmp.Or(err, ctx.Err()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cluster) writeKubeconfig() error {
	c.Kubeconfig = filepath.Join(c.Dir, "kubeconfig")
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: c.Config.Host, InsecureSkipTLSVerify: true}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"admin": {Token: "admin"}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "admin"}},
		CurrentContext: "test",
	}, c.Kubeconfig)
}

// Operator runs External Secrets in the cluster until the test ends, with the
// environment that its doc names.
func (c *Cluster) Operator(t *testing.T, env []string, args ...string) {
	t.Helper()
	if why := Missing("operator"); why != "" {
		t.Skip(why)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "operator.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path("operator"),
		append([]string{"--metrics-addr", "0", "--live-addr", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), append(env, "KUBECONFIG="+c.Kubeconfig)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if out, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the operator's log ends in:\n%s", bytes.TrimSpace(tail(out)))
		}
	})
}

// definitions returns the files of External Secrets' definitions.
func definitions() ([]string, error) {
	dir := os.Getenv("ESO_CRDS")
	if dir == "" {
		found, err := filepath.Glob(filepath.Join(Tools(), "operator-crds-v*"))
		if err != nil || len(found) == 0 {
			return nil, errors.New("no definitions of External Secrets' objects: run `make eso-tools`")
		}
		dir = found[len(found)-1]
	}
	files, err := filepath.Glob(filepath.Join(dir, "*external-secrets.io_*.yaml"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no definitions in %s: run `make eso-tools`", dir)
	}
	return files, err
}

// HasSyncWindows reports whether the operator knows syncWindows, by its definitions.
func HasSyncWindows() (bool, error) {
	files, err := definitions()
	for _, file := range files {
		if data, readErr := os.ReadFile(file); readErr != nil {
			return false, readErr
		} else if bytes.Contains(data, []byte("syncWindows:")) {
			return true, nil
		}
	}
	return false, err
}
