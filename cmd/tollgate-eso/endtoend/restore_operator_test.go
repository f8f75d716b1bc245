package endtoend_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestK27RestoreWithTheOperatorItself refreshes 200 external secrets through
// External Secrets, Envoy and Tollgate, before an API that takes 100 calls until it is left
// alone: each is read once more, and none is refused.
func TestK27RestoreWithTheOperatorItself(t *testing.T) {
	const n, ns = 200, "restore-operator"
	l := newLab(t, ns, conditions{window: 3 * time.Second, concurrent: 1}) // the operator's default
	all, synced := l.numbered(t, ns, n)
	createAll(t, root(t), all)
	within(t, 3*time.Minute, "all are synced", synced)
	before := maps.Clone(l.fake.Reads())
	for i := range n {
		l.fake.Change(uid(i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, buildCompanion(t), "restore", "--server", "http://"+l.stack.Admin, "--store", "SecretStore/"+ns+"/keeper")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil || !synced() || !strings.Contains(string(out), "200/200 restored") {
		t.Errorf("%v, all synced = %v; it says:\n%s", err, synced(), out)
	}
	t.Logf("%d restored in %v", n, time.Since(began).Round(time.Second/10))
	reads := l.fake.Reads()
	for i := range n {
		if more := reads[uid(i)] - before[uid(i)]; more != 1 {
			t.Errorf("record %d was read %d times more, want once", i, more)
		}
	}
	if l.fake.Throttled() != 0 {
		t.Errorf("%d calls were refused by the upstream, want none", l.fake.Throttled())
	}
}
