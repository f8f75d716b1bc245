package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/events"
	"github.com/tollgate-dev/tollgate/limits/pressure"
	"github.com/tollgate-dev/tollgate/limits/redis"
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
	var pauses atomic.Pointer[redis.Pauses]
	if s.cluster != nil {
		o.Share = func(id string, st pressure.State) {
			if p := pauses.Load(); p != nil {
				p.Tell(id, st)
			}
		}
	}
	s.upstreams = upstreams.New(o)
	if s.cluster != nil {
		pauses.Store(s.cluster.Pauses(s.upstreamIDs, func(id string, st pressure.State) {
			if u := s.upstreams.ByID(id); u != nil {
				u.Merge(s.clock.Now(), st)
			}
		}))
	}
	s.opens(s.upstreams.Close)
	s.upstreams.Configure(s.current.Load().Config.Upstreams)
	return nil
}

// upstreamIDs names the upstreams that are configured just now.
func (s *Server) upstreamIDs() []string {
	var ids []string
	for _, u := range s.upstreams.All() {
		ids = append(ids, u.ID())
	}
	return ids
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
