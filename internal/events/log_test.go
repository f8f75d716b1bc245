package events_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/internal/events"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func publish(l *events.Log, what ...string) {
	for _, w := range what {
		l.Publish(noon, events.Event{Kind: "test", What: w})
	}
}

// next returns what the next records are about.
func next(t *testing.T, f *events.Follower) (whats []string, last string) {
	t.Helper()
	records, err := f.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		var e struct{ ID, What string }
		if err := json.Unmarshal(r.JSON, &e); err != nil || e.ID != r.ID {
			t.Fatalf("%v in %s with the id %s", err, r.JSON, r.ID)
		}
		whats, last = append(whats, e.What), r.ID
	}
	return whats, last
}

func TestALineForEachEvent(t *testing.T) {
	var out bytes.Buffer
	l := events.NewLog(events.Options{})
	l.SendTo(&out)
	limits := []string{"5/s"}
	l.Publish(noon, events.Event{Kind: "consumer.set", What: "consumer billing", Actor: "admin 10.0.0.7:1", After: limits})
	limits[0] = "changed since"
	l.Publish(noon, events.Event{Kind: "consumer.remove", What: "consumer billing", Actor: "admin 10.0.0.7:1", Before: limits})
	l.SendTo(nil)
	publish(l, "to nobody")
	var got []map[string]any
	for line := range strings.Lines(out.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		delete(m, "id")
		got = append(got, m)
	}
	want := []map[string]any{
		{"time": "2026-01-02T12:00:00Z", "kind": "consumer.set", "what": "consumer billing", "actor": "admin 10.0.0.7:1", "before": nil, "after": []any{"5/s"}},
		{"time": "2026-01-02T12:00:00Z", "kind": "consumer.remove", "what": "consumer billing", "actor": "admin 10.0.0.7:1", "before": []any{"changed since"}, "after": nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
}

func TestFollow(t *testing.T) {
	l := events.NewLog(events.Options{Kept: 4})
	publish(l, "a", "b")
	f := l.Follow("")
	publish(l, "c", "d")
	got, id := next(t, f)
	if diff := cmp.Diff([]string{"c", "d"}, got); diff != "" {
		t.Errorf("those to come (-want +got):\n%s", diff)
	}
	publish(l, "e", "f")
	if got, _ := next(t, l.Follow(id)); !cmp.Equal(got, []string{"e", "f"}) {
		t.Errorf("after d: %v, want e and f", got)
	}
	publish(l, "g", "h") // e is the oldest that is kept
	if got, _ := next(t, l.Follow(id)); !cmp.Equal(got, []string{"e", "f", "g", "h"}) {
		t.Errorf("after d, and e is just kept: %v", got)
	}
	publish(l, "i")
	for name, f := range map[string]*events.Follower{
		"slow": f, "late": l.Follow(id), "of an earlier run": l.Follow("abc-1"), "of the future": l.Follow(strings.Split(id, "-")[0] + "-99"), "nonsense": l.Follow("nonsense"),
	} {
		if got, err := f.Next(t.Context()); !errors.Is(err, events.ErrLost) {
			t.Errorf("%s: %v %v, want ErrLost", name, got, err)
		}
		if got, _ := next(t, f); !cmp.Equal(got, []string{"f", "g", "h", "i"}) {
			t.Errorf("%s goes on with %v, want all that is kept", name, got)
		}
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := events.NewLog(events.Options{})
		f := l.Follow("")
		time.AfterFunc(time.Hour, func() { publish(l, "a") })
		if got, _ := next(t, f); !cmp.Equal(got, []string{"a"}) {
			t.Errorf("after an hour: %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := f.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("until the deadline: %v", err)
		}
		time.AfterFunc(time.Hour, l.Close)
		if _, err := f.Next(t.Context()); !errors.Is(err, events.ErrClosed) {
			t.Errorf("of a closed log: %v", err)
		}
		publish(l, "lost")
		if _, err := f.Next(t.Context()); !errors.Is(err, events.ErrClosed) {
			t.Errorf("after an event for a closed log: %v", err)
		}
	})
}

func TestKeptBytesAreBounded(t *testing.T) {
	l := events.NewLog(events.Options{KeptBytes: 1000})
	f := l.Follow("")
	publish(l, strings.Repeat("x", 5000)) // alone it is kept
	if got, _ := next(t, f); len(got) != 1 {
		t.Errorf("a large event: %d", len(got))
	}
	for range 100 {
		publish(l, strings.Repeat("x", 200))
	}
	if _, err := f.Next(t.Context()); !errors.Is(err, events.ErrLost) {
		t.Errorf("of 20 kB with room for 1 kB: %v", err)
	}
	if got, _ := next(t, f); len(got) < 2 || len(got) > 5 {
		t.Errorf("%d events of 200 bytes and more in 1000", len(got))
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestFailuresAreTold(t *testing.T) {
	var told []string
	l := events.NewLog(events.Options{Failed: func(err error) { told = append(told, err.Error()) }})
	f := l.Follow("")
	l.SendTo(full{})
	publish(l, "a")
	l.Publish(noon, events.Event{Kind: "test", What: "b", After: func() {}})
	if len(told) != 2 || !strings.Contains(told[0], "no space left") || !strings.Contains(told[1], "event test of b") {
		t.Errorf("told %q", told)
	}
	if got, _ := next(t, f); !cmp.Equal(got, []string{"a"}) {
		t.Errorf("followers see %v, want a although it was not written", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	const writers, each = 8, 50
	l := events.NewLog(events.Options{})
	var readers, publishers sync.WaitGroup
	for range 4 {
		f := l.Follow("")
		readers.Go(func() {
			seen := 0
			for seen < writers*each {
				got, err := f.Next(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				seen += len(got)
			}
		})
	}
	for i := range writers {
		publishers.Go(func() {
			for j := range each {
				publish(l, fmt.Sprint(i, j))
			}
		})
	}
	publishers.Wait()
	readers.Wait()
}
