package endtoend_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// installPage returns the commands of the page that installs the companion.
func installPage(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/external-secrets.md")
	must(t, err)
	_, rest, _ := strings.Cut(string(page), "## Install\n")
	_, block, _ := strings.Cut(rest, "```console\n")
	block, _, _ = strings.Cut(block, "```")
	var commands []string
	for _, line := range strings.Split(strings.TrimSpace(strings.ReplaceAll(block, "\\\n", " ")), "\n") {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			t.Fatalf("%q is no command", line)
		}
		commands = append(commands, command)
	}
	return commands
}

// TestInstallPageAsTyped types the ten lines of the page into a shell, with a real
// kubectl and API server. There is no kubelet: the test runs what the manifest says,
// with its service account, configuration and environment, and says that it is ready;
// of images and forwarded ports it has none.
func TestInstallPageAsTyped(t *testing.T) {
	cl := root(t)
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("SKIPPED: no kubectl: put one into the PATH")
	}
	err := cl.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tollgate"}}) // that of Tollgate itself
	if client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // what the page creates, and does not apply
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "tollgate", Name: "tollgate-eso"}}
		if err := cl.Delete(context.Background(), secret); err != nil {
			t.Error(err)
		}
	})
	f := newFakeTollgate(t, "keeper")
	binary := buildCompanion(t)
	shell := func(command string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir = "../../.."
		cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig, "TOLLGATE_ADMIN_TOKEN=admin-token", "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	status, typed := "", 0
	for _, command := range installPage(t) {
		switch typed++; {
		case strings.HasPrefix(command, "docker build "):
			if _, err := os.Stat(filepath.Join("../../..", "deploy/external-secrets/Dockerfile")); err != nil || !strings.Contains(command, "-f deploy/external-secrets/Dockerfile .") {
				t.Errorf("%s: %v", command, err)
			}
		case strings.HasPrefix(command, "make eso && bin/"): // what is built already, by other flags
			shell(strings.TrimPrefix(command, "make eso && bin/"))
		case strings.Contains(command, " port-forward service/tollgate-eso 8091"):
			shell("kubectl -n tollgate get service tollgate-eso -o jsonpath='{.spec.ports[?(@.port==8091)].name}' | grep status")
		case strings.HasPrefix(command, "curl http://127.0.0.1:8091"):
			if out := shell(strings.ReplaceAll(command, "127.0.0.1:8091", status)); !strings.Contains(out, `"tollgate":"reachable"`) || !strings.Contains(out, `"id":"keeper","state":"open"`) {
				t.Errorf("%s: %s", command, out)
			}
		case strings.Contains(command, " rollout status "):
			status = runAsManifest(t, cl, f.URL, binary)
			shell(command)
		default:
			shell(command)
		}
	}
	if typed < 5 || typed > 10 || status == "" {
		t.Errorf("%d commands, want at most ten, and a status", typed)
	}
}

// runAsManifest runs the container of the StatefulSet as a kubelet would, reports that
// it is ready, and returns where its status is.
func runAsManifest(t *testing.T, cl client.Client, tollgate, binary string) string {
	t.Helper()
	ctx, in := t.Context(), client.ObjectKey{Namespace: "tollgate", Name: "tollgate-eso"}
	var set appsv1.StatefulSet
	var files corev1.ConfigMap
	var secret corev1.Secret
	must(t, cl.Get(ctx, in, &set))
	must(t, cl.Get(ctx, in, &files))
	must(t, cl.Get(ctx, in, &secret))
	container := set.Spec.Template.Spec.Containers[0]
	var env []string
	for _, e := range container.Env {
		value, ok := secret.Data[e.ValueFrom.SecretKeyRef.Key]
		if !ok || e.ValueFrom.SecretKeyRef.Name != secret.Name {
			t.Errorf("%s: no %s in the Secret that the page creates", e.Name, e.ValueFrom.SecretKeyRef.Key)
		}
		env = append(env, e.Name+"="+string(value))
	}
	dir, text := t.TempDir(), files.Data["tollgate-eso.yaml"]
	for _, change := range [][2]string{{"0.0.0.0:8090", "127.0.0.1:0"}, {"0.0.0.0:8091", "127.0.0.1:0"}, {"http://tollgate:8080", tollgate}} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("the configuration lacks %s", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	must(t, os.WriteFile(filepath.Join(dir, "tollgate-eso.yaml"), []byte(text), 0o600))
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: in.Namespace, Name: set.Spec.Template.Spec.ServiceAccountName}}
	token := &authenticationv1.TokenRequest{}
	must(t, cl.SubResource("token").Create(ctx, account, token))
	kubeconfig, err := clientcmd.LoadFromFile(cluster.Kubeconfig)
	must(t, err)
	kubeconfig.AuthInfos["admin"].Token = token.Status.Token
	must(t, clientcmd.WriteToFile(*kubeconfig, filepath.Join(dir, "kubeconfig")))

	args := strings.NewReplacer("/etc/tollgate", dir, "/var/lib/tollgate-eso", filepath.Join(dir, "data")).Replace(strings.Join(container.Args, "\x00"))
	cmd := exec.Command(binary, strings.Split(args, "\x00")...)
	cmd.Env = append(env, "KUBECONFIG="+filepath.Join(dir, "kubeconfig"))
	p := follow(t, cmd)
	within(t, 30*time.Second, "its probe says that it lives, and it knows the cluster", func() bool {
		for _, path := range []string{container.LivenessProbe.HTTPGet.Path, "/readyz"} {
			resp, err := http.Get("http://" + p.status + path)
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return false
			}
		}
		return true
	})
	body := fmt.Sprintf(`{"audit_event":"record_update","record_uid":%q,"timestamp":%d}`, uid(1), time.Now().Unix())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.addr+"/webhooks/keeper", strings.NewReader(body))
	must(t, err)
	req.Header.Set("authorization", "Bearer "+string(secret.Data["webhook"]))
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("a webhook with the secret of the page: %s, want 202", resp.Status)
	}
	merge(t, cl.Status(), &set, fmt.Sprintf(`{"status":{"observedGeneration":%d,"replicas":1,"readyReplicas":1,"currentReplicas":1,"updatedReplicas":1,"availableReplicas":1,
		"currentRevision":"a","updateRevision":"a"}}`, set.Generation))
	return p.status
}
