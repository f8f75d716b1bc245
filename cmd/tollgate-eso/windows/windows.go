// Package windows keeps External Secrets from refreshing periodically while an
// upstream is paused, by syncWindows (External Secrets 2.7) of the external
// secrets that ask for it by the annotation [OptIn].
//
// A window that is set here takes itself back: its schedule names one minute of
// one day of the year and its duration ends with the pause, whatever becomes of
// who set it. [Release] takes it out of the object again.
//
// External Secrets refreshes an object whenever its spec changes, so that setting
// a window costs one attempt, which Tollgate answers without the upstream, and
// taking it back one read: it is for pauses that are long beside the refresh
// interval.
package windows

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Annotations of external secrets.
const (
	OptIn = "tollgate.dev/sync-windows" // "true": a pause may set a window
	Mark  = "tollgate.dev/paused"       // the window that was set, as JSON
)

// Opted reports whether a window may be set. One with windows that allow has
// none that deny, and is left alone.
func Opted(e *eso.ExternalSecret) bool {
	return e.Annotations[OptIn] == "true" && e.RefreshEvery() > 0 && e.DeletionTimestamp.IsZero() &&
		(e.Spec.SyncWindows == nil || e.Spec.SyncWindows.Kind == "deny")
}

// Set reports whether a window is set that was not taken back.
func Set(e *eso.ExternalSecret) bool { return e.Annotations[Mark] != "" }

// Until returns when the window that is set ends by itself; zero: there is none.
// A window is for less than a year.
func Until(e *eso.ExternalSecret, now time.Time) time.Time {
	w, ok := marked(e)
	if !ok {
		return time.Time{}
	}
	var minute, hour, day, month int
	if _, err := fmt.Sscanf(w.Schedule, "%d %d %d %d *", &minute, &hour, &day, &month); err != nil {
		return time.Time{}
	}
	from := time.Date(now.UTC().Year(), time.Month(month), day, hour, minute, 0, 0, time.UTC)
	if from.After(now.Add(24 * time.Hour)) {
		from = from.AddDate(-1, 0, 0) // set before the turn of the year
	}
	return from.Add(w.Duration.Duration)
}

// Deny returns the patch that keeps e from refreshing until then. It holds the
// object's version: whoever changed the object meanwhile is not overwritten.
func Deny(e *eso.ExternalSecret, now, until time.Time) ([]byte, error) {
	from := now.UTC().Truncate(time.Minute)
	w := eso.SyncWindow{
		Schedule: fmt.Sprintf("%d %d %d %d *", from.Minute(), from.Hour(), from.Day(), from.Month()),
		Duration: metav1.Duration{Duration: until.Sub(from).Round(time.Second) + time.Second},
	}
	mark, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	return patch(e, append(others(e), w), string(mark))
}

// Release returns the patch that takes back what Deny set, and leaves what else
// has become of the windows.
func Release(e *eso.ExternalSecret) ([]byte, error) {
	return patch(e, others(e), nil)
}

// others returns the windows that were not set here.
func others(e *eso.ExternalSecret) []eso.SyncWindow {
	if e.Spec.SyncWindows == nil {
		return nil
	}
	all := slices.Clone(e.Spec.SyncWindows.Windows)
	w, ok := marked(e)
	if i := slices.Index(all, w); ok && i >= 0 && e.Spec.SyncWindows.Kind == "deny" {
		all = slices.Delete(all, i, i+1)
	}
	return all
}

func marked(e *eso.ExternalSecret) (w eso.SyncWindow, ok bool) {
	err := json.Unmarshal([]byte(e.Annotations[Mark]), &w)
	return w, err == nil
}

func patch(e *eso.ExternalSecret, all []eso.SyncWindow, mark any) ([]byte, error) {
	spec := map[string]any{"syncWindows": nil}
	if len(all) > 0 {
		kind := "deny"
		if e.Spec.SyncWindows != nil {
			kind = e.Spec.SyncWindows.Kind
		}
		spec["syncWindows"] = eso.SyncWindows{Kind: kind, Windows: all}
	}
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": e.ResourceVersion, "annotations": map[string]any{Mark: mark}},
		"spec":     spec,
	})
}
