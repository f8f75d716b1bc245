package savings_test

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/savings"
)

// TestK22Savings: 500 external secrets that were polled every 5 minutes, a day
// with webhooks: each is refreshed once by its interval of 24 h, and 20 by a
// change. What the meter has seen is a hundredth of what polling costs.
func TestK22Savings(t *testing.T) {
	const n, changes = 500, 20
	start := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	m := savings.New(start, 5*time.Minute)
	all := make([]*eso.ExternalSecret, n)
	for i := range all {
		all[i] = &eso.ExternalSecret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i)},
			Spec: eso.ExternalSecretSpec{Data: []eso.Data{{RemoteRef: eso.RemoteRef{Key: fmt.Sprint(i)}}}}}
		m.Changed(start, nil, all[i])
	}
	refresh := func(i int, at time.Time) {
		after := all[i].DeepCopyObject().(*eso.ExternalSecret)
		after.Status.RefreshTime = metav1.NewTime(at)
		m.Changed(at, all[i], after)
		m.Changed(at.Add(time.Second), after, after) // another change of the object is no refresh
		all[i] = after
	}
	for i := range n {
		refresh(i, start.Add(time.Duration(i)*24*time.Hour/n))
	}
	for i := range changes {
		refresh(i, start.Add(time.Duration(i+1)*time.Hour+time.Minute))
	}
	r := m.Report(start.Add(24 * time.Hour))
	if r.Calls != n+changes || r.Refreshes != n+changes || r.Polling < 143_000 || r.Polling > 144_000 || r.Saved < 0.99 || r.PerDay != n+changes {
		t.Errorf("report = %+v, want %d calls where polling makes 144,000: at least 0.99 saved", r, n+changes)
	}
}

// TestGoneIsNotPolled: what is deleted, or reads more, counts from then on.
func TestGoneIsNotPolled(t *testing.T) {
	start := time.Unix(0, 0)
	m := savings.New(start, time.Minute)
	one := &eso.ExternalSecret{Spec: eso.ExternalSecretSpec{Data: make([]eso.Data, 1)}}
	three := &eso.ExternalSecret{Spec: eso.ExternalSecretSpec{Data: make([]eso.Data, 3)}}
	m.Changed(start, nil, one)
	m.Changed(start.Add(10*time.Minute), one, three)
	m.Changed(start.Add(20*time.Minute), three, nil)
	if r := m.Report(start.Add(time.Hour)); r.Polling != 10+30 || r.Calls != 0 || r.Saved != 1 {
		t.Errorf("report = %+v, want that polling makes 40 calls", r)
	}
}
