package endtoend_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// uid returns a uid as Keeper's are: 16 bytes in base64url.
func uid(n int) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(n)))
}

// store makes a store of Keeper's in a namespace.
func store(namespace string) *unstructured.Unstructured {
	s := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"provider": map[string]any{
		"keepersecurity": map[string]any{"folderID": "folder", "authRef": map[string]any{"name": "keeper", "key": "config"}}}}}}
	s.SetGroupVersionKind(eso.V1(eso.SecretStoreKind))
	s.SetNamespace(namespace)
	s.SetName("keeper")
	return s
}

// externalSecret makes one that reads records of the namespace's store.
func externalSecret(namespace, name string, spec map[string]any, keys ...string) *unstructured.Unstructured {
	all := map[string]any{"secretStoreRef": map[string]any{"name": "keeper", "kind": eso.SecretStoreKind}, "refreshInterval": "24h0m0s"}
	var data []any
	for i, k := range keys {
		data = append(data, map[string]any{"secretKey": fmt.Sprintf("key%d", i), "remoteRef": map[string]any{"key": k, "property": "password"}})
	}
	if data != nil {
		all["data"] = data
	}
	for k, v := range spec {
		all[k] = v
	}
	e := &unstructured.Unstructured{Object: map[string]any{"spec": all}}
	e.SetGroupVersionKind(eso.V1("ExternalSecret"))
	e.SetNamespace(namespace)
	e.SetName(name)
	return e
}

// createAll makes many objects, some at a time.
func createAll(t *testing.T, cl client.Client, objects []client.Object) {
	t.Helper()
	var wg sync.WaitGroup
	next := make(chan client.Object)
	for range 16 {
		wg.Go(func() {
			for o := range next {
				if err := cl.Create(t.Context(), o); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, o := range objects {
		next <- o
	}
	close(next)
	wg.Wait()
}

// configure returns a configuration for the store of a namespace.
func configure(t *testing.T, namespace, tollgate, more string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(fmt.Sprintf(`
tollgate: {server: %q}
upstreams: [{id: %s, stores: [SecretStore/%s/keeper], sync_windows: 5m}]
webhooks: [{name: %s, preset: keeper, upstream: %s, secret: 0123456789abcdef, rate: 10000}]
%s`, tollgate, namespace, namespace, namespace, namespace, more)), yamlOptions())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// operator plays External Secrets for a namespace: it refreshes what was
// annotated, at once, and remembers how often.
type operator struct {
	mu     sync.Mutex
	synced map[string]int       // by name, how often force-sync was another
	last   map[string]time.Time // and when it was last
	value  map[string]string
}

func startOperator(t *testing.T, namespace string, call func(calls int)) *operator {
	t.Helper()
	cl, err := client.NewWithWatch(cluster.Config, client.Options{Scheme: root(t).Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w, err := cl.Watch(ctx, &eso.ExternalSecretList{}, client.InNamespace(namespace))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	o := &operator{synced: map[string]int{}, last: map[string]time.Time{}, value: map[string]string{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range w.ResultChan() {
			if e, ok := event.Object.(*eso.ExternalSecret); ok {
				o.refresh(ctx, t, cl, e, call)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		w.Stop()
		<-ended
	})
	return o
}

func (o *operator) refresh(ctx context.Context, t *testing.T, cl client.Client, e *eso.ExternalSecret, call func(int)) {
	v := e.Annotations["force-sync"]
	o.mu.Lock()
	same := v == o.value[e.Name]
	o.value[e.Name] = v
	if !same {
		o.synced[e.Name]++
		o.last[e.Name] = time.Now()
	}
	o.mu.Unlock()
	if same {
		return
	}
	call(e.Calls())
	patch := fmt.Sprintf(`{"status":{"syncedResourceVersion":"1-%s","refreshTime":%q}}`, v, time.Now().UTC().Format(time.RFC3339))
	if err := cl.Status().Patch(ctx, e, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil && ctx.Err() == nil {
		t.Error(err)
	}
}

// counts returns how many objects were synced, and the most often that one was.
func (o *operator) counts() (objects, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range o.synced {
		most = max(most, n)
	}
	return len(o.synced), most
}

func (o *operator) names() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []string
	for n := range o.synced {
		all = append(all, n)
	}
	return strings.Join(all, " ")
}
