package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/apollo"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/mysql"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/postgres"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

// database is a source that others change too and that can be away.
type database interface {
	consumers.Store
	Run(context.Context) error
	Started(context.Context) error
	Status() sqlstore.Status
	Settings() sqlstore.Settings
	PutSettings(context.Context, sqlstore.Settings) error
}

// The names of settings in a database.
const (
	settingMode    = "mode"
	settingLevel   = "log_level"
	settingDefault = "default_limit"
)

// openDatabase opens the database that consumers come from. One that does not
// answer is waited for, not ready; one that cannot be used as it is ends the start.
func (s *Server) openDatabase(ctx context.Context) (err error) {
	c := s.current.Load().Config.Consumers
	o := sqlstore.Options{
		Registry: s.registry, Clock: s.clock, Log: s.log, Poll: c.Poll,
		Changed: func() {
			select {
			case s.sourceChanged <- struct{}{}:
			default:
			}
		},
	}
	switch c.Source {
	case config.SourcePostgres:
		s.database, err = postgres.Open(c.DSN, o)
	case config.SourceMySQL:
		s.database, err = mysql.Open(c.DSN, o)
	case config.SourceApollo:
		s.database, err = apollo.Open(c.DSN, apollo.Options{Options: o, Sessions: c.Sessions})
	default:
		err = fmt.Errorf("source %s is not a database", c.Source)
	}
	if err != nil {
		return err
	}
	s.store = s.database
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.database.Run(running) }()
	s.opens(func() error { stop(); return <-ended })
	if err := s.database.Started(ctx); errors.Is(err, sqlstore.ErrUnusable) || ctx.Err() != nil {
		return err
	}
	now := *s.current.Load()
	now.sourced = s.database.Status().Loaded
	if now.settings, err = s.changedSettings(now.Config); err != nil {
		return err
	}
	s.current.Store(&now)
	return nil
}

// followDatabase puts in force what the database says beside consumers.
func (s *Server) followDatabase(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.sourceChanged:
		}
		s.change.Lock()
		next := *s.current.Load()
		changed, err := s.changedSettings(next.Config)
		if err == nil {
			next.settings = changed
		}
		next.sourced = s.database.Status().Loaded
		s.putInForce(&next)
		s.current.Store(&next)
		s.change.Unlock()
		if s.unready() == "" {
			s.grpc.MarkReady()
		}
	}
}

// changedSettings returns the settings that were changed through the admin API,
// here or elsewhere, and still count beside what the file says.
func (s *Server) changedSettings(c *config.Config) (embedded.Settings, error) {
	if s.database == nil {
		return s.db.Settings(configured(c))
	}
	var changed embedded.Settings
	file, stored := settingsOf(&current{Loaded: &config.Loaded{Config: c}}), s.database.Settings()
	if word, ok := stored.Value(settingMode, *file.Mode); ok {
		if _, err := config.ParseMode(word); err != nil {
			s.log.Warn("setting cannot be used as it stands in the database", "setting", settingMode, "problem", err.Error())
			word = ""
		}
		changed.Mode = word
	}
	if text, ok := stored.Value(settingDefault, *file.DefaultLimit); ok {
		ls, err := config.ParseDefault(text)
		if err == nil {
			changed.Default = &ls
		} else {
			s.log.Warn("setting cannot be used as it stands in the database", "setting", settingDefault, "problem", err.Error())
		}
	}
	if word, ok := stored.Value(settingLevel, *file.LogLevel); ok {
		if _, err := config.ParseLevel(word); err != nil {
			s.log.Warn("setting cannot be used as it stands in the database", "setting", settingLevel, "problem", err.Error())
			word = ""
		}
		changed.Level = word
	}
	return changed, nil
}

// keepSettings keeps what was changed through the admin API where it survives.
func (s *Server) keepSettings(ctx context.Context, change embedded.Settings, c *config.Config) error {
	if s.database == nil {
		return s.db.PutSettings(ctx, change, configured(c), func() {})
	}
	file := settingsOf(&current{Loaded: &config.Loaded{Config: c}})
	put := sqlstore.Settings{}
	if change.Mode != "" {
		put[settingMode] = sqlstore.Setting{Value: change.Mode, Configured: file.Mode}
	}
	if change.Default != nil {
		put[settingDefault] = sqlstore.Setting{Value: defaultText(*change.Default), Configured: file.DefaultLimit}
	}
	if change.Level != "" {
		put[settingLevel] = sqlstore.Setting{Value: change.Level, Configured: file.LogLevel}
	}
	if len(put) == 0 {
		return nil
	}
	return s.database.PutSettings(ctx, put)
}

// sourceText tells how a database is that did not answer last, or nothing.
func (s *Server) sourceText() string {
	if s.database == nil {
		return ""
	}
	st := s.database.Status()
	switch {
	case st.Up || st.Err == nil:
		return ""
	case !st.Loaded:
		return fmt.Sprintf("waiting for the consumers: %v", st.Err)
	}
	return fmt.Sprintf("the source of the consumers is down since %s (%v): decisions go on with what was known at %s",
		st.Since.UTC().Format(time.RFC3339), st.Err, st.Synced.UTC().Format(time.RFC3339))
}

// sourceMetrics registers what is told of a database.
func (s *Server) sourceMetrics() {
	if s.database == nil {
		return
	}
	telemetry.RegisterSource(s.prom, func() telemetry.Source {
		st := s.database.Status()
		return telemetry.Source{Up: st.Up, Synced: st.Synced, Errors: st.Errors, Changes: st.Changes, Unusable: st.Bad}
	})
}
