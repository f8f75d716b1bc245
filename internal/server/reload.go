package server

import (
	"context"
	"reflect"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/config"
)

// Reload reads all files again and puts them in force, whole or not at all. The
// error, every problem of every file, is logged too and shows in metrics until
// a reload succeeds.
func (s *Server) Reload() error {
	s.change.Lock()
	defer s.change.Unlock()
	loaded, sources, err := config.Load(s.o.ConfigPath, s.o.Lookup)
	return s.reload(byOperator, loaded, sources, err)
}

// changed is called when one of the files may be another.
func (s *Server) changed() config.Sources {
	s.change.Lock()
	defer s.change.Unlock()
	loaded, sources, err := config.Load(s.o.ConfigPath, s.o.Lookup)
	if sources.Sum != s.current.Load().sources.Sum {
		_ = s.reload(byWatch, loaded, sources, err) // logged
	}
	return sources
}

func (s *Server) reload(actor string, loaded *config.Loaded, sources config.Sources, err error) error {
	was := s.current.Load()
	before := s.inForce(was)
	next := *was
	next.sources, next.lastErr = sources, was.rejected
	if err == nil {
		next.Loaded, next.at = loaded, time.Now()
		if next.fetched {
			loaded.Rules = was.Rules // they come from elsewhere
		}
		err = s.prepare(&next, was)
	}
	if err != nil {
		s.loaded(next.at, err)
		kept := *was
		kept.sources, kept.lastErr = sources, err
		s.current.Store(&kept)
		s.tellReload(actor, before, s.inForce(&kept))
		s.log.Error("configuration not reloaded, going on with the last one", "problems", strings.Split(err.Error(), "\n"))
		return err
	}
	s.putInForce(&next)
	s.current.Store(&next)
	if next.rejected == nil {
		s.loaded(next.at, nil)
	}
	s.tellReload(actor, before, s.inForce(&next))
	s.log.Info("configuration reloaded", "files", sources.Files)
	s.warn(&next)
	if keys := needRestart(was.Config, next.Config); len(keys) > 0 {
		s.log.Warn("changes take effect with a restart only", "keys", keys)
	}
	return nil
}

// prepare does what can still fail.
func (s *Server) prepare(next, was *current) (err error) {
	sink, file, err := s.openAudit(next.Config)
	if err != nil {
		return err
	}
	defer func() {
		switch {
		case err == nil:
			s.auditTo(sink, file) // opened anew: the old file may have been moved away
		case file != nil:
			_ = file.Close() // nothing was written to it
		}
	}()
	if next.settings, err = s.changedSettings(next.Config); err != nil {
		return err
	}
	switch {
	case was.Config.Consumers.Source != next.Config.Consumers.Source:
		return nil // until the restart that this needs, consumers and plans stay
	case next.Consumers == nil:
		return s.registry.SetPlans(s.clock.Now(), next.Config.Consumers.Plans)
	}
	return s.registry.Replace(s.clock.Now(), *next.Consumers)
}

// putInForce makes the next decisions follow c.
func (s *Server) putInForce(c *current) {
	cfg := c.Config
	policy := cfg.Policy
	if m, err := config.ParseMode(c.settings.Mode); err == nil {
		policy.Mode = m
	}
	level := cfg.Telemetry.LogLevel
	if l, err := config.ParseLevel(c.settings.Level); err == nil {
		level = l
	}
	s.level.Set(level)
	s.top.Show(cfg.Telemetry.TopConsumers)
	s.registry.SetOptions(s.clock.Now(), registryOptions(c))
	s.book.Swap(c.Rules)
	s.upstreams.Configure(cfg.Upstreams)
	policy.Waiting = !c.sourced
	s.authz.SetPolicy(&policy)
	answers := cfg.RateLimit
	answers.Mode, answers.Headers, answers.Schemes = policy.Mode, policy.Headers, schemes(cfg)
	answers.CountRefused, answers.Waiting = cfg.Rules.CountRefused, c.waits() || !c.sourced
	s.rls.SetPolicy(answers)
}

func registryOptions(c *current) consumers.RegistryOptions {
	o := consumers.RegistryOptions{Default: c.Config.Limits.Default, WarmUp: c.Config.Limits.WarmUp, Idle: c.Config.Limits.Cache.Idle}
	if c.settings.Default != nil {
		o.Default = *c.settings.Default
	}
	return o
}

// schemes are those that a credential may be written with.
func schemes(cfg *config.Config) []string {
	var all []string
	for _, p := range cfg.Policy.Credentials {
		if p.Scheme != "" && p.Scheme != "none" && p.Scheme != extauthz.SchemeApollo {
			all = append(all, p.Scheme)
		}
	}
	return all
}

func (s *Server) warn(c *current) {
	for _, w := range c.Warnings {
		s.log.Warn("configuration", "warning", w.Error())
	}
}

// needRestart names what differs and is read at the start only.
func needRestart(was, is *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		key     string
		was, is any
	}{
		{"listen", was.Listen, is.Listen},
		{"consumers.source", was.Consumers.Source, is.Consumers.Source},
		{"consumers.dsn", was.Consumers.DSN, is.Consumers.DSN},
		{"consumers.poll", was.Consumers.Poll, is.Consumers.Poll},
		{"limits.cache", was.Limits.Cache, is.Limits.Cache},
		{"cluster", was.Cluster, is.Cluster},
		{"telemetry.traces", was.Telemetry.Traces, is.Telemetry.Traces},
		{"telemetry.log.format", was.Telemetry.LogFormat, is.Telemetry.LogFormat},
	} {
		if !reflect.DeepEqual(k.was, k.is) {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// configured is what the file says of that which the admin API may change.
func configured(c *config.Config) embedded.Settings {
	return embedded.Settings{Mode: config.ModeWord(c.Policy.Mode), Default: &c.Limits.Default, Level: config.LevelWord(c.Telemetry.LogLevel)}
}

func (s *Server) settings() admin.Settings { return settingsOf(s.current.Load()) }

func settingsOf(now *current) admin.Settings {
	set := configured(now.Config)
	if now.settings.Mode != "" {
		set.Mode = now.settings.Mode
	}
	if now.settings.Default != nil {
		set.Default = now.settings.Default
	}
	if now.settings.Level != "" {
		set.Level = now.settings.Level
	}
	text := defaultText(*set.Default)
	return admin.Settings{Mode: &set.Mode, DefaultLimit: &text, LogLevel: &set.Level}
}

// defaultText is a default limit as config.ParseDefault reads it.
func defaultText(ls consumers.Limits) string {
	if len(ls) == 0 {
		return "none"
	}
	return ls[0].String()
}

func (s *Server) setSettings(ctx context.Context, change admin.Settings) error {
	s.change.Lock()
	defer s.change.Unlock()
	next := *s.current.Load()
	var set embedded.Settings
	if change.Mode != nil {
		set.Mode, next.settings.Mode = *change.Mode, *change.Mode
	}
	if change.DefaultLimit != nil {
		ls, err := config.ParseDefault(*change.DefaultLimit)
		if err != nil {
			return err
		}
		set.Default, next.settings.Default = &ls, &ls
	}
	if change.LogLevel != nil {
		set.Level, next.settings.Level = *change.LogLevel, *change.LogLevel
	}
	if err := s.keepSettings(ctx, set, next.Config); err != nil {
		return err
	}
	s.putInForce(&next)
	s.current.Store(&next)
	return nil
}
