package endtoend_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/companion"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/testcluster"
)

// cluster is what the tests share; nil: a program is missing.
var cluster *testcluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(withCluster(m))
}

func withCluster(m *testing.M) int {
	log.SetLogger(logr.Discard())
	if why := testcluster.Missing("etcd", "kube-apiserver"); why != "" {
		fmt.Fprintln(os.Stderr, why)
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "tollgate-eso-")
	if err == nil {
		defer os.RemoveAll(dir)
		began := time.Now()
		cluster, err = testcluster.Open(dir)
		fmt.Printf("kube-apiserver is ready after %v\n", time.Since(began).Round(time.Second/10))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer cluster.Close()
	return m.Run()
}

// root returns a client that may do everything.
func root(t *testing.T) client.Client {
	t.Helper()
	if cluster == nil {
		t.Skip(testcluster.Missing("etcd", "kube-apiserver"))
	}
	return newClient(t, cluster.Config)
}

func newClient(t *testing.T, c *rest.Config) client.Client {
	t.Helper()
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	if err := eso.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(c, client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// companionUser is what the manifests run the companion as.
const companionUser = "system:serviceaccount:tollgate:tollgate-eso"

// asCompanion is the cluster with no more rights than the manifests give.
func asCompanion() *rest.Config {
	c := rest.CopyConfig(cluster.Config)
	c.Impersonate = rest.ImpersonationConfig{UserName: companionUser, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	return c
}

// runCompanion runs the companion with the rights of the manifests until the
// test ends, or until the function it returns is called.
func runCompanion(t *testing.T, dir string, c *config.Config) (addr string, stop func()) {
	t.Helper()
	one, stop := startCompanion(t, dir, c)
	return one.Addr(), stop
}

func startCompanion(t *testing.T, dir string, c *config.Config) (one *companion.Companion, stop func()) {
	t.Helper()
	install(t)
	c.Listen, c.Status = "127.0.0.1:0", "127.0.0.1:0"
	ctx, cancel := context.WithCancel(t.Context())
	one, err := companion.New(ctx, asCompanion(), companion.Options{Config: c, DataDir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- one.Run(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return one, stop
}

// create makes objects, and a namespace where it is not there yet.
func create(t *testing.T, cl client.Client, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if ns := o.GetNamespace(); ns != "" {
			err := cl.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
			if client.IgnoreAlreadyExists(err) != nil {
				t.Fatal(err)
			}
		}
		if err := cl.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// within waits for something to be so, which it is by then but on a machine that is
// busy.
func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	d = max(d, 3*time.Minute)
	for end := time.Now().Add(d); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not so within %v", what, d)
		}
		<-time.After(50 * time.Millisecond)
	}
}
