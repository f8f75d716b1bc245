package restore

import (
	"cmp"
	"encoding/json"
	"slices"
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
	Create   *unstructured.Unstructured // what is missing in the cluster; nil: it is there

	Sent   time.Time                   // by this run; zero: not yet
	before map[client.ObjectKey]string // status.syncedResourceVersion when it was sent
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

// sortTargets orders targets as they are restored.
func sortTargets(all []*Target) {
	slices.SortFunc(all, func(a, b *Target) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Key.Namespace, b.Key.Namespace), cmp.Compare(a.Key.Name, b.Key.Name))
	})
}

// Wave is the targets of one priority.
type Wave struct {
	Priority int
	Targets  []*Target
}

// Waves splits targets, in order, by priority.
func Waves(all []*Target) []Wave {
	var waves []Wave
	for _, t := range all {
		if len(waves) == 0 || waves[len(waves)-1].Priority != t.Priority {
			waves = append(waves, Wave{Priority: t.Priority})
		}
		w := &waves[len(waves)-1]
		w.Targets = append(w.Targets, t)
	}
	return waves
}

// Calls returns how many calls the targets make.
func (w Wave) Calls() int {
	n := 0
	for _, t := range w.Targets {
		n += t.Calls
	}
	return n
}
