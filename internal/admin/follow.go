package admin

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// silence is after how long without a sign of life a stream is given up: the
// server gives one every [pulse].
const silence = 3 * pulse

// maxEvent bounds one line of a stream.
const maxEvent = 5 << 20

// Event is a change, as followers are told of it.
type Event struct {
	ID     string          `json:"id"`
	Time   time.Time       `json:"time"`
	Actor  string          `json:"actor"`
	Kind   string          `json:"kind"`
	What   string          `json:"what"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// EventStream is an open GET /v1/events. It is for one goroutine.
type EventStream struct {
	server string
	body   io.ReadCloser
	lines  *bufio.Scanner
	quiet  *time.Timer // closes the body of a server that shows no sign of life
}

// Follow opens the stream of events, behind the event of an id, or at what comes
// next where it is empty. Whatever happens from its return on is in the stream,
// so that a caller who then reads a state misses no change of it. The stream
// ends with ctx, and is to be closed.
func (c *Client) Follow(ctx context.Context, after string) (*EventStream, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.Server, "/")+"/v1/events", nil)
	if err != nil {
		return nil, c.unusable(err)
	}
	if after != "" {
		req.Header.Set("last-event-id", after)
	}
	if c.Token != "" {
		req.Header.Set("authorization", "Bearer "+c.Token)
	}
	resp, err := cmp.Or(c.HTTP, http.DefaultClient).Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		return nil, errors.Join(c.refusal(resp, data), err)
	}
	s := &EventStream{server: c.Address(), body: resp.Body, lines: bufio.NewScanner(resp.Body)}
	s.lines.Buffer(nil, maxEvent)
	s.quiet = time.AfterFunc(silence, func() { _ = resp.Body.Close() })
	return s, nil
}

// Next waits for an event. After an error the stream is of no more use.
func (s *EventStream) Next() (Event, error) {
	for s.lines.Scan() {
		s.quiet.Reset(silence)
		data, ok := bytes.CutPrefix(s.lines.Bytes(), []byte("data: "))
		if !ok {
			continue // a sign of life, an id that is in the data too, or an event's end
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return Event{}, fmt.Errorf("%s answers what is not Tollgate's stream of events: %w", s.server, err)
		}
		return e, nil
	}
	return Event{}, fmt.Errorf("%s: events: %w", s.server, cmp.Or(s.lines.Err(), io.EOF))
}

// Close ends the stream.
func (s *EventStream) Close() error {
	s.quiet.Stop()
	return s.body.Close()
}
