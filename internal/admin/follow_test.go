package admin_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/events"
)

func TestFollowMissesNothing(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewServer(f.api)
	t.Cleanup(server.Close)
	t.Cleanup(f.events.Close) // or the server would wait for the streams
	c := &admin.Client{Server: server.URL}

	s, err := c.Follow(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	f.events.Publish(time.Now(), events.Event{Kind: "upstream.state", What: "upstream keeper", After: map[string]string{"state": "frozen"}})
	f.events.Publish(time.Now(), events.Event{Kind: "config.reload", What: "configuration"})
	first, err := s.Next()
	if err != nil || first.Kind != "upstream.state" || string(first.After) != `{"state":"frozen"}` {
		t.Fatalf("Next() = %+v, %v, want the pause", first, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	again, err := c.Follow(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if second, err := again.Next(); err != nil || second.Kind != "config.reload" {
		t.Errorf("Next() behind the first event = %+v, %v, want the second", second, err)
	}
}

func TestFollowEndsWithItsContextAndWithTheServer(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewServer(f.api)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := (&admin.Client{Server: server.URL}).Follow(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Next(); !errors.Is(err, context.Canceled) {
		t.Errorf("Next() = %v, want that the context has ended", err)
	}
	_ = s.Close()
	if s, err = (&admin.Client{Server: server.URL}).Follow(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f.events.Close()
	if e, err := s.Next(); err == nil {
		t.Errorf("Next() = %+v of a log that is closed, want an error", e)
	}
}

func TestFollowSaysWhatIsWrong(t *testing.T) {
	for _, server := range []string{"http://127.0.0.1:1", "://"} {
		if s, err := (&admin.Client{Server: server}).Follow(t.Context(), ""); err == nil {
			_ = s.Close()
			t.Errorf("Follow(%q) opens a stream", server)
		}
	}
}
