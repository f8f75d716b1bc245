package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/internal/events"
)

const (
	// maxStreams bounds how many follow the events at once.
	maxStreams = 32

	// writeWithin is how long a follower may take to read what it is sent.
	writeWithin = 10 * time.Second

	// pulse is how often a quiet stream shows that it lives, to proxies and to
	// find out who has left.
	pulse = 15 * time.Second
)

// missed is sent in place of events that are not kept any more.
const missed = "data: {\"kind\":\"events.missed\",\"what\":\"events\",\"actor\":\"tollgate\",\"time\":%q,\"before\":null,\"after\":null}\n\n"

// followEvents sends events as they happen, as server-sent events. A
// Last-Event-ID, which browsers send by themselves when they connect again,
// begins behind that event.
func (a *API) followEvents(w http.ResponseWriter, r *http.Request) error {
	select {
	case a.streams <- struct{}{}:
		defer func() { <-a.streams }()
	default:
		w.Header().Set("retry-after", "5")
		return problemf(http.StatusServiceUnavailable, "%d streams of events are open already: close one of them", maxStreams)
	}
	w.Header().Set("content-type", "text/event-stream")
	if r.Method == http.MethodHead {
		return nil
	}
	f := a.o.Events.Follow(r.Header.Get("last-event-id"))
	s := stream{w: w, c: http.NewResponseController(w)}
	err := s.begin()
	for err == nil {
		var text string
		if text, err = a.nextText(r.Context(), f); err == nil {
			err = s.send(text)
		}
	}
	return nil // whoever was there is gone, or too slow, or Tollgate ends
}

// nextText waits for what is to be sent next: events, that some were missed, or
// that nothing happened.
func (a *API) nextText(ctx context.Context, f *events.Follower) (string, error) {
	wait, cancel := context.WithTimeout(ctx, pulse)
	defer cancel()
	records, err := f.Next(wait)
	switch {
	case errors.Is(err, events.ErrLost):
		return fmt.Sprintf(missed, a.o.Clock.Now().Std().UTC().Format(time.RFC3339Nano)), nil
	case err != nil && wait.Err() != nil && ctx.Err() == nil:
		return ": still here\n\n", nil
	case err != nil:
		return "", err
	}
	var text strings.Builder
	for _, r := range records {
		fmt.Fprintf(&text, "id: %s\ndata: %s\n\n", r.ID, r.JSON)
	}
	return text.String(), nil
}

// stream is one follower's connection.
type stream struct {
	w http.ResponseWriter
	c *http.ResponseController
}

// begin sends the head of the answer. The stream outlives the time in which
// other requests must be read.
func (s stream) begin() error {
	if err := s.c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return s.send(": tollgate\n\n")
}

// send writes at once, and gives up on who does not read.
func (s stream) send(text string) error {
	if err := s.c.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.c.Flush()
}
