package windows_test

import (
	"encoding/json"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/windows"
)

func apply(t *testing.T, e *eso.ExternalSecret, patch []byte, err error) *eso.ExternalSecret {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	before, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	after, err := jsonpatch.MergePatch(before, patch)
	if err != nil {
		t.Fatal(err)
	}
	changed := &eso.ExternalSecret{}
	if err := json.Unmarshal(after, changed); err != nil {
		t.Fatal(err)
	}
	return changed
}

func secret(w *eso.SyncWindows) *eso.ExternalSecret {
	return &eso.ExternalSecret{ObjectMeta: metav1.ObjectMeta{Name: "e", ResourceVersion: "7", Annotations: map[string]string{windows.OptIn: "true", "a": "b"}},
		Spec: eso.ExternalSecretSpec{SyncWindows: w}}
}

// TestK15WindowGoesAndLeavesNothing: what is set is taken back, whatever stood
// there before and was added meanwhile.
func TestK15WindowGoesAndLeavesNothing(t *testing.T) {
	now := time.Date(2026, 12, 31, 23, 50, 30, 0, time.UTC)
	until := now.Add(20 * time.Minute)
	own := eso.SyncWindow{Schedule: "0 1 * * *", Duration: metav1.Duration{Duration: time.Hour}}
	for name, before := range map[string]*eso.SyncWindows{"none": nil, "one of its own": {Kind: "deny", Windows: []eso.SyncWindow{own}}} {
		e := secret(before)
		if !windows.Opted(e) {
			t.Fatalf("%s: not opted", name)
		}
		patch, err := windows.Deny(e, now, until)
		denied := apply(t, e, patch, err)
		w := denied.Spec.SyncWindows.Windows
		if got := w[len(w)-1].Schedule; got != "50 23 31 12 *" {
			t.Errorf("%s: schedule = %q, want the one minute of the year", name, got)
		}
		if end := windows.Until(denied, now.Add(time.Minute)); end.Before(until) || end.After(until.Add(2*time.Second)) {
			t.Errorf("%s: ends by itself at %v, want %v", name, end, until)
		}
		if end := windows.Until(denied, time.Date(2027, 1, 1, 0, 5, 0, 0, time.UTC)); end.Before(until) || end.After(until.Add(2*time.Second)) {
			t.Errorf("%s: next year, ends by itself at %v, want %v", name, end, until)
		}
		longer, err := windows.Deny(denied, now.Add(5*time.Minute), until.Add(time.Hour))
		again := apply(t, denied, longer, err)
		if n := len(again.Spec.SyncWindows.Windows); n != len(w) {
			t.Errorf("%s: %d windows after a longer pause, want %d", name, n, len(w))
		}
		release, err := windows.Release(again)
		if diff := cmp.Diff(e, apply(t, again, release, err)); diff != "" {
			t.Errorf("%s: afterwards (-before +after):\n%s", name, diff)
		}
		own2 := eso.SyncWindow{Schedule: "0 2 * * *", Duration: metav1.Duration{Duration: time.Hour}}
		again.Spec.SyncWindows.Windows = append(again.Spec.SyncWindows.Windows, own2)
		release, err = windows.Release(again)
		kept := apply(t, again, release, err).Spec.SyncWindows
		if kept == nil || kept.Windows[len(kept.Windows)-1] != own2 || len(kept.Windows) != len(w) {
			t.Errorf("%s: windows = %+v, want the one that was added meanwhile", name, kept)
		}
	}
}

func TestWhoIsNotAskedGetsNone(t *testing.T) {
	allow := secret(&eso.SyncWindows{Kind: "allow", Windows: []eso.SyncWindow{{Schedule: "0 1 * * *"}}})
	once := secret(nil)
	once.Spec.RefreshPolicy = "CreatedOnce"
	silent := secret(nil)
	silent.Annotations = nil
	for name, e := range map[string]*eso.ExternalSecret{"allows by windows": allow, "never refreshes": once, "does not ask": silent} {
		if windows.Opted(e) {
			t.Errorf("%s: opted", name)
		}
	}
}
