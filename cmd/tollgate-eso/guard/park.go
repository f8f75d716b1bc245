package guard

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Annotations of external secrets.
const (
	OptIn = "tollgate.dev/park"   // "true": it may be parked; "false": it may not, whatever the configuration says
	Mark  = "tollgate.dev/parked" // what was changed, as JSON
)

// mark is the value of [Mark].
type mark struct {
	Interval   string    `json:"refreshInterval"` // the original
	Generation int64     `json:"generation"`      // of the object after our own change; another one: somebody else's
	Next       time.Time `json:"next"`            // attempt
	Attempting bool      `json:"attempting,omitempty"`
}

// Parked reports whether an external secret has an interval that is not its own, or
// makes the attempt that ends that.
func Parked(e *eso.ExternalSecret) bool { return e.Annotations[Mark] != "" }

// Attempting reports whether an external secret that was parked makes an attempt.
func Attempting(e *eso.ExternalSecret) bool {
	m, ok := markOf(e)
	return ok && m.Attempting
}

func markOf(e *eso.ExternalSecret) (m mark, ok bool) {
	err := json.Unmarshal([]byte(e.Annotations[Mark]), &m)
	return m, err == nil
}

// Failing returns since when an external secret fails; false: it does not.
func Failing(e *eso.ExternalSecret) (time.Time, bool) {
	ready := eso.FindCondition(e.Status.Conditions, "Ready")
	if ready == nil || ready.Status != metav1.ConditionFalse {
		return time.Time{}, false
	}
	return ready.LastTransitionTime.Time, true
}

// firstRetry is after what External Secrets retries first; then it waits twice as
// long each time, and at most eso.LongestRetry.
const firstRetry = time.Second

// Failures returns how often External Secrets has tried in vain what fails for d.
func Failures(d time.Duration) int {
	n := 1
	for wait := firstRetry; d >= wait; n++ {
		d -= wait
		if wait = min(2*wait, eso.LongestRetry); wait == eso.LongestRetry {
			return n + 1 + int(d/eso.LongestRetry)
		}
	}
	return n
}

// Hopeless says why an external secret that fails cannot be parked; "": it can.
func Hopeless(e *eso.ExternalSecret) string {
	switch {
	case e.Owner() != "":
		return "a ClusterExternalSecret makes it, and would undo that"
	case e.Spec.RefreshPolicy != "" && e.Spec.RefreshPolicy != "Periodic":
		return "refreshPolicy " + e.Spec.RefreshPolicy
	case e.Status.SyncedResourceVersion == "":
		return "it has never synced"
	case e.RefreshEvery() == 0:
		return "refreshInterval 0: its Secret is missing or was changed"
	}
	return ""
}

// parkedMessage begins what the condition Ready says of a parked object.
const parkedMessage = "parked by tollgate-eso: "

// told reports whether the condition says that the object is parked, which External
// Secrets overwrites when it fails again.
func told(e *eso.ExternalSecret) bool {
	ready := eso.FindCondition(e.Status.Conditions, "Ready")
	return ready != nil && strings.HasPrefix(ready.Message, parkedMessage)
}

// tell returns the patch of the status that says so, and leaves all else of it.
func tell(e *eso.ExternalSecret) ([]byte, error) {
	all := make([]eso.Condition, len(e.Status.Conditions))
	copy(all, e.Status.Conditions)
	if ready := eso.FindCondition(all, "Ready"); ready != nil && !told(e) {
		ready.Message = parkedMessage + ready.Message
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": e.ResourceVersion}, "status": map[string]any{"conditions": all}})
}

// park returns the patch that stops refreshes until the next attempt.
func park(e *eso.ExternalSecret, next time.Time) ([]byte, error) {
	interval := (time.Hour).String() // External Secrets' default
	if m, ok := markOf(e); ok {
		interval = m.Interval
	} else if e.Spec.RefreshInterval != nil {
		interval = e.Spec.RefreshInterval.Duration.String()
	}
	return patch(e, "0s", &mark{Interval: interval, Generation: e.Generation + 1, Next: next})
}

// attempt returns the patch that lets External Secrets try.
func attempt(e *eso.ExternalSecret, m mark) ([]byte, error) {
	return patch(e, m.Interval, &mark{Interval: m.Interval, Generation: e.Generation + 1, Next: m.Next, Attempting: true})
}

// Release returns the patch that takes back what was changed, with further
// annotations. An interval that somebody has set since stays.
func Release(e *eso.ExternalSecret, annotations map[string]any) ([]byte, error) {
	m, ok := markOf(e)
	interval := ""
	if ok && e.Spec.RefreshInterval != nil && e.Spec.RefreshInterval.Duration == 0 {
		interval = m.Interval
	}
	return patchWith(e, interval, nil, annotations)
}

func patch(e *eso.ExternalSecret, interval string, m *mark) ([]byte, error) {
	return patchWith(e, interval, m, nil)
}

// patchWith holds the object's version: whoever changed it meanwhile is not
// overwritten.
func patchWith(e *eso.ExternalSecret, interval string, m *mark, annotations map[string]any) ([]byte, error) {
	all := map[string]any{Mark: nil}
	for k, v := range annotations {
		all[k] = v
	}
	if m != nil {
		text, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("mark: %w", err)
		}
		all[Mark] = string(text)
	}
	p := map[string]any{"metadata": map[string]any{"resourceVersion": e.ResourceVersion, "annotations": all}}
	if interval != "" {
		p["spec"] = map[string]any{"refreshInterval": interval}
	}
	return json.Marshal(p)
}
