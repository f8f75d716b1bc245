package server

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/events"
)

// openEvents opens the record of what is changed.
func (s *Server) openEvents(context.Context) error {
	s.events = events.NewLog(events.Options{Failed: func(err error) { s.log.Error("a change is missing from the audit", "err", err) }})
	s.opens(func() error {
		s.events.Close()
		s.events.SendTo(nil)
		if s.audit == nil {
			return nil
		}
		return s.audit.Close()
	})
	sink, file, err := s.openAudit(s.current.Load().Config)
	if err != nil {
		return err
	}
	s.auditTo(sink, file)
	return nil
}

// openAudit opens where events are to be written to; file is nil where that is
// not a file of its own.
func (s *Server) openAudit(c *config.Config) (sink io.Writer, file *os.File, err error) {
	switch c.Telemetry.Audit {
	case config.AuditLog:
		return auditLog{s.log}, nil, nil
	case config.AuditStdout:
		return os.Stdout, nil, nil
	}
	file, err = os.OpenFile(c.Telemetry.Audit, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("telemetry.audit: %w", err)
	}
	return file, file, nil
}

// auditTo makes further events go to sink, and closes the file before.
func (s *Server) auditTo(sink io.Writer, file *os.File) {
	s.events.SendTo(sink)
	if s.audit != nil {
		if err := s.audit.Close(); err != nil {
			s.log.Error("the last changes may be missing from the audit", "err", err)
		}
	}
	s.audit = file
}

// auditLog writes events to the log.
type auditLog struct{ log *slog.Logger }

func (a auditLog) Write(line []byte) (int, error) {
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "audit", slog.Any("event", json.RawMessage(bytes.TrimSuffix(line, []byte("\n")))))
	return len(line), nil
}

// Who reloads without being asked through the admin API.
const (
	byOperator = "operator"
	byWatch    = "file watch"
)

// inForce is what an event says of a configuration: enough to tell two apart,
// and nothing secret.
type inForce struct {
	LoadedAt     time.Time `json:"loaded_at"`
	Files        []string  `json:"files"`
	SHA256       string    `json:"sha256"` // of names and contents of the files
	Mode         string    `json:"mode"`
	DefaultLimit string    `json:"default_limit"`
	Consumers    int       `json:"consumers"`
	Rules        int       `json:"rules"`
	Error        string    `json:"error,omitempty"` // why the files as they are now are not in force
}

func (s *Server) inForce(c *current) inForce {
	set := settingsOf(c)
	state := inForce{
		LoadedAt: c.at.UTC(), Files: append([]string{}, c.sources.Files...), SHA256: hex.EncodeToString(c.sources.Sum[:]),
		Mode: *set.Mode, DefaultLimit: *set.DefaultLimit, Rules: c.Rules.Len(),
	}
	state.Consumers, _ = s.registry.Len()
	if c.lastErr != nil {
		state.Error = c.lastErr.Error()
	}
	return state
}

func (s *Server) tellReload(actor string, before, after inForce) {
	s.events.Publish(s.clock.Now().Std(), events.Event{Kind: "config.reload", What: "configuration", Actor: actor, Before: before, After: after})
}
