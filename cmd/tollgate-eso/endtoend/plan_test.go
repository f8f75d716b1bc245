package endtoend_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestK26PlanOfACluster reads what a real API server has, and what Tollgate allows.
func TestK26PlanOfACluster(t *testing.T) {
	cl := root(t)
	const ns = "planned"
	create(t, cl, store(ns))
	createAll(t, cl, []client.Object{
		externalSecret(ns, "one", nil, uid(1), uid(2)),
		externalSecret(ns, "often", map[string]any{"refreshInterval": "30m"}, uid(3)),
		externalSecret(ns, "once", map[string]any{"refreshPolicy": "CreatedOnce"}, uid(4)),
	})
	binary := buildCompanion(t)
	plan := func(args ...string) (int, map[string]any) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), binary, append([]string{"plan", "--cluster", "-o", "json", "--store", "SecretStore/" + ns + "/keeper"}, args...)...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig)
		cmd.Stderr = t.Output()
		out, _ := cmd.Output() // the exit code is looked at
		var report map[string]any
		if err := json.Unmarshal(out, &report); err != nil {
			t.Fatalf("%v: exit code %d\n%s", err, cmd.ProcessState.ExitCode(), out)
		}
		return cmd.ProcessState.ExitCode(), report
	}
	if code, r := plan(); code != 0 || r["objects"] != 3.0 || r["calls_per_day"] != 50.0 || r["peak"] != 4.0 || r["planned_peak"] != 3.0 {
		t.Errorf("exit code %d, %v: want 0, 3 objects, 2+48 calls a day", code, r)
	}
	if code, r := plan("--budget", "49/day"); code != 1 || r["fits"] != false {
		t.Errorf("a budget of 49 a day: exit code %d, %v", code, r)
	}
}
