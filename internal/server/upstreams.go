package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/events"
)

// upstreamNote begins the names under which the states of upstreams are kept.
const upstreamNote = "upstream/"

// openUpstreams makes the upstreams go on where they were.
func (s *Server) openUpstreams(context.Context) error {
	notes, err := s.db.Notes()
	if err != nil {
		return err
	}
	saved := map[string]upstreams.Saved{}
	for name, value := range notes {
		id, ok := strings.CutPrefix(name, upstreamNote)
		if !ok {
			continue
		}
		var state upstreams.Saved
		if err := json.Unmarshal(value, &state); err != nil {
			return fmt.Errorf("the state of upstream %q cannot be read: %w", id, err)
		}
		saved[id] = state
	}
	o := upstreams.Options{
		Clock: s.clock,
		Saved: saved,
		Keep: func(id string, state upstreams.Saved) error {
			value, err := json.Marshal(state)
			if err != nil {
				return err
			}
			return s.db.PutNote(upstreamNote+id, value)
		},
		Failed: func(err error) {
			s.log.Error("the state of an upstream could not be written, trying again", "err", err)
		},
		Changed: s.upstreamChanged,
	}
	if s.cluster == nil {
		s.upstreams = upstreams.New(o)
	} else {
		shared := s.cluster.Pressure()
		o.Shared = shared
		s.upstreams = upstreams.New(o)
		shared.Run(s.upstreams)
	}
	s.opens(s.upstreams.Close)
	s.upstreams.Configure(s.current.Load().Config.Upstreams)
	return nil
}

// upstreamChanged tells what happened to an upstream.
func (s *Server) upstreamChanged(e upstreams.Event) {
	now, status := e.At.Std(), e.Status
	what := "upstream " + status.ID
	if e.Kind == upstreams.BudgetReached {
		s.log.Warn("upstream budget", "upstream", status.ID, "period", e.Alert.Calendar, "level", e.Alert.Level, "used", e.Alert.Used, "calls", e.Alert.Calls)
		s.events.Publish(now, events.Event{Kind: "upstream.budget", What: what, Actor: "tollgate", After: admin.NewBudgetAlert(e.Alert)})
		return
	}
	// A queue that forms and goes is no news for the log.
	if e.Was == upstreams.Frozen || status.State == upstreams.Frozen {
		s.log.Warn("upstream", "upstream", status.ID, "state", status.State, "reason", status.Reason, "until", status.Until.Std(), "violations", status.Violations)
	}
	s.events.Publish(now, events.Event{
		Kind: "upstream.state", What: what, Actor: "tollgate",
		Before: map[string]upstreams.State{"state": e.Was}, After: admin.NewUpstream(status),
	})
}
