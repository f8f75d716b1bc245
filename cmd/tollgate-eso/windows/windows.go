// Package windows keeps External Secrets from refreshing periodically while an
// upstream is paused, by syncWindows (External Secrets 2.7) of the external
// secrets that ask for it by the annotation [OptIn].
//
// A window that is set here takes itself back: its schedule names one minute of
// one day of the year and its duration ends with the pause, whatever becomes of
// who set it. [Released] takes it out of the object again. It is known by its
// form, which nobody else writes: 9-9 10-10 24-24 11-11 *, not 9 10 24 11 *.
//
// External Secrets refreshes an object whose generation or annotations are others
// than when it synced last, whatever its windows say, and again and again while
// that fails. So no annotation marks the window, and [Write] says before it changes
// the spec that the next generation is synced.
package windows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// OptIn is the annotation of external secrets that a pause may give a window:
// "true".
const OptIn = "tollgate.dev/sync-windows"

// ErrUnknown is that this External Secrets has no syncWindows.
var ErrUnknown = errors.New("this External Secrets has no syncWindows: they want 2.7 or later")

// Opted reports whether a window may be set. One with windows that allow has
// none that deny, and is left alone.
func Opted(e *eso.ExternalSecret) bool {
	return e.Annotations[OptIn] == "true" && e.RefreshEvery() > 0 && e.DeletionTimestamp.IsZero() &&
		(e.Spec.SyncWindows == nil || e.Spec.SyncWindows.Kind == "deny")
}

// Set reports whether a window is set that was not taken back.
func Set(e *eso.ExternalSecret) bool {
	return e.Spec.SyncWindows != nil && find(e.Spec.SyncWindows) >= 0
}

// form is the schedule of a window that is set here.
const form = "%d-%[1]d %d-%[2]d %d-%[3]d %d-%[4]d *"

// find returns the index of the window that was set here, or -1.
func find(w *eso.SyncWindows) int {
	if w.Kind != "deny" {
		return -1
	}
	return slices.IndexFunc(w.Windows, func(one eso.SyncWindow) bool { _, ok := parse(one.Schedule); return ok })
}

// parse returns minute, hour, day and month of a schedule of the form.
func parse(schedule string) (at [4]int, ok bool) {
	for i, field := range strings.Fields(schedule) {
		from, to, isRange := strings.Cut(field, "-")
		switch n, err := strconv.Atoi(from); {
		case i == len(at):
			return at, field == "*"
		case err != nil, !isRange, from != to:
			return at, false
		default:
			at[i] = n
		}
	}
	return at, false
}

// Until returns when the window that is set ends by itself; zero: there is none.
// A window is for less than a year.
func Until(e *eso.ExternalSecret, now time.Time) time.Time {
	if !Set(e) {
		return time.Time{}
	}
	w := e.Spec.SyncWindows.Windows[find(e.Spec.SyncWindows)]
	at, _ := parse(w.Schedule)
	from := time.Date(now.UTC().Year(), time.Month(at[3]), at[2], at[1], at[0], 0, 0, time.UTC)
	if from.After(now.Add(24 * time.Hour)) {
		from = from.AddDate(-1, 0, 0) // set before the turn of the year
	}
	return from.Add(w.Duration.Duration)
}

// Denied returns the windows of e with one that keeps it from refreshing until then.
func Denied(e *eso.ExternalSecret, now, until time.Time) *eso.SyncWindows {
	from := now.UTC().Truncate(time.Minute)
	w := eso.SyncWindow{
		Schedule: fmt.Sprintf(form, from.Minute(), from.Hour(), from.Day(), from.Month()),
		Duration: metav1.Duration{Duration: until.Sub(from).Round(time.Second) + time.Second},
	}
	all := &eso.SyncWindows{Kind: "deny"}
	if others := Released(e); others != nil {
		all.Windows = slices.Clone(others.Windows)
	}
	all.Windows = append(all.Windows, w)
	return all
}

// Released returns the windows of e without the one that was set here; nil: there
// are no others.
func Released(e *eso.ExternalSecret) *eso.SyncWindows {
	if !Set(e) {
		return e.Spec.SyncWindows
	}
	i := find(e.Spec.SyncWindows)
	others := slices.Delete(slices.Clone(e.Spec.SyncWindows.Windows), i, i+1)
	if len(others) == 0 {
		return nil
	}
	return &eso.SyncWindows{Kind: e.Spec.SyncWindows.Kind, Windows: others}
}

// Due reports whether External Secrets refreshes e as soon as no window keeps it.
func Due(e *eso.ExternalSecret, now time.Time) bool {
	return e.Status.RefreshTime.IsZero() || !now.Before(e.Status.RefreshTime.Add(e.RefreshEvery()))
}

// Write gives e other windows, and returns it as it is then. An object that somebody
// changes meanwhile is not overwritten: the error is a conflict. What is to be
// written is tried first, since the status is wrong when it cannot be.
func Write(ctx context.Context, c client.Client, e *eso.ExternalSecret, w *eso.SyncWindows) (*eso.ExternalSecret, error) {
	spec := map[string]any{"syncWindows": w}
	tried := e.DeepCopyObject().(*eso.ExternalSecret)
	if err := patch(ctx, c.Patch, tried, "spec", spec, client.DryRunAll); err != nil {
		return nil, err
	}
	if w != nil && tried.Spec.SyncWindows == nil { // the API server drops what the CRD does not have
		return nil, ErrUnknown
	}
	written := e.DeepCopyObject().(*eso.ExternalSecret)
	if next, ok := synced(e); ok {
		status := func(ctx context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
			return c.Status().Patch(ctx, o, p)
		}
		if err := patch(ctx, status, written, "status", map[string]any{"syncedResourceVersion": next}); err != nil {
			return nil, err
		}
	}
	return written, patch(ctx, c.Patch, written, "spec", spec)
}

// synced returns what External Secrets says of an object that it has synced, for the
// object's next generation; false: it has not synced this one.
func synced(e *eso.ExternalSecret) (string, bool) {
	hash, ok := strings.CutPrefix(e.Status.SyncedResourceVersion, fmt.Sprintf("%d-", e.Generation))
	return fmt.Sprintf("%d-%s", e.Generation+1, hash), ok
}

// patch patches a part of the version of e that was read.
func patch(ctx context.Context, do func(context.Context, client.Object, client.Patch, ...client.PatchOption) error,
	e *eso.ExternalSecret, part string, value any, opts ...client.PatchOption) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": e.ResourceVersion}, part: value})
	if err != nil {
		return err
	}
	return do(ctx, e, client.RawPatch(types.MergePatchType, data), opts...)
}
