package restore

import (
	"encoding/json"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
)

// Annotations of external secrets and cluster external secrets.
const (
	Priority = "tollgate.dev/restore-priority" // a whole number; none: 0; higher ones first
	Mark     = "tollgate.dev/restore"          // the run that wrote it last, as JSON
)

// Target is what one write refreshes: an external secret, or all those of a
// ClusterExternalSecret, which would undo what is written into them.
type Target struct {
	Key      client.ObjectKey // without a namespace: a ClusterExternalSecret
	Priority int
	Calls    int // of a refresh of all members
	Members  []client.ObjectKey
	Makes    []client.ObjectKey         // Secrets
	Needs    []client.ObjectKey         // Secrets that have to be there before
	Create   *unstructured.Unstructured // what is missing in the cluster; nil: it is there

	Sent   time.Time                   // by this run; zero: not yet
	before map[client.ObjectKey]string // status.syncedResourceVersion when it was sent
	depth  int                         // how many others of its priority have to come before it, one after the other
}

func (t *Target) String() string {
	if t.Key.Namespace == "" {
		return "ClusterExternalSecret " + t.Key.Name
	}
	return t.Key.String()
}

// mark is the value of [Mark].
type mark struct {
	Run    string    `json:"run"`
	At     time.Time `json:"at"`
	Before string    `json:"before,omitempty"` // of an external secret's own
}

func markOf(o metav1.Object) (m mark, ok bool) {
	err := json.Unmarshal([]byte(o.GetAnnotations()[Mark]), &m)
	return m, err == nil && m.Run != ""
}

// priorityOf returns the priority of an object. What is no number is none.
func priorityOf(o metav1.Object) int {
	n, _ := strconv.Atoi(o.GetAnnotations()[Priority])
	return n
}

// resume takes in what an object says of the run.
func (t *Target) resume(run string, o metav1.Object) {
	m, ok := markOf(o)
	if !ok || m.Run != run {
		return
	}
	t.Sent, t.before = m.At, map[client.ObjectKey]string{}
	if t.Key.Namespace != "" {
		t.before[t.Key] = m.Before
	}
}

// Outcome is what has become of a target.
type Outcome int

// Outcomes.
const (
	Waiting Outcome = iota // not sent
	Flying                 // sent, and not come back
	Synced
	Failed
)

// settle returns what has become of a member since it was sent, and the message of
// a failure.
//
// Synced: what is synced is another version than before, or, where that is not
// known, the refresh is no older. Failed: Ready is False since then. That an object
// which had failed before fails again in the same way, External Secrets does not
// show.
func (t *Target) settle(e *eso.ExternalSecret) (Outcome, string) {
	since := t.Sent.Truncate(time.Second) // times of the API have no more
	before, known := t.before[client.ObjectKeyFromObject(e)]
	switch {
	case e.Status.RefreshTime.IsZero(), e.Status.RefreshTime.Time.Before(since) && !known:
	case !known, e.Status.SyncedResourceVersion != before:
		return Synced, ""
	}
	ready := eso.FindCondition(e.Status.Conditions, "Ready")
	if ready != nil && ready.Status == metav1.ConditionFalse && !ready.LastTransitionTime.Time.Before(since) {
		return Failed, ready.Message
	}
	return Flying, ""
}
