package webhook_test

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/webhook"
)

func TestQueueKeepsWhatALaterEventChanged(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "q.db"))
	at := time.Unix(1000, 0)
	put := func(event string, now time.Time) {
		t.Helper()
		fresh, err := q.Put(now, sha256.Sum256([]byte(event)), time.Hour, []webhook.Job{{Upstream: "u", Kind: webhook.ByUID, Name: "a"}})
		if err != nil || !fresh {
			t.Fatalf("Put = %v, %v", fresh, err)
		}
	}
	put("1", at)
	taken, err := q.Jobs()
	if err != nil {
		t.Fatal(err)
	}
	put("2", at.Add(time.Second))
	if err := q.Done(taken...); err != nil {
		t.Fatal(err)
	}
	left, err := q.Jobs()
	if err != nil || len(left) != 1 || !left[0].First.Equal(at) || !left[0].Last.Equal(at.Add(time.Second)) {
		t.Fatalf("Jobs = %+v, %v, want the job with both events", left, err)
	}
	if err := q.Done(left...); err != nil {
		t.Fatal(err)
	}
	if left, err = q.Jobs(); err != nil || len(left) != 0 {
		t.Errorf("Jobs = %+v, %v, want none", left, err)
	}
}

func TestQueueForgetsEvents(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "q.db"))
	at, event := time.Unix(1000, 0), sha256.Sum256([]byte("1"))
	for i, c := range []struct {
		now   time.Time
		fresh bool
	}{{at, true}, {at.Add(59 * time.Second), false}, {at.Add(time.Minute), true}} {
		if err := q.Forget(c.now); err != nil {
			t.Fatal(err)
		}
		if fresh, err := q.Put(c.now, event, time.Minute, nil); err != nil || fresh != c.fresh {
			t.Errorf("%d: Put = %v, %v, want %v", i, fresh, err, c.fresh)
		}
	}
}

func TestQueueIsForOneProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 2 s for the lock")
	}
	file := filepath.Join(t.TempDir(), "q.db")
	openQueue(t, file)
	if q, err := webhook.OpenQueue(file); err == nil {
		_ = q.Close()
		t.Error("a second process opens the queue")
	}
}

func TestQueueIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 100,000 jobs")
	}
	q := openQueue(t, filepath.Join(t.TempDir(), "q.db"))
	var jobs []webhook.Job
	for i := range 100_000 {
		jobs = append(jobs, webhook.Job{Upstream: "u", Kind: webhook.ByUID, Name: fmt.Sprint(i)})
	}
	now := time.Unix(1000, 0)
	if _, err := q.Put(now, sha256.Sum256([]byte("1")), time.Hour, jobs); err != nil {
		t.Fatal(err)
	}
	if fresh, err := q.Put(now, sha256.Sum256([]byte("2")), time.Hour, jobs[:1]); err == nil {
		t.Errorf("Put = %v, want that the queue is full", fresh)
	}
}
