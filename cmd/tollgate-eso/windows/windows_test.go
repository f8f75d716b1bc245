package windows_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/robfig/cron/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/windows"
)

func secret(w *eso.SyncWindows) *eso.ExternalSecret {
	return &eso.ExternalSecret{ObjectMeta: metav1.ObjectMeta{Name: "e", ResourceVersion: "7", Annotations: map[string]string{windows.OptIn: "true", "a": "b"}},
		Spec: eso.ExternalSecretSpec{SyncWindows: w}}
}

// TestK15WindowGoesAndLeavesNothing: what is set is taken back, whatever stood
// there before and was added meanwhile.
func TestK15WindowGoesAndLeavesNothing(t *testing.T) {
	now := time.Date(2026, 12, 31, 23, 50, 30, 0, time.UTC)
	until := now.Add(20 * time.Minute)
	own := eso.SyncWindow{Schedule: "0 1 1-1 1 *", Duration: metav1.Duration{Duration: time.Hour}}
	for name, before := range map[string]*eso.SyncWindows{"none": nil, "one of its own": {Kind: "deny", Windows: []eso.SyncWindow{own}}} {
		if !windows.Opted(secret(before)) || windows.Set(secret(before)) {
			t.Fatalf("%s: not opted, or set", name)
		}
		denied := windows.Denied(secret(before), now, until)
		if got := denied.Windows[len(denied.Windows)-1].Schedule; got != "50-50 23-23 31-31 12-12 *" {
			t.Errorf("%s: schedule = %q, want the one minute of the year", name, got)
		}
		for _, later := range []time.Time{now.Add(time.Minute), time.Date(2027, 1, 1, 0, 5, 0, 0, time.UTC)} {
			if end := windows.Until(secret(denied), later); end.Before(until) || end.After(until.Add(2*time.Second)) {
				t.Errorf("%s: at %v, ends by itself at %v, want %v", name, later, end, until)
			}
		}
		again := windows.Denied(secret(denied), now.Add(5*time.Minute), until.Add(time.Hour))
		if len(again.Windows) != len(denied.Windows) {
			t.Errorf("%s: %d windows after a longer pause, want %d", name, len(again.Windows), len(denied.Windows))
		}
		if diff := cmp.Diff(before, windows.Released(secret(again))); diff != "" {
			t.Errorf("%s: afterwards (-before +after):\n%s", name, diff)
		}
		added := eso.SyncWindow{Schedule: "0 2 * * *", Duration: metav1.Duration{Duration: time.Hour}}
		again.Windows = append(again.Windows, added)
		if kept := windows.Released(secret(again)); kept == nil || kept.Windows[len(kept.Windows)-1] != added || len(kept.Windows) != len(denied.Windows) {
			t.Errorf("%s: windows = %+v, want the one that was added meanwhile", name, kept)
		}
	}
}

// TestK15WindowEndsByItself holds windows to External Secrets' own rule: from now to
// the pause's end they keep it from refreshing and no longer, whoever has died.
func TestK15WindowEndsByItself(t *testing.T) {
	for _, now := range []time.Time{
		time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC), time.Date(2026, 11, 24, 10, 0, 59, 999, time.UTC),
		time.Date(2026, 12, 31, 23, 59, 30, 0, time.UTC), time.Date(2028, 2, 29, 12, 30, 0, 0, time.UTC),
		time.Date(2026, 3, 29, 1, 59, 0, 0, time.FixedZone("", 3600)),
	} {
		for _, pause := range []time.Duration{time.Second, 90 * time.Second, time.Hour, 5 * 24 * time.Hour} {
			w := windows.Denied(secret(nil), now, now.Add(pause)).Windows[0]
			for _, at := range []struct {
				after  time.Duration
				denied bool
			}{{0, true}, {pause / 2, true}, {pause, true}, {pause + 3*time.Second, false}, {pause + time.Hour, false}, {pause + 24*time.Hour, false}, {180 * 24 * time.Hour, false}} {
				if got := inWindow(t, w, now.Add(at.after)); got != at.denied {
					t.Errorf("set at %v for %v: %v later denied = %v", now, pause, at.after, got)
				}
			}
		}
	}
}

// inWindow reports whether a moment is in a window, as External Secrets 2.9 does.
func inWindow(t *testing.T, w eso.SyncWindow, at time.Time) bool {
	t.Helper()
	schedule, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor).Parse(w.Schedule)
	if err != nil {
		t.Fatal(err)
	}
	opened := schedule.Next(at.UTC().Add(-w.Duration.Duration - time.Second))
	return !opened.IsZero() && !opened.After(at) && !at.After(opened.Add(w.Duration.Duration))
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
